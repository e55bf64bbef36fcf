import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from femur3d.errors import InputError
from femur3d.io.formats.hdf5 import open_hdf5, plain_datasets


def test_plain_datasets_lists_names_shapes_and_types(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/b"] = np.zeros((2, 3), np.float32)
        assert plain_datasets(file, "a.h5") == {"a/b": ((2, 3), np.dtype("f4"))}


@pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
def test_a_locked_file_says_so_and_what_helps(tmp_path, monkeypatch):
    import fcntl

    monkeypatch.delenv("HDF5_USE_FILE_LOCKING", raising=False)
    path = tmp_path / "a.h5"
    h5py.File(path, "w").close()
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"(?s)a\.h5: locked.*HDF5_USE_FILE_LOCKING=FALSE"):
            open_hdf5(path)
    open_hdf5(path).close()


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_hang_in_hdf5_is_ended_by_the_time_it_computes(tmp_path):
    h5py.File(tmp_path / "a.h5", "w").close()
    code = (
        "from femur3d.io.formats import hdf5\n"
        "hdf5.OPENING_CPU_SECONDS = 1\n"
        "hdf5.plain_datasets = lambda file, path: [None for _ in iter(int, 1)]\n"
        f"hdf5.look_through({os.fspath(tmp_path / 'a.h5')!r})"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode < 0
