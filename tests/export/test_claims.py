"""A case is one process's alone, and free again when that ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from femur3d.errors import UsageError
from femur3d.export import claims
from femur3d.export.case_files import Case
from femur3d.io.atomic import give_back

HOLDER = """
import sys
from pathlib import Path
from femur3d.export import claims
from femur3d.export.case_files import Case
lock = claims.take(Case("a", Path("a.nii"), None, Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


def case(folder: Path) -> Case:
    return Case("a", Path("a.nii"), None, folder)


def test_a_claim_of_a_killed_process_is_free_and_its_file_is_tidied(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    assert claims.take(case(tmp_path)) is None
    claims.tidy([case(tmp_path)])
    assert (tmp_path / ".a.claim").exists()  # it is in use
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    claims.tidy([case(tmp_path)])
    assert list(tmp_path.iterdir()) == []
    lock = claims.take(case(tmp_path))
    assert lock is not None
    give_back(lock)
    assert list(tmp_path.iterdir()) == []


def test_state_changes_with_the_file(tmp_path):
    assert claims.state(case(tmp_path)) is None
    (tmp_path / "a.json").write_text("{}")
    before = claims.state(case(tmp_path))
    assert before == claims.state(case(tmp_path))
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "b.json").replace(tmp_path / "a.json")
    assert before != claims.state(case(tmp_path))


def test_parts_are_disjoint_and_whole_and_do_not_depend_on_the_others():
    names = [f"hip_{i:03}" for i in range(400)]
    parts = [{name for name in names if claims.is_in_part(name, k, 4)} for k in (1, 2, 3, 4)]
    assert sorted(name for part in parts for name in part) == names
    assert all(70 < len(part) < 130 for part in parts)
    assert claims.is_in_part("hip_000", 1, 1)


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", "²/3"])
def test_what_is_no_part_is_told(part):
    with pytest.raises(UsageError, match="Expected k/n"):
        claims.parse_part(part)
    assert claims.parse_part("2/8") == (2, 8)
