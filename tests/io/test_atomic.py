"""`replacing` leaves the old file or the new one, never a part and never a temporary."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from femur3d.io.atomic import replacing, writing_alone


def test_success_puts_the_new_content_in_place(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path
        assert temporary.name.endswith("scan.nii.gz")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["scan.nii.gz"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_keeps_the_old_file_and_removes_the_temporary(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["metrics.csv"]


def test_missing_folders_are_created(tmp_path: Path) -> None:
    with replacing(str(tmp_path / "a" / "b.txt")) as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a" / "b.txt").read_text() == "x"


def test_writers_that_replace_the_temporary_themselves_are_fine(tmp_path: Path) -> None:
    with replacing(tmp_path / "b.txt") as temporary:
        temporary.unlink()
        temporary.write_text("again")
    assert (tmp_path / "b.txt").read_text() == "again"


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_are_those_of_an_ordinary_file_or_of_the_replaced_one(tmp_path: Path) -> None:
    ordinary, new, kept = tmp_path / "ordinary", tmp_path / "new", tmp_path / "kept"
    ordinary.touch()
    kept.touch()
    kept.chmod(0o600)
    for path in (new, kept):
        with replacing(path) as temporary:
            temporary.write_text("x")
    assert new.stat().st_mode == ordinary.stat().st_mode
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_a_link_keeps_pointing_to_its_target(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, replacing(tmp_path / "a.npz"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_two_threads_leave_the_processs_mask_of_permissions_as_it_was(tmp_path, monkeypatch):
    """It can be asked for only by setting it: in between, others would take 0 for the process's own."""
    really, before = os.umask, os.umask(0o027)

    def slow(mask):
        found = really(mask)
        time.sleep(0.05)
        return found

    monkeypatch.setattr(os, "umask", slow)
    together = threading.Barrier(2)

    def write(name):
        together.wait()
        with replacing(tmp_path / name) as temporary:
            temporary.write_text(name)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = really(before)
    assert after == 0o027
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in "ab"} == {0o640}


def test_lock_file_that_cannot_be_removed_stays_and_is_free(tmp_path, monkeypatch):
    """As on Windows, while it is open."""

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "in use", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    for _ in range(2):
        with writing_alone(tmp_path / "a.h5"):
            assert os.listdir(tmp_path) == [".a.h5.lock"]
