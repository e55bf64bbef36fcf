"""What an ablation says, worked out by hand: means by case, paired differences, the table, the curves."""

import csv
import dataclasses
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

import femur3d
from experiments.studies import ablation_report
from femur3d.errors import InputError
from femur3d.evaluation.metrics import METRICS, FemurMetrics
from femur3d.evaluation.tables import write_csv
from femur3d.io.settings import to_dict

PUBLISHED = Path(__file__).parents[2] / ablation_report.PUBLISHED
OVERLAP = ("dice", "jaccard", "precision", "recall")

LABELS = {"transfer": "transfer (surrogate)", "scratch": "scratch", "no_deep_supervision": "no deep supervision"}
SOURCE = {"source_kind": "surrogate", "source_sha256": "ab" * 32, "source_file": "surrogate_weights"}
CURVE = 500  # pixels
MISSED = {"mean_mm": math.inf, "std_mm": math.inf, "hausdorff_mm": math.inf, "hd95_mm": math.inf, "dice": 0.0}


def femur(**values):
    """All metrics of a femur: 0 where nothing is given."""
    return {**dict.fromkeys(METRICS, 0.0), **values}


def make_run(arm, seed, femurs, curve=None):
    """A run of the ablation, its femurs by (case, label)."""
    source = SOURCE if arm == "transfer" else {}
    curve = {1: {"ce_upper": 0.5, "validation_dice": 0.5}} if curve is None else curve
    return ablation_report.Run(arm, seed, LABELS[arm], femurs, curve, "hips: 2 cases; filters", source)


def by_dice(arm, seed, **dice):
    """A run with one femur a case."""
    return make_run(arm, seed, {(case, "left"): femur(dice=value) for case, value in dice.items()})


def comparison(*differences):
    """Compares two arms that differ by just these numbers in cases 0, 1, …"""
    return ablation_report.compare(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))


# Means and paired differences


def test_femurs_and_seeds_of_a_case_are_averaged_first():
    def three(left, right, other):
        return {("b", "left"): femur(dice=other), ("a", "left"): femur(dice=left), ("a", "right"): femur(dice=right)}

    runs = [
        make_run("scratch", 0, three(0.8, 0.6, 0.9)),
        make_run("scratch", 1, three(0.4, 0.2, 0.7)),
        make_run("no_deep_supervision", 0, three(0.1, 0.1, 0.1)),
    ]
    found = ablation_report.by_case(runs, "scratch", "dice")
    assert found == pytest.approx({"a": 0.5, "b": 0.8})  # (0.8 + 0.6 + 0.4 + 0.2) / 4, (0.9 + 0.7) / 2
    assert list(found) == ["a", "b"]
    assert ablation_report.by_case(runs, "no_deep_supervision", "dice") == pytest.approx({"a": 0.1, "b": 0.1})
    assert ablation_report.by_case(runs, "transfer", "dice") == {}


def test_difference_is_the_first_arm_minus_the_second_by_case():
    found = ablation_report.compare({"x": 0.9, "y": 0.5}, {"y": 0.75, "x": 0.5})
    assert found.differences == pytest.approx({"x": 0.4, "y": -0.25})
    assert found.mean == pytest.approx(0.075)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ((0.01, 0.02, 0.03, 0.04), 2 / 16),  # of 16 patterns of signs the two extreme ones
        ((-0.01, -0.02, -0.03, -0.04), 2 / 16),
        ((1, 1, 1, 1), 2 / 16),
        ((1, 2, 3, -4), 14 / 16),  # rank sum 4: 7 subsets of the ranks 1 to 4 sum to at most 4
        ((0, 1, 2, 3), 2 / 8),  # a case that does not differ is left out
        ((1, 2, 3, 4, 5, 6), 2 / 64),
        ((0, 0, 0, 0), 1),
        ((3,), 1),
    ],
)
def test_wilcoxon_by_hand(differences, p):
    assert comparison(*differences).p == pytest.approx(p)


@pytest.mark.parametrize(
    ("differences", "low", "high"),
    [
        ((0, 1), 0, 1),  # the mean of two draws is 0, 1/2 or 1 in a quarter, a half, a quarter of the resamples
        ((1, 0, 0, 0), 0, 0.75),  # at most 2 of 4 draws in 94.9%, at most 3 in 99.6%
        ((0, 0, 0), 0, 0),
        ((0.25,), 0.25, 0.25),
    ],
)
def test_interval_by_hand(differences, low, high):
    found = comparison(*differences)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.mean == pytest.approx(np.mean(differences))


@pytest.mark.parametrize("seed", range(4))
def test_interval_holds_the_mean_and_is_the_same_at_every_call(seed):
    differences = np.random.default_rng(seed).normal(size=4 + seed)
    found = comparison(*differences)
    assert min(differences) <= found.low < found.mean < found.high <= max(differences)
    assert comparison(*differences) == found


@pytest.mark.parametrize(("a", "b"), [(math.inf, 1.0), (1.0, math.inf), (math.inf, math.inf)])
def test_infinite_distance_cannot_be_compared(a, b):
    assert ablation_report.compare({"x": 1.0, "y": a}, {"x": 2.0, "y": b}) is None


def test_comparison_lines_by_hand():
    runs = [
        by_dice("transfer", 0, a=0.9, b=0.8),
        by_dice("transfer", 1, a=0.7, b=0.8),
        by_dice("scratch", 0, a=0.5, b=0.7),
        by_dice("no_deep_supervision", 0, a=0.5, b=0.7),
    ]
    lines = ablation_report.comparison_lines(runs)
    first = next(i for i, line in enumerate(lines) if line.startswith("  dice") and "(surrogate) - scratch:" in line)
    assert lines[first].endswith(": +0.2000 [+0.1000, +0.3000], p = 0.500")
    assert lines[first + 1].split(", ") == ["           a +0.3000", "b +0.1000"]
    (second,) = [line for line in lines if line.startswith("  dice") and "scratch - no deep supervision:" in line]
    assert second.endswith(": +0.0000 [+0.0000, +0.0000], p = 1.000")
    assert sum(line.startswith("  mean_mm") for line in lines) == 2


def test_every_case_counts_the_same_however_many_femurs_it_has():
    both = {("a", "left"): femur(dice=0.9), ("a", "right"): femur(dice=0.7), ("b", "left"): femur(dice=0.4)}
    runs = [make_run("scratch", 0, both), make_run("no_deep_supervision", 0, {key: femur() for key in both})]
    (line,) = [line for line in ablation_report.comparison_lines(runs) if line.startswith("  dice")]
    assert ": +0.6000 [" in line  # (0.8 + 0.4) / 2, not (0.9 + 0.7 + 0.4) / 3


def test_missed_femur_is_said_in_the_comparison():
    good, missed = femur(mean_mm=1.0, dice=0.9), femur(**MISSED)
    runs = [
        make_run("scratch", 0, {("a", "left"): missed, ("b", "left"): good}),
        make_run("no_deep_supervision", 0, {("a", "left"): good, ("b", "left"): good}),
    ]
    lines = ablation_report.comparison_lines(runs)
    (distance,) = [line for line in lines if line.startswith("  mean_mm")]
    assert "scratch - no deep supervision" in distance
    assert "not finite" in distance
    assert "missed" in distance
    (dice,) = [line for line in lines if line.startswith("  dice")]
    assert ": -0.4500 [-0.9000, +0.0000], p = 1.000" in dice


@pytest.mark.parametrize("cases", [1, 2, 4, 5])
def test_smallest_p_is_said(cases):
    dice = {f"case_{i}": i / 10 for i in range(cases)}
    last = ablation_report.comparison_lines([by_dice("scratch", 0, **dice), by_dice("no_deep_supervision", 0, **dice)])[
        -1
    ]
    count, smallest = re.search(r"with cases: (\d+), is ([\d.]+)\.$", last).groups()
    assert int(count) == cases
    assert float(smallest) == pytest.approx(2 / 2**cases, rel=0.05)  # rounded


def test_arms_that_are_not_there_are_not_compared():
    lines = ablation_report.comparison_lines([by_dice("scratch", 0, a=0.5), by_dice("no_deep_supervision", 0, a=0.5)])
    assert not [line for line in lines if "transfer" in line]
    assert len(ablation_report.comparison_lines([by_dice("scratch", 0, a=0.5)])) == 1  # the heading


# The table


@pytest.fixture
def runs():
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


def test_table_by_hand(runs):
    lines = ablation_report.table(runs, {})
    headings = ["Mean", "STD", "Hausdorff", "DICE", "Jaccard", "Precision", "Recall", "failures"]
    assert lines[0].split() == headings
    one = ["0.400", "0.300", "2.00", "0.9600", "0.9200", "1.0000", "0.9400", "0"]
    assert cells(lines, "transfer (surrogate), seed 0") == one
    assert cells(lines, "transfer (surrogate), mean") == one
    assert cells(lines, "scratch, seed 0") == ["1.500", "0.375", "6.00", "0.8500", "0.7000", "0.8500", "0.8750", "0"]
    assert cells(lines, "scratch, seed 1") == ["inf", "inf", "inf", "0.4800", "0.4600", "0.5000", "0.4700", "1"]
    assert cells(lines, "scratch, mean") == ["inf", "inf", "inf", "0.6650", "0.5800", "0.6750", "0.6725", "1"]
    rows = [line for line in lines if line.startswith(("transfer", "scratch"))]
    assert {len(line) for line in rows} == {len(lines[0])}  # columns stand below their headings


def test_mean_of_an_arm_is_that_of_its_seeds():
    seeds = [(femur(dice=0.5), femur(**MISSED)), (femur(dice=0.6), femur(dice=0.6)), (femur(**MISSED),) * 2]
    both = (("a", "left"), ("b", "left"))
    runs = [
        make_run("no_deep_supervision", seed, dict(zip(both, found, strict=True))) for seed, found in enumerate(seeds)
    ]
    found = cells(ablation_report.table(runs, {}), "no deep supervision, mean")
    assert found == ["inf", "inf", "inf", "0.2833", "0.0000", "0.0000", "0.0000", "3"]  # (0.25 + 0.6 + 0) / 3


def test_published_rows_stand_beside_ours(runs):
    published = {"transfer": {"mean_mm": 0.25, "dice": 0.9712}, "scratch": {"hausdorff_mm": 12.5}}
    lines = ablation_report.table(runs, published)
    assert cells(lines, "transfer, published") == ["0.250", "0.9712"]
    assert cells(lines, "scratch, published") == ["12.50"]
    row = next(line for line in lines if line.startswith("transfer, published"))
    for heading, number in (("Mean", "0.250"), ("DICE", "0.9712")):
        assert lines[0].index(heading) + len(heading) == row.index(number) + len(number)
    assert not [line for line in lines if "left out" in line]
    ours = [line for line in lines if "seed" in line or "mean" in line]
    assert ours == [line for line in ablation_report.table(runs, {}) if "seed" in line or "mean" in line]


def test_table_says_that_published_rows_are_lacking(runs):
    lines = ablation_report.table(runs, {})
    assert len([line for line in lines if "left out" in line and "--published" in line]) == 1
    assert not [line for line in lines if ", published" in line]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"transfer": {"mean_mm": 0.2, "dice": 1}}', {"transfer": {"mean_mm": 0.2, "dice": 1.0}}),
        (
            '{"scratch": {"recall": 0.5}, "no_deep_supervision": {"std_mm": 2}}',
            {"scratch": {"recall": 0.5}, "no_deep_supervision": {"std_mm": 2}},
        ),
    ],
)
def test_published_file_is_read(tmp_path, text, expected):
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    assert ablation_report.read_published(str(tmp_path / "rows.json")) == expected
    assert ablation_report.read_published(None) == ablation_report.read_published("") == {}


def test_the_papers_rows_are_those_of_table_2():
    published = ablation_report.read_published(str(PUBLISHED))
    assert list(published) == ["scratch", "transfer"]  # in the paper's order
    scratch, transfer = (published[arm] for arm in published)
    assert [scratch[m] for m in ("mean_mm", "hausdorff_mm", "dice", "recall")] == [0.67, 12.4, 0.975, 0.964]
    assert [transfer[m] for m in ("mean_mm", "hausdorff_mm", "dice", "recall")] == [0.22, 6.4, 0.987, 0.982]


@pytest.mark.parametrize(("metric", "decimals"), [("mean_mm", 2), ("hausdorff_mm", 1), *((m, 3) for m in OVERLAP)])
def test_the_papers_averages_are_those_of_its_patients(metric, decimals):
    """Table 1: a typing mistake in a patient's row would show here; rounding leaves half of the last place."""
    rows = json.loads(PUBLISHED.read_text(encoding="utf-8"))["table_1"]
    average = rows.pop("average")[metric]
    assert len(rows) == 10
    mean = sum(row[metric] for row in rows.values()) / len(rows)
    assert abs(mean - average) <= 0.5001 * 10**-decimals


@pytest.mark.parametrize(
    "content",
    [
        None,
        b'{"transfer": {"dice": 0.9',
        b"\xff\xfe",
        b"[1, 2]",
        b'{"transfer": 3}',
        b'{"transfer": null}',
        b'{"transfer": {"dice": "good"}}',
        b'{"transfer": {"dice": null}}',
        b'{"transfer": {"dice": [0.9]}}',
    ],
)
def test_published_file_that_is_no_use_is_two_lines(tmp_path, content):
    path = tmp_path / "rows.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"rows\.json: ") as caught:
        ablation_report.read_published(str(path))
    assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize("text", ['{"transfer": [0.9]}', '{"transfer": {"DICE": 0.9}}'])
def test_published_row_without_a_known_metric_is_refused(tmp_path, text):
    """It would be shown as a row of blanks."""
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="Expected"):
        ablation_report.read_published(str(tmp_path / "rows.json"))


# What belongs together


def test_runs_of_one_ablation_belong_together(runs):
    assert ablation_report.check_runs(runs) is None


@pytest.mark.parametrize(
    ("number", "change", "found"),
    [
        (1, {"setting": "hips: 3 cases; filters"}, "settings"),
        (1, {"femurs": {("a", "left"): {"mean_mm": 1.0, "dice": 0.9}}}, "weighting of surface distances"),
        (2, {"femurs": {("a", "left"): femur()}}, "validation femurs"),
        (0, {"source": {**SOURCE, "source_sha256": "cd" * 32}}, "encoder weights"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(runs, tmp_path, number, change, found):
    both = [*runs, make_run("transfer", 1, runs[0].femurs)]
    both[number] = dataclasses.replace(both[number], **change)
    with pytest.raises(InputError, match=f"differ in their {found}") as caught:
        ablation_report.write_reports(both, tmp_path / "report", ["command", "data"])
    assert str(caught.value).count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# A finished run, read


@pytest.fixture
def run_folder(tmp_path, tiny_experiment):
    """What training and evaluation leave behind."""
    folder = tmp_path / "transfer_seed0"
    (folder / "model").mkdir(parents=True)
    config = {**to_dict(tiny_experiment), "encoder_source": SOURCE, "data": "00"}
    (folder / "config.json").write_text(json.dumps(config))
    provenance = {"dataset": "hips", "training_cases": ["case_0", "case_1"], "step": 6}
    (folder / "model" / "config.json").write_text(json.dumps({"provenance": provenance}))
    (folder / "metrics.csv").write_text("step,ce_upper,validation_dice\n2,0.75,\n3,,0.25\n4,0.5,0.5\n")
    rows = [
        FemurMetrics("case_2", "femur_left", 1.5, 0.5, 4.0, 3.0, 0.9, 0.8, 0.95, 0.85, 100.0, 90.0, 1.25),
        FemurMetrics("case_2", "femur_right", *[math.inf] * 4, 0.0, 0.0, 0.0, 0.0, 100.0, 0.0, math.inf),
    ]
    write_csv(rows, folder / "evaluation" / "metrics.csv")
    return folder


def test_finished_run_is_read(run_folder):
    run = ablation_report.load_run("transfer", 4, run_folder)
    assert (run.arm, run.seed, run.label, run.source) == ("transfer", 4, "transfer (surrogate)", SOURCE)
    assert list(run.femurs) == [("case_2", "femur_left"), ("case_2", "femur_right")]
    assert tuple(run.femurs["case_2", "femur_left"]) == METRICS
    assert list(run.femurs["case_2", "femur_left"].values()) == [
        1.5, 0.5, 4, 3, 0.9, 0.8, 0.95, 0.85, 100, 90, 1.25, -10, -10,
    ]  # fmt: skip
    assert run.femurs["case_2", "femur_right"]["mean_mm"] == math.inf
    assert run.curve == {
        2: {"ce_upper": 0.75},
        3: {"validation_dice": 0.25},
        4: {"ce_upper": 0.5, "validation_dice": 0.5},
    }
    for words in ("hips: 2 cases", "6 updates of 2 patches of (16, 16, 16)", "(2, 3, 4, 4)", "(4, 3, 2)", "'tiny'"):
        assert words in run.setting


def test_run_of_an_earlier_version_is_read(run_folder):
    now = ablation_report.load_run("scratch", 0, run_folder).setting
    config = json.loads((run_folder / "config.json").read_text())
    config["preparation"] = config.pop("preprocessing")
    config["training"]["femur_share"] = config["training"].pop("foreground_probability")
    (run_folder / "config.json").write_text(json.dumps(config))
    assert ablation_report.load_run("scratch", 0, run_folder).setting == now


@pytest.mark.parametrize(("arm", "label"), [("scratch", "scratch"), ("no_deep_supervision", "no deep supervision")])
def test_label_without_transferred_weights(run_folder, arm, label):
    config = json.loads((run_folder / "config.json").read_text())
    (run_folder / "config.json").write_text(json.dumps({**config, "encoder_source": {}}))
    run = ablation_report.load_run(arm, 0, run_folder)
    assert (run.label, run.source) == (label, {})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, None) for name in ("config.json", "model/config.json", "metrics.csv", "evaluation/metrics.csv")),
        *((name, text) for name in ("config.json", "model/config.json") for text in ("", "{", "[]", "{}")),
        ("metrics.csv", "step,ce_upper\nfour,0.5\n"),
        ("metrics.csv", "time\n4\n"),
        ("evaluation/metrics.csv", "case,label,dice\na,left,much\n"),
        ("evaluation/metrics.csv", "case,dice\na,0.5\n"),
    ],
)
def test_unfinished_or_damaged_run_is_two_lines(run_folder, name, content):
    (run_folder / name).unlink()
    if content is not None:
        (run_folder / name).write_text(content)
    with pytest.raises(InputError, match="cannot be read as a finished run") as caught:
        ablation_report.load_run("transfer", 0, run_folder)
    assert str(caught.value).count("\n") == 1
    assert str(run_folder) in str(caught.value)


# Files


def test_csv_of_all_femurs_comes_back(runs):
    rows = list(csv.DictReader(io.StringIO(ablation_report.femurs_csv(runs))))
    expected = [(run, key, values) for run in runs for key, values in run.femurs.items()]
    assert len(rows) == len(expected) == 6
    for row, (run, (case, label), values) in zip(rows, expected, strict=True):
        assert (row.pop("arm"), row.pop("seed"), row.pop("case"), row.pop("label")) == (
            run.label, str(run.seed), case, label,
        )  # fmt: skip
        assert {metric: float(text) for metric, text in row.items()} == values


def drawn(monkeypatch, runs, path):
    """Draws and returns the figure, whose lines can be asked for their numbers."""
    made = []

    def figure(**words):
        made.append(Figure(**words))
        return made[-1]

    monkeypatch.setattr(ablation_report, "Figure", figure)
    ablation_report.draw_curves(runs, path)
    return made[0]


def numbers(axes, thick):
    """(x, y) of the thick lines or of the thin ones."""
    return [np.transpose(line.get_data()).tolist() for line in axes.lines if (line.get_linewidth() > 1) == thick]


def count_pixels(path, arm):
    """Pixels of an arm's colour; a key of the legend has fewer than CURVE."""
    return int((np.abs(imread(path)[..., :3] - to_rgb(ablation_report.COLOURS[arm])).max(axis=-1) < 0.02).sum())


def test_curves_of_all_arms(monkeypatch, tmp_path):
    runs = []
    for arm, height in zip(LABELS, (1, 2, 3), strict=True):  # so that no curve hides another one
        curve = {1: {"ce_upper": 0.8 * height}, 2: {"ce_upper": 0.4 * height, "validation_dice": 0.1 * height}}
        curve[3] = {"validation_dice": 0.2 * height}
        runs += [make_run(arm, seed, {("a", "left"): femur()}, curve) for seed in (0, 1)]
    figure = drawn(monkeypatch, runs, tmp_path / "curves.png")
    entropy, dice = figure.axes
    assert [len(numbers(axes, thick)) for axes in (entropy, dice) for thick in (True, False)] == [3, 6, 3, 6]
    np.testing.assert_allclose(numbers(entropy, True), [[(1, 0.8 * h), (2, 0.4 * h)] for h in (1, 2, 3)])
    np.testing.assert_allclose(numbers(dice, True), [[(2, 0.1 * h), (3, 0.2 * h)] for h in (1, 2, 3)])
    for arm in LABELS:
        assert count_pixels(tmp_path / "curves.png", arm) > CURVE
    legend = [text.get_text() for text in dice.get_legend().get_texts()]
    assert legend == [f"{label}, mean of 2" for label in LABELS.values()]
    assert "surrogate" in legend[0]


def test_one_seed_has_its_own_curve_as_mean(monkeypatch, tmp_path):
    curve = {10: {"ce_upper": 1.0, "validation_dice": 0.25}, 20: {"ce_upper": 0.5, "validation_dice": 0.75}}
    runs = [make_run("scratch", 0, {("a", "left"): femur()}, curve)]
    entropy, dice = drawn(monkeypatch, runs, tmp_path / "curves.png").axes
    assert numbers(entropy, True) == numbers(entropy, False) == [[[10, 1.0], [20, 0.5]]]
    assert numbers(dice, True) == numbers(dice, False) == [[[10, 0.25], [20, 0.75]]]
    assert count_pixels(tmp_path / "curves.png", "scratch") > CURVE
    assert (
        count_pixels(tmp_path / "curves.png", "transfer")
        == count_pixels(tmp_path / "curves.png", "no_deep_supervision")
        == 0
    )


def test_mean_curve_has_the_steps_that_all_seeds_have(monkeypatch, tmp_path):
    heights = [{10: 1.0, 20: 0.5, 30: 0.25}, {10: 3.0, 20: 1.5}]
    curves = [{s: {"ce_upper": v, "validation_dice": v / 4} for s, v in of_seed.items()} for of_seed in heights]
    runs = [make_run("no_deep_supervision", seed, {("a", "left"): femur()}, curve) for seed, curve in enumerate(curves)]
    entropy, dice = drawn(monkeypatch, runs, tmp_path / "curves.png").axes
    assert numbers(entropy, True) == [[[10, 2.0], [20, 1.0]]]
    assert numbers(entropy, False) == [[[10, 1.0], [20, 0.5], [30, 0.25]], [[10, 3.0], [20, 1.5]]]
    assert numbers(dice, True) == [[[10, 0.5], [20, 0.25]]]
    assert count_pixels(tmp_path / "curves.png", "no_deep_supervision") > CURVE


def test_reports_are_written(runs, tmp_path, capsys):
    folder = tmp_path / "report"
    paths = ablation_report.write_reports(
        runs, folder, ["$ python -m experiments.studies.run_ablation --seeds 2", "phantom (synthetic)"]
    )
    assert paths == [folder / name for name in ("table.txt", "femurs.csv", "curves.png")]
    assert sorted(folder.iterdir()) == sorted(paths)
    text = paths[0].read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    lines = text.splitlines()
    assert lines[0] == "$ python -m experiments.studies.run_ablation --seeds 2"
    assert lines[1] == "phantom (synthetic)"
    assert lines[2] == f"femur3d {femur3d.__version__}; hips: 2 cases; filters"
    assert lines[3] == f"transfer (surrogate): surrogate_weights, SHA-256 {'ab' * 32}"
    for line in (*ablation_report.table(runs, {}), *ablation_report.comparison_lines(runs)):
        assert line in lines
    assert paths[1].read_text(encoding="utf-8") == ablation_report.femurs_csv(runs)
    assert count_pixels(paths[2], "scratch") > 0


def test_reports_show_the_published_rows(runs, tmp_path):
    (tmp_path / "rows.json").write_text('{"transfer": {"dice": 0.9712}}')
    paths = ablation_report.write_reports(runs, tmp_path / "report", ["command", "data"], str(tmp_path / "rows.json"))
    lines = paths[0].read_text(encoding="utf-8").splitlines()
    assert cells(lines, "transfer, published") == ["0.9712"]
    assert cells(lines, "scratch, mean")[3] == "0.6650"
