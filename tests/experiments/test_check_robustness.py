import numpy as np
import pytest

from experiments.studies import check_robustness
from femur3d.data.preprocessing import cut, orient
from femur3d.io.images import write_volume
from tests.support.ellipsoids import scan_and_label


@pytest.mark.parametrize("code", ["LPS", "PIR", "RAI"])
def test_crops_hold_one_femur_whole(code):
    scan, label = (orient(volume, code) for volume in scan_and_label())
    found = {(name, side): box for name, side, box in check_robustness.crops(scan, label)}
    assert len(found) == 4
    for (name, side), box in found.items():
        part = cut(label, box)
        assert (part.array == side).sum() == (label.array == side).sum()
        if name == "cut to one hip":
            assert not (part.array == 3 - side).any()
            assert part.array.size < 0.6 * label.array.size


def test_one_femur_has_no_half():
    scan, label = scan_and_label()
    one = label.with_array(np.where(label.array == 1, 1, 0).astype(np.uint8))
    assert [name for name, _, _ in check_robustness.crops(scan, one)] == ["40 mm around one femur"]


def test_threshold_model_does_not_mind_storage_or_intensities(threshold_model, tmp_path):
    scan, _ = scan_and_label()
    write_volume(scan, tmp_path / "scan.nii.gz")
    calls = []
    found = check_robustness.measure(tmp_path / "scan.nii.gz", threshold_model, tmp_path, lambda: calls.append(1))
    assert len(calls) == 1 + 4 + 2 + 4
    for name in (*check_robustness.STORED, *check_robustness.INTENSITIES):
        assert found[name] == [1.0, 1.0], name
    table = check_robustness.format_table(found, ["$ command"])
    assert table.splitlines()[0] == "$ command"
    assert len(table.splitlines()) == 3 + len(found)
