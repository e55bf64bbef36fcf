"""Made-up runs of an ablation."""

import math

from experiments.studies.evaluated_run import Run
from femur3d.evaluation.metrics import METRICS

LABELS = {"transfer": "transfer (surrogate)", "scratch": "scratch", "no_deep_supervision": "no deep supervision"}
SOURCE = {"source_kind": "surrogate", "source_sha256": "ab" * 32, "source_file": "surrogate_weights"}
MISSED = {"mean_mm": math.inf, "std_mm": math.inf, "hausdorff_mm": math.inf, "hd95_mm": math.inf, "dice": 0.0}


def femur(**values):
    """All metrics of a femur: 0 where nothing is given."""
    return {**dict.fromkeys(METRICS, 0.0), **values}


def make_run(arm, seed, femurs, curve=None):
    """A run of the ablation, its femurs by (case, label)."""
    source = SOURCE if arm == "transfer" else {}
    curve = {1: {"ce_upper": 0.5, "validation_dice": 0.5}} if curve is None else curve
    return Run(arm, seed, LABELS[arm], femurs, curve, "hips: 2 cases; filters", source)


def three_runs():
    """Two seeds from scratch, the second of which misses a femur, and one transfer."""
    one = femur(mean_mm=1.0, std_mm=0.5, hausdorff_mm=4.0, hd95_mm=77.0, dice=0.9, jaccard=0.8, precision=0.95,
                recall=0.85)  # fmt: skip
    two = femur(mean_mm=2.0, std_mm=0.25, hausdorff_mm=8.0, hd95_mm=77.0, dice=0.8, jaccard=0.6, precision=0.75,
                recall=0.9)  # fmt: skip
    three = femur(mean_mm=0.4, std_mm=0.3, hausdorff_mm=2.0, hd95_mm=77.0, dice=0.96, jaccard=0.92, precision=1.0,
                  recall=0.94)  # fmt: skip
    left, right = ("a", "left"), ("a", "right")
    return [
        make_run("transfer", 0, {left: three, right: three}),
        make_run("scratch", 0, {left: one, right: two}),
        make_run("scratch", 1, {left: three, right: femur(**MISSED)}),
    ]


def cells(lines, name):
    """The cells of the one line of this name."""
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    return line.removeprefix(name).split()
