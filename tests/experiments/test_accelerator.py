"""The packed dataset that travels to an accelerator."""

import h5py
import numpy as np
import pytest

from experiments.accelerator.compact import compact, expand, quantise
from femur3d.data.augmentation import variant
from femur3d.data.packed_dataset import PackedDataset


def test_256_levels_are_half_a_level_off_at_most():
    image = np.array([-1.0, 0.0, 0.004, 4.1], np.float32)
    levels, lowest, step = quantise(image)
    assert levels.tolist() == [0, 50, 50, 255]
    assert (lowest, step) == pytest.approx((-1.0, 0.02))


def test_a_constant_image_has_one_level():
    levels, lowest, _ = quantise(np.full((2, 2, 2), 3.0, np.float32))
    assert not levels.any()
    assert lowest == 3.0


def test_what_arrives_is_the_packed_dataset_with_its_variants(packed_file, tmp_path):
    with PackedDataset(packed_file) as packed:
        lost = compact(packed, tmp_path / "compact.h5")
        sources = [i for i, entry in enumerate(packed.entries) if entry.variant == 0]
        variants = {"train": (0, 6, 1), "val": (0,)}
        count = expand(tmp_path / "compact.h5", tmp_path / "again.h5", variants["train"])
        with PackedDataset(tmp_path / "again.h5") as again:
            assert count == len(again.entries) == sum(len(variants[packed.entries[i].split]) for i in sources)
            assert again.preprocessing == packed.preprocessing
            for i, entry in enumerate(again.entries):
                same = [(packed.entries[j].case, packed.entries[j].label_value) for j in sources]
                source = sources[same.index((entry.case, entry.label_value))]
                before, after = packed.read_volume(source), again.read_volume(i)
                assert after[0].spacing_mm == before[0].spacing_mm
                assert np.array_equal(after[1].array, variant(before[1].array, entry.variant))
                difference = after[0].array - variant(before[0].array, entry.variant)
                assert abs(difference).max() <= lost + 0.004  # half of float16's step below 8
    assert 0 < lost <= 0.02
    with h5py.File(tmp_path / "compact.h5") as file:
        assert len(file) == len(sources)
