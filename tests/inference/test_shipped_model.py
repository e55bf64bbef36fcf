"""The shipped model on a real scan: what a user gets. It was trained on this patient, so a good Dice is no achievement;
preprocessing, network, weights and cleaning all have to be right for it.
"""

import functools
import pathlib

import numpy as np
import pytest
from scipy import ndimage

from experiments.studies import check_robustness
from experiments.studies.contrast_table import without_hips
from femur3d import segment
from femur3d.data.preprocessing import cut, orient
from femur3d.engines.backend import ENGINE
from femur3d.evaluation.overlap import count_overlap, dice
from femur3d.inference.mode import EXACT, FAST
from femur3d.inference.postprocessing import LEFT, RIGHT
from femur3d.inference.saved_model import SHIPPED, load_model
from femur3d.inference.segmenter import Segmenter
from femur3d.io.images import read_volume
from femur3d.phantom.hip import make_phantom
from femur3d.phantom.tissue import random_contrast
from femur3d.volume import Volume


def scores(found: Volume, expected: Volume, sides: tuple[int, ...] = (LEFT, RIGHT)) -> list[float]:
    return [dice(count_overlap(expected.array, found.array, side)) for side in sides]


@pytest.mark.slow
def test_femurs_of_a_real_scan_however_it_is_stored(hips_dir: pathlib.Path) -> None:
    scan = read_volume(hips_dir / "imagesTr" / "hip_07_0000.nii.gz")
    model = load_model(SHIPPED)
    exact, fast = (functools.partial(Segmenter(model, ENGINE, mode), labels="sides") for mode in (EXACT, FAST))
    result = exact(scan)
    labels = result.labels
    assert np.unique(labels.array).tolist() == [0, LEFT, RIGHT]
    assert [ndimage.label(labels.array == side)[1] for side in (LEFT, RIGHT)] == [1, 1]
    reference = read_volume(hips_dir / "labelsTr" / "hip_07.nii.gz")
    assert scores(labels, reference) == pytest.approx([0.9398, 0.9427], abs=0.001)  # as it was shipped
    assert not result.needs_a_look
    assert min(scores(fast(scan).labels, labels)) >= 0.998
    changed = scan.with_array(scan.array.astype(np.float32) * np.float32(3.7) + np.float32(250))
    assert min(scores(exact(orient(changed, "PIR")).labels, orient(labels, "PIR"))) > 0.9999
    for name, side, box in check_robustness.crops(scan, labels):
        if name == "cut to one hip":
            assert min(scores(exact(cut(scan, box)).labels, cut(labels, box), (side,))) >= 0.98


@pytest.mark.slow
def test_a_phantom_in_another_contrast_is_left_to_hip_mr() -> None:
    """One of those of `experiments/results/contrast_phantoms.txt`; no training has seen a phantom."""
    scan, truth = make_phantom(20, (235, 100, 112), "both", contrast=random_contrast(np.random.default_rng(20)))
    result = segment(scan, fast=True)
    assert result.choice["taken"] == "hip_mr"
    assert scores(result.labels, truth) == pytest.approx([0.917, 0.900], abs=0.005)  # as it was shipped
    assert not result.needs_a_look
    alone = segment(scan, "hip_t1", fast=True)
    assert (alone.needs_a_look, alone.choice) == (True, {})


@pytest.mark.slow
def test_lower_back_without_hips_is_flagged_or_empty(hips_dir: pathlib.Path) -> None:
    files = [hips_dir / "imagesTr" / "hip_07_0000.nii.gz", hips_dir / "labelsTr" / "hip_07.nii.gz"]
    assert segment(without_hips(*map(read_volume, files)), fast=True).needs_a_look
