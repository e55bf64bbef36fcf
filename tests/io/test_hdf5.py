import h5py
import numpy as np

from femur3d.io.hdf5 import plain_datasets


def test_plain_datasets_lists_names_shapes_and_types(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/b"] = np.zeros((2, 3), np.float32)
        assert plain_datasets(file, "a.h5") == {"a/b": ((2, 3), np.dtype("f4"))}
