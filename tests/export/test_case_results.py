"""CASE.json and its files: of one run, whole, and nothing left over, whatever happens on the way."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import numpy as np
import pytest

from femur3d.errors import InputError
from femur3d.export import case_files, case_results
from femur3d.export.case_files import Case, Wanted
from femur3d.export.case_results import MadeWith, is_done, made_earlier, read_summary, results_in, tidy, write_case
from femur3d.inference.postprocessing import LABEL_NAMES
from femur3d.inference.quality_limits import Flag
from femur3d.inference.segmenter import Segmentation
from femur3d.io.images import ScanFile, read_volume
from femur3d.io.integrity import valid_json
from femur3d.morphometry import implicit_surface
from femur3d.volume import Volume

MADE_WITH = MadeWith("scan.mha", "ab12", None, {"overlap": 0.5}, {"weights_sha256": "cd34", "provenance": {}})
OTHER = Wanted(format=".nrrd", probability=True)
EVERYTHING = Wanted(probability=True, preview=True, surface="stl", segmentation=True)


def result(value: int = 1, sides: str = "sides") -> tuple[Segmentation, ScanFile]:
    """Two balls of 14 voxels across, 100 mm apart, or one where `value` is 2; and a scan of noise."""
    z, y, x = np.ogrid[:20, :20, :70]
    labels = np.zeros((20, 20, 70), np.uint8)
    for label, centre in ((1, 58), (2, 10)):
        if label >= value:
            labels[(z - 10) ** 2 + (y - 10) ** 2 + (x - centre) ** 2 <= 7**2] = label
    scan = Volume(np.random.default_rng(0).normal(size=labels.shape).astype(np.float32), (2.0, 2.0, 2.0))
    probability = scan.with_array((labels > 0).astype(np.float32))
    quality = {
        name: Flag(float(value), "unknown", "") for name, value in (("side_ratio", "nan"), ("fragments", "-inf"))
    }
    return Segmentation(scan.with_array(labels), probability, {}, quality, LABEL_NAMES[sides]), ScanFile(scan)


PLAIN = Wanted()


def write(folder: Path, wanted: Wanted = PLAIN, made_with: MadeWith = MADE_WITH, value: int = 1) -> dict:
    found, scan = result(value)
    summary = case_results.summary_of(made_with, found, scan.notes, seconds={"total": 1.0})
    return write_case(found, scan, case_in(folder), wanted, summary)


def case_in(folder: Path) -> Case:
    return Case("a", folder / "scan.mha", None, folder)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_listed_and_done(tmp_path: Path) -> None:
    summary = write(tmp_path, EVERYTHING)
    files = ["a.nii.gz", "a_prob.nii.gz", "a_preview.png", "a_left.stl", "a_right.stl", "a.seg.nrrd"]
    assert summary["files"] == files
    assert names(tmp_path) == sorted([*files, "a.json"])
    assert results_in(tmp_path) == set(files)
    assert summary["seconds"]["total"] == pytest.approx(1 + summary["seconds"]["writing"])
    assert is_done(case_in(tmp_path), MADE_WITH)
    for change in ({"input_sha256": "other"}, {"series": 2}, {"options": {}}, {"model": {}}):
        assert not is_done(case_in(tmp_path), dataclasses.replace(MADE_WITH, **change))
    renamed = dataclasses.replace(MADE_WITH, options={**MADE_WITH.options, "refine_above": None})
    (tmp_path / "a.json").write_text(json.dumps({**summary, "options": {**MADE_WITH.options, "focus": None}}))
    assert is_done(case_in(tmp_path), renamed)  # as earlier versions called it
    (tmp_path / "a_left.stl").unlink()
    assert not is_done(case_in(tmp_path), renamed)


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    write(tmp_path)

    def fail(name: str) -> None:
        raise AssertionError(name)

    summary = json.loads((tmp_path / "a.json").read_text(), parse_constant=fail)
    assert summary["quality"]["side_ratio"]["value"] is summary["quality"]["fragments"]["value"] is None
    assert summary["volumes_ml"] == {"left": pytest.approx(11.5, abs=0.3), "right": pytest.approx(11.5, abs=0.3)}


def test_what_the_new_summary_does_not_list_and_the_old_one_did_is_removed(tmp_path: Path) -> None:
    write(tmp_path, EVERYTHING)
    (tmp_path / "a_mine.stl").write_text("mine")
    write(tmp_path, Wanted(format=".nrrd"))
    assert names(tmp_path) == ["a.json", "a.nrrd", "a_mine.stl"]
    summary = read_summary(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps({**summary, "files": ["a.nrrd", "../outside.txt"]}))
    (tmp_path.parent / "outside.txt").write_text("not in the folder")
    write(tmp_path)
    assert (tmp_path.parent / "outside.txt").exists()


def test_an_output_that_fails_is_listed_and_the_rest_is_written(tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr(implicit_surface, "femur_mesh", fail)
    (tmp_path / "a.seg.nrrd").mkdir()
    summary = write(tmp_path, EVERYTHING)
    assert summary["failed"]["a_left.stl"] == summary["failed"]["a_right.stl"] == "ValueError: two lines"
    assert str(tmp_path / "a.seg.nrrd") in summary["failed"]["a.seg.nrrd"]
    assert read_summary(tmp_path / "a.json") == json.loads(json.dumps(valid_json(summary, lambda _: None)))
    assert names(tmp_path) == ["a.json", "a.nii.gz", "a.seg.nrrd", "a_preview.png", "a_prob.nii.gz"]
    assert not is_done(case_in(tmp_path), MADE_WITH)  # it is tried again


def test_a_label_map_that_fails_leaves_the_earlier_results(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, EVERYTHING)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object, **__: object) -> None:
        raise InputError("disk full.\nFree some space.")

    monkeypatch.setattr(case_files, "write_volume", fail)
    with pytest.raises(InputError, match="disk full"):
        write(tmp_path, value=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_move_that_stops_on_its_way_is_ended_later(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path / "new", OTHER, value=2)
    out, real, moved = tmp_path / "out", case_results._move, []
    write(out, EVERYTHING)

    def stop_at_the_second(source: Path, final: Path) -> None:
        if moved:
            raise OSError("no space")
        moved.append(final.name)
        real(source, final)

    with monkeypatch.context() as patch:
        patch.setattr(case_results, "_move", stop_at_the_second)
        with pytest.raises(OSError, match="no space"):
            write(out, OTHER, value=2)
        tidy([case_in(out)])  # as little room as before: the rest stays where it is
    assert names(out) == [".a.writing", *moved]
    tidy([case_in(out)])
    assert contents(out, hidden=True) == contents(tmp_path / "new")


def test_names_in_a_received_summary_lead_nowhere_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".a.writing").mkdir(parents=True)
    (out / "mine").touch()
    summary = {"model": {}, "files": ["../mine", "..", "", "a.nii.gz"]}
    for path in (out / "a.json", out / ".a.writing/a.json"):
        path.write_text(json.dumps(summary))
    (out / ".a.writing/a.nii.gz").write_bytes(b"labels")
    tidy([case_in(out)])
    assert names(out) == ["a.json", "a.nii.gz", "mine"]
    assert names(tmp_path) == ["out"]
    (out / "a.json").write_text(json.dumps(summary))
    write(out, OTHER)
    assert names(out) == ["a.json", "a.nrrd", "a_prob.nrrd", "mine"]


def test_the_file_that_a_link_leads_to_is_replaced_and_permissions_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere.nii.gz").touch()
    (out / "a.nii.gz").symlink_to(tmp_path / "elsewhere.nii.gz")
    (out / "a_prob.nii.gz").touch(mode=0o600)
    write(out, Wanted(probability=True))
    assert (out / "a.nii.gz").is_symlink()
    assert read_volume(tmp_path / "elsewhere.nii.gz").array.any()
    assert (out / "a_prob.nii.gz").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_kill_at_any_event_leaves_the_old_results_or_the_new_ones(tmp_path: Path) -> None:
    """A process writes the second results over the first ones and dies at its n-th event in the file system."""
    write(tmp_path / "old", EVERYTHING)
    write(tmp_path / "new", OTHER, dataclasses.replace(MADE_WITH, series=2), value=2)
    old, new = (contents(tmp_path / name) for name in ("old", "new"))
    subprocess.run([sys.executable, "-c", KILLS, str(tmp_path)], check=True, timeout=600)
    killed = sorted(tmp_path.glob("kill-*"), key=lambda folder: int(folder.name[5:]))
    states = []
    for folder in killed:
        visible = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        assert visible <= results_in(folder) | {"a.json"}  # whatever lies there is known for a result
        summary = read_summary(folder / "a.json")
        whole = bool(summary) and all((folder / name).exists() for name in summary["files"])
        assert not whole or contents(folder) in (old, new)  # a summary is never of other files
        tidy([case_in(folder)])
        assert contents(folder, hidden=True) in (old, new)
        states.append(contents(folder) == new)
    assert len(states) > 20
    assert states == sorted(states)  # first the old ones, from some event on the new ones
    assert not states[0]
    assert states[-1]


def contents(folder: Path, hidden: bool = False) -> dict[str, object]:
    """Bytes by name; of a summary all but the seconds."""
    files = {p.name: p for p in folder.iterdir() if hidden or not p.name.startswith(".")}
    found: dict[str, object] = {n: p.read_bytes() for n, p in files.items() if p.is_file() and p.suffix != ".json"}
    found |= {n: "folder" for n, p in files.items() if p.is_dir()}
    for name in (n for n in files if n.endswith(".json")):
        found[name] = {key: value for key, value in json.loads(files[name].read_text()).items() if key != "seconds"}
    return found


KILLS = """
import os, shutil, sys
from pathlib import Path
from tests.export.test_case_results import MADE_WITH, OTHER, dataclasses, result, write

top, watched = Path(sys.argv[1]), {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}

def write_and_die(folder, left):
    def die(event, arguments):
        nonlocal left
        changes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if event in watched and changes and str(folder) in str(arguments[0]):
            left -= 1
            if left < 0:
                os._exit(77)

    sys.addaudithook(die)
    write(folder, OTHER, dataclasses.replace(MADE_WITH, series=2), value=2)
    os._exit(0)

for number in range(1000):
    folder = top / f"kill-{number}"
    shutil.copytree(top / "old", folder)
    child = os.fork()  # SimpleITK has no threads yet
    if not child:
        write_and_die(folder, number)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
"""


def test_leftovers_are_removed_but_for_those_of_other_cases_and_of_running_processes(tmp_path: Path) -> None:
    write(tmp_path)
    left = [".writing-abcd_123-a.nii.gz", ".writing-abcd1234-a.json", ".a.lock"]
    kept = [".writing-abcd1234-b.nii.gz", ".b.lock", ".mine"]
    for name in left + kept:
        (tmp_path / name).touch()
    (tmp_path / ".a.writing").mkdir()
    (tmp_path / ".a.writing" / "a.nii.gz").touch()
    with filelock.FileLock(tmp_path / ".a.lock"):
        tidy([case_in(tmp_path)])
        assert set(names(tmp_path)) >= {*left, ".a.writing"}
    tidy([case_in(tmp_path)])
    assert names(tmp_path) == sorted([*kept, "a.json", "a.nii.gz"])


def test_two_processes_never_mix_their_results(tmp_path: Path, monkeypatch) -> None:
    """Two threads here: the lock is the same. Each result has one label map, summary and set of files."""
    runs = [(EVERYTHING, 1), (Wanted(format=".nrrd", segmentation=True), 2)]
    expected = []
    for number, (wanted, value) in enumerate(runs):
        write(tmp_path / str(number), wanted, dataclasses.replace(MADE_WITH, series=number), value)
        expected.append(contents(tmp_path / str(number)))
    out = tmp_path / "out"
    for _ in range(4):
        threads = [
            threading.Thread(target=write, args=(out, wanted, dataclasses.replace(MADE_WITH, series=number), value))
            for number, (wanted, value) in enumerate(runs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert contents(out, hidden=True) in expected


def test_a_case_that_another_process_keeps_is_refused_in_two_lines(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(case_results, "LOCK_SECONDS", 0.1)
    tmp_path.joinpath(".a.lock").touch()
    with filelock.FileLock(tmp_path / ".a.lock"), pytest.raises(InputError, match="another femur3d") as caught:
        write(tmp_path)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"files": ["a"]}', '{"model": 1, "files": [{"a": 1}]}', "[" * 100_000])
def test_another_json_file_is_no_summary(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read_summary(tmp_path / "a.json") == {}
    (tmp_path / "a.json").write_text('{"model": 1, "files": [], "n": %s}' % ("9" * 5000))
    assert read_summary(tmp_path / "a.json") == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_summary_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    assert read_summary(tmp_path / "a.json") == {}
    assert results_in(tmp_path) == set()


def test_a_summary_of_another_scan_or_series_is_told_apart(tmp_path: Path) -> None:
    write(tmp_path, made_with=dataclasses.replace(MADE_WITH, series=2))
    earlier = made_earlier(case_in(tmp_path))

    def is_of_another(source: str, series: int | None, sha256: str) -> bool:
        return case_results.is_of_another(earlier, source, series, lambda: sha256)

    assert not is_of_another("scan.mha", 2, "changed")  # the same scan, which has changed
    assert is_of_another("scan.mha", 1, "other")
    assert is_of_another("scan.mha", 1, "ab12")  # another series of the same multi-frame file
    assert not is_of_another("scan.mha", None, "ab12")  # the same bytes, chosen in another way
    assert not is_of_another("elsewhere.mha", 2, "ab12")
    assert not is_of_another("elsewhere.mha", 2, "")  # it cannot be read: said in its turn
    assert is_of_another("elsewhere.mha", 2, "other")
