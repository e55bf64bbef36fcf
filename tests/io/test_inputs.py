"""Inputs become scans: folders of folders, several series, and names that never clash."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shutil
import struct
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from femur3d.errors import InputError, UsageError
from femur3d.io.images import read_scan, read_volume, write_volume
from femur3d.io.inputs import FOLDER_DEPTH, Scan, open_sources
from tests.support.dicom_series import make_scan, write_series, write_slice
from tests.support.enhanced_mr import enhanced, frames_of, save
from tests.support.scan_lists import listed, names, refused, touch, zip_folder

pytestmark = pytest.mark.usefixtures("temporary")


# ---- files and folders


def test_a_scan_file(tmp_path: Path) -> None:
    path = touch(tmp_path, "hip_07_0000.nii.gz") / "hip_07_0000.nii.gz"
    assert listed(path) == [Scan("hip_07", path, None, str(path))]
    assert listed(path, series=3)[0].series is None  # a file has no series


def test_inputs_keep_their_order_and_folders_are_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "z.nii", "b/2.mha", "b/10.nrrd", "b/1.nhdr", "b/deeper/0.mhd")
    assert names(tmp_path / "z.nii", tmp_path / "b") == ["z", "1", "10", "2", "0"]


def test_what_is_no_scan_is_passed_over_in_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "README", "a.nii.gz", "a.json", "a.png", "a.raw", "._a.nii.gz", ".git/b.nii.gz", "c.zip")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10\0")
    assert names(tmp_path) == ["a"]


def test_a_scan_with_its_name_in_capitals_is_not_passed_over(tmp_path: Path) -> None:
    _, capitals = listed(touch(tmp_path, "a.nii", "b.NII.gz"))
    with pytest.raises(InputError, match="lower case"):
        read_volume(capitals.path)


@pytest.mark.parametrize("name", ["README.txt", "missing.nii.gz", "slice.dcm", "missing.zip", "wrong.NII"])
def test_a_named_path_that_is_no_scan_fails_when_it_is_read(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "good.nii.gz", "README.txt", "wrong.NII")
    write_slice(tmp_path / "slice.dcm", make_scan(), 0)
    _, bad = listed(tmp_path / "good.nii.gz", tmp_path / name)
    assert (bad.path, bad.source) == (tmp_path / name, str(tmp_path / name))
    with pytest.raises(InputError, match=re.escape(str(tmp_path / name))):
        read_volume(bad.path, series=bad.series)


def test_a_relative_path_is_told_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touch(tmp_path, "hips/P1/a.nii.gz"))
    assert listed(Path("hips")) == [Scan("a", Path("hips/P1/a.nii.gz"), None, "hips/P1/a.nii.gz")]
    assert listed(Path())[0].source == "hips/P1/a.nii.gz"


def test_folders_are_searched_to_the_stated_depth(tmp_path: Path) -> None:
    deepest = "/".join(["f"] * FOLDER_DEPTH)
    touch(tmp_path, f"{deepest}/in.nii", f"{deepest}/f/out.nii")
    assert names(tmp_path) == ["in"]


def test_links(tmp_path: Path) -> None:
    """A link to a file of the same folder is a scan (even to a hidden one, as git-annex makes them)."""
    top = touch(tmp_path, "elsewhere/x.nii", "elsewhere/y/z.nii", "top/a.nii", "top/.annex/b").joinpath("top")
    links = {"b.nii": top / ".annex/b", "x.nii": tmp_path / "elsewhere/x.nii", "y": tmp_path / "elsewhere/y"}
    for name, target in {**links, "up": top}.items():
        (top / name).symlink_to(target)
    (top / "relative.nii").symlink_to("../elsewhere/x.nii")
    assert names(top) == ["a", "b"]
    (tmp_path / "entrance").symlink_to(top)
    assert names(tmp_path / "entrance") == ["a", "b"]  # what is named itself is followed


def test_links_out_of_a_folder_are_told_and_followed_on_request(tmp_path: Path) -> None:
    """Loops, through the folder itself and through one outside it, end."""
    top = touch(tmp_path, "cluster/P1/a.nii", "cluster/P2/b.nii", "top/c.nii", "only/x.txt").joinpath("top")
    for name in ("P1", "P2"):
        (top / name).symlink_to(tmp_path / "cluster" / name)
    (top / "P2" / "back").symlink_to(top)
    (top / "P1" / "up").symlink_to(tmp_path / "cluster")
    (tmp_path / "only" / "P1").symlink_to(tmp_path / "cluster" / "P1")
    told: list[str] = []
    with open_sources([top], say=told.append) as scans:
        assert [scan.name for scan in scans] == ["c"]
    assert told == [f"{top}: 2 links lead out of this folder, passed over without --follow_links (P1, P2)"]
    with open_sources([top], follow_links=True, say=told.append) as scans:
        assert [scan.name for scan in scans] == ["c", "a", "b"]
    assert len(told) == 1
    refused([tmp_path / "only"], "a link leads out", "--follow_links")


def test_what_is_called_like_a_scan_and_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """A cohort of git-annex or DataLad in which not all was fetched."""
    top = touch(tmp_path / "top", "P1/a.nii.gz", "P4/notes")
    touch(top, "P2/README", "P3/x.json")
    for name in ("P2/b.nii.gz", "P2/b.json", "P2/LICENSE", "P3/1-1.dcm", "P3/1-2.dcm", "P5"):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).symlink_to(".git/annex/objects/gone")
    (top / "loop.mha").symlink_to("loop.mha")
    os.mkfifo(top / "pipe.nii")
    scans = {scan.source: scan for scan in listed(top)}
    assert list(scans) == [str(top / name) for name in ("", "loop.mha", "pipe.nii", "P1/a.nii.gz", "P2/b.nii.gz", "P3")]
    said = {
        "": f"{top}/P5: a link that leads nowhere",
        "loop.mha": "Too many levels of symbolic links",
        "pipe.nii": "a pipe or device",
        "P2/b.nii.gz": "b.nii.gz: a link that leads nowhere (to .git/annex/objects/gone).\nFetch what it leads to",
        "P3": f"1-1.dcm: a link that leads nowhere (to .git/annex/objects/gone); 2 of 2 DICOM files of {top}/P3 cannot",
    }
    for name, words in said.items():
        one = scans[str(top / name)]
        with pytest.raises(InputError, match=re.escape(words)):
            read_scan(one.dicom or one.path)


def test_results_in_the_input_folder_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "out/a.nii.gz")
    assert names(tmp_path, leave_out=tmp_path / "out") == ["a"]
    assert names(tmp_path, leave_out=tmp_path / "P1" / ".." / "out") == ["a"]
    assert names(tmp_path / "out", leave_out=tmp_path / "out") == ["a"]  # named itself: not passed over


def test_label_maps_of_a_dataset_are_no_scans(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz", "labelsTs/b.nii.gz")
    assert names(tmp_path) == ["a", "b"]
    assert names(tmp_path / "labelsTr") == ["a"]  # named itself: not passed over


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_an_input_that_holds_nothing(tmp_path: Path, kind: str) -> None:
    empty, full = tmp_path / "empty", touch(tmp_path / "full", "b/x.png", "a.txt", ".hidden.nii", "c.m", "d", "e.m")
    empty.mkdir()
    if kind == "zip":
        empty, full = zip_folder(tmp_path / "e.zip", empty), zip_folder(tmp_path / "f.zip", full)
    touch(tmp_path, "good.nii")
    accepted = ".nii.gz, .nhdr, .nrrd, .mha, .mhd, .nii (lower case) and folders of DICOM slices, 8 folders deep"
    refused([empty], f"{empty}: no scans in this {kind} (it holds no files)", accepted)
    refused([full], f"{full}: no scans in this {kind} (it holds a.txt, c.m, d, …)")
    good, bad = listed(tmp_path / "good.nii", empty)  # among others it does not stop these
    assert good.problem == ""
    assert bad.problem.startswith(f"{empty}: no scans in this {kind}")
    refused([], "No input", error=UsageError)


def test_a_folder_without_permission_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "P1/a.nii", "P2/b.nii")
    list_folder = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name == "P2":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return list_folder(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    _, closed = listed(tmp_path)
    assert closed.path == tmp_path / "P2"
    with pytest.raises(InputError, match=r"cannot be opened \(Permission denied\)"):
        read_volume(closed.path)


# ---- DICOM


def test_dicom_folders_at_every_level(tmp_path: Path) -> None:
    scan = make_scan()
    for folder in ("P1/t1", "P1/t2", "P2"):
        (tmp_path / folder).mkdir(parents=True)
        write_series(tmp_path / folder, scan)
    touch(tmp_path, "P2/notes.txt", "P3/c.nii.gz")
    scans = listed(tmp_path)
    assert [s.name for s in scans] == ["P1_t1", "P1_t2", "P2", "c"]
    assert [s.source for s in scans[:3]] == [str(tmp_path / folder) for folder in ("P1/t1", "P1/t2", "P2")]
    np.testing.assert_array_equal(read_volume(scans[2].path, series=scans[2].series).array, scan.array)
    assert listed(tmp_path / "P2") == [Scan("P2", tmp_path / "P2", None, str(tmp_path / "P2"))]
    assert [s.series for s in listed(tmp_path, series=2)] == [2, 2, 2, None]


def test_slices_beside_a_scan_file_and_above_a_folder(tmp_path: Path) -> None:
    write_series(touch(tmp_path, "P1/converted.nii", "P1/more/d.nii") / "P1", make_scan())
    assert names(tmp_path) == ["P1", "converted", "d"]


def test_several_series_in_the_only_folder_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "parent" / "P1"
    folder.parent.mkdir()
    write_series(folder, make_scan(), number=5)
    write_slice(folder / "scout.dcm", make_scan(), 0, {"0020|000e": "1.2.3.9", "0020|0011": "7"})
    series = [
        "  1 = t1 tse 5 (8×7×6 voxels of 0.9×1.1×5.2 mm)",
        "  2 = no description (8×7×1 voxels of 0.9×1.1×0 mm)",
        "Choose one of them with --series N.",
    ]
    for top in (folder, folder.parent):
        message = refused([top], lines=4)
        assert message.splitlines() == [f"{folder}: 2 DICOM series in one folder.", *series]
        assert listed(top, series=1) == [Scan("P1_series1", folder, 1, str(folder))]
        message = refused([top], lines=4, series=3)
        assert message.splitlines() == [f"{folder}: no series number 3 among 2 DICOM series in one folder.", *series]
    assert read_volume(folder, series=1).array.shape == (6, 7, 8)


def test_several_series_in_a_batch_fail_alone(tmp_path: Path) -> None:
    for uid in ("1.2.3.4", "1.2.3.5"):
        write_series(tmp_path / "P1", make_scan(), uid=uid)
    touch(tmp_path, "P2.nii.gz")
    first, _ = listed(tmp_path / "P1", tmp_path / "P2.nii.gz")
    with pytest.raises(InputError, match=r"2 DICOM series.\nChoose a series by its number: 1 = t1 tse 3 \(8×7×6"):
        read_volume(first.path, series=first.series)


@pytest.mark.parametrize("suffix", [".dcm", ".img"])
def test_a_series_with_slices_that_cannot_be_opened_is_refused(tmp_path: Path, suffix: str) -> None:
    """Never the others of them: they would be a shorter scan. Links that lead somewhere are slices as any other."""
    folder = tmp_path / "P1"
    write_series(folder, make_scan(), names=[f"IM{z}{suffix}" for z in range(6)])
    (folder / f"IM5{suffix}").rename(tmp_path / "elsewhere")
    (folder / f"IM5{suffix}").symlink_to(tmp_path / "elsewhere")
    (folder / "notes.txt").symlink_to("gone")
    (folder / "beside.nii").touch()
    assert read_scan(folder).volume.array.shape == (6, 7, 8)
    for z in (0, 1):
        (folder / f"IM{z}{suffix}").unlink()
        (folder / f"IM{z}{suffix}").symlink_to("gone")
    words = f"IM0{suffix}: a link that leads nowhere (to gone); 2 of 6 DICOM files of {folder} cannot be read.\nFetch"
    for scan in (listed(folder)[0].dicom, folder):
        assert scan is not None
        with pytest.raises(InputError, match=re.escape(words)):
            read_scan(scan)


def test_damaged_slices_are_read_volumes_to_tell(tmp_path: Path) -> None:
    write_series(tmp_path / "P1", make_scan(), names=[f"{z}.dcm" for z in range(6)])
    for path in (tmp_path / "P1").iterdir():
        path.write_bytes(path.read_bytes()[:400])
    (scan,) = listed(tmp_path)
    with pytest.raises(InputError, match="damaged"):
        read_volume(scan.path)


def test_empty_files_are_slices_only_by_their_name_or_number(tmp_path: Path) -> None:
    touch(tmp_path, "P1/a.nii", "P1/README", "P2/0001.dcm", "P3/IM1", "P3/IM2")
    assert names(tmp_path) == ["a", "P2", "P3"]


def test_slices_without_dicoms_mark_are_found(tmp_path: Path) -> None:
    """Files of old systems begin with the elements: neither preamble nor meta header."""
    write_series(tmp_path / "P1", make_scan(), names=[f"IM{z}" for z in range(6)])
    for path in (tmp_path / "P1").iterdir():
        data = path.read_bytes()
        (length,) = struct.unpack("<L", data[140:144])  # of the meta header, by its first element
        path.write_bytes(data[144 + length :])
    assert b"DICM" not in (tmp_path / "P1" / "IM0").read_bytes()
    assert names(tmp_path) == ["P1"]
    assert read_volume(tmp_path / "P1").array.shape == (6, 7, 8)


# ---- names


def test_only_names_that_clash_get_folders_in_front(tmp_path: Path) -> None:
    touch(tmp_path, "P1/s/t1.nii", "P2/s/t1.nii", "P2/s/t2.nii", "P3/x/t1.nii", "P3/x/t1_0000.mha/u.nii")
    assert names(tmp_path) == ["P1_s_t1", "P2_s_t1", "t2", "x_t1", "u"]


def test_a_name_of_its_own_is_kept_when_a_prefixed_one_comes_to_it(tmp_path: Path) -> None:
    top = touch(tmp_path, "top/x/b.nii", "top/x_b.nii", "top/y/b.nii") / "top"
    assert names(top) == ["x_b", "top_x_b", "y_b"]  # the file in the folder itself comes first


def test_upper_and_lower_case_and_accents_make_no_difference(tmp_path: Path) -> None:
    touch(tmp_path, "1/Hip.nii", "2/hip.nii", "3/H\u00fcfte.nii", "4/Hu\u0308fte.nii")
    assert names(tmp_path) == ["1_Hip", "2_hip", "3_H\u00fcfte", "4_Hu\u0308fte"]


def test_two_scans_for_which_there_are_no_two_names(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "a.nrrd")
    both = f"{tmp_path}/a.nii and {tmp_path}/a.nrrd would both be called 'a'"
    refused([tmp_path], both, error=UsageError)
    refused([tmp_path / "a.nii", tmp_path / "a.nii"], "Give every scan once", error=UsageError)


def test_names_of_dicom_scans_do_not_change_when_others_come(tmp_path: Path) -> None:
    for folder in ("P1/study/s1", "P2/study/s1", "P2/study/s2"):
        (tmp_path / "new" / folder).mkdir(parents=True)
        write_series(tmp_path / "new" / folder, make_scan())
    first = listed(tmp_path / "new" / "P1")
    assert [scan.name for scan in first] == ["study_s1"]
    (tmp_path / "cohort").mkdir()
    for number in (1, 2):
        (tmp_path / "new" / f"P{number}").rename(tmp_path / "cohort" / f"P{number}")
        assert names(tmp_path / "cohort") == ["P1_study_s1", "P2_study_s1", "P2_study_s2"][: 3 if number == 2 else 1]


def test_names_by_a_pattern_of_dicom_keywords(tmp_path: Path) -> None:
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        for z in range(6):
            tags = {"0010|0020": f"P/{number}", "0020|0011": "3", "0008|103e": "t1"}
            write_slice(tmp_path / folder / f"{z}", make_scan(), z, tags)
    touch(tmp_path, "c.nii")

    def named(pattern: str) -> list[tuple[str, str]]:
        with open_sources([tmp_path], pattern=pattern) as scans:
            return [(scan.name, scan.problem) for scan in scans]

    assert named("x_{PatientID}_{SeriesNumber}") == [("c", ""), ("x_P_0_3", ""), ("x_P_1_3", "")]
    (_, _), (name, problem), _ = named("{AccessionNumber}")
    assert (name, problem.splitlines()[0]) == (
        "a",
        f"{tmp_path}/a/0: no AccessionNumber for --name {{AccessionNumber}}.",
    )
    with pytest.raises(UsageError, match=r"would both be called '3'.\nAdd a keyword to --name"):
        named("{SeriesNumber}")
    for wrong in (
        "{Patient}",
        "{PixelData}",
        "{PatientID:.3}",
        "plain",
        "{PatientID",
        "{}",
        "{ConceptNameCodeSequence}",
    ):
        with pytest.raises(UsageError) as caught:
            named(wrong)
        assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize("kind", ["folder", "files"])
def test_further_channels_of_a_case_are_no_cases(tmp_path: Path, kind: str) -> None:
    """nnU-Net's names; scans that are merely numbered lie on other grids, and one that is given alone is meant."""
    for name in ("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.mha", "b_0002.nrrd", "c_0001.nii", "d_0001.nii"):
        write_volume(make_scan(), tmp_path / name)
    write_volume(dataclasses.replace(make_scan(), origin_mm=(1, 2, 3)), tmp_path / "d_0000.nii")
    told: list[str] = []
    paths = [tmp_path] if kind == "folder" else sorted(tmp_path.iterdir())
    with open_sources(paths, say=told.append) as scans:
        assert [scan.name for scan in scans] == ["a", "b", "c_0001", "d", "d_0001"]
    said = f"of 2 cases the channel _0000 is segmented; further ones are left out ({tmp_path}/a_0001.nii.gz, …)"
    assert told == [said]
    assert names(tmp_path / "a_0001.nii.gz") == ["a_0001"]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ('a:b"c?<d>|e*.nii', "a_b_c__d__e_"),
        ("a\\b\n\x1b[31m.nii", "a_b__[31m"),
        ("-o.nii", "o"),
        ("--.nii", "scan"),
        ("_0000.nii.gz", "scan"),
        (" .-x . .nii", "x"),
        ("Nul.x.nii", "_Nul.x"),
        ("hip 07 (left), Jörg.nii", "hip 07 (left), Jörg"),
        (os.fsdecode(b"caf\xe9.nii"), "caf_"),
    ],
)
def test_names_are_fit_for_file_names(tmp_path: Path, file: str, name: str) -> None:
    assert names(touch(tmp_path, file) / file) == [name]


def test_hidden_folder_named_by_the_user(tmp_path: Path) -> None:
    write_series(tmp_path / ".P1", make_scan())
    assert names(tmp_path / ".P1") == ["P1"]


def test_sources_can_be_printed_and_stored(tmp_path: Path) -> None:
    file = os.fsdecode(b"caf\xe9\x1b.nii")
    (scan,) = listed(touch(tmp_path, file) / file)
    assert scan.source == f"{tmp_path}/caf��.nii"
    assert scan.with_given_paths(f"{scan.path}: bad.\nCopy it.") == f"{scan.source}: bad.\nCopy it."


TREES = st.sets(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), min_size=1, max_size=12)
LETTERS = "aA_-? :ü\u0308"
PARTS = st.builds(str.__add__, st.sampled_from(LETTERS), st.text(st.sampled_from(LETTERS + "."), max_size=2))
WILD_TREES = st.sets(st.lists(PARTS, min_size=1, max_size=3).map("/".join), min_size=1, max_size=12)


def names_of_tree(files: set[str]) -> list[str]:
    """Names for scan files at these places. The folders are called 'a.d', so that a file may be called 'a'."""
    with tempfile.TemporaryDirectory() as folder:
        touch(Path(folder), *(f"{file.replace('/', '.d/')}.nii" for file in files))
        return names(Path(folder))


def key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@given(TREES)
@settings(max_examples=20, deadline=None)
def test_every_tree_of_plain_names_gets_unique_names(files: set[str]) -> None:
    found = names_of_tree(files)
    assert len(set(found)) == len(files)
    stems = [file.split("/")[-1] for file in files]
    assert {name for name in found if "_" not in name} == {stem for stem in stems if stems.count(stem) == 1}


@given(WILD_TREES)
@settings(max_examples=20, deadline=None)
def test_every_tree_gets_unique_usable_names_or_is_refused(files: set[str]) -> None:
    try:
        found = names_of_tree(files)
    except UsageError:
        whole = [key(re.sub("[/:?]", "_", file.replace("/", ".d/")).rstrip(". ")) for file in files]
        assert len(set(whole)) < len(files)  # even with all folders in front two are the same
        return
    assert len(set(map(key, found))) == len(files)
    assert all(re.fullmatch(r"[^.\-/:? ]([^/:?]*[^./:? ])?", name) for name in found)


@pytest.mark.parametrize("kind", ["folder", "parts", "zip"])
def test_a_series_over_several_folders_is_one_scan(tmp_path: Path, kind: str) -> None:
    """As on a CD, with two files a folder; a shell makes several inputs of `cd/*`."""
    scan = make_scan()
    for z in range(6):
        (tmp_path / "cd" / f"{z // 2}").mkdir(parents=True, exist_ok=True)
        write_slice(tmp_path / "cd" / f"{z // 2}" / f"IM{z % 2}", scan, z)
    write_series(tmp_path / "cd" / "other", scan, uid="1.2.9")
    parts = sorted((tmp_path / "cd").iterdir())
    if kind == "zip":
        shutil.make_archive(str(tmp_path / "cd"), "zip", tmp_path / "cd")
    paths = {"folder": [tmp_path / "cd"], "parts": parts, "zip": [tmp_path / "cd.zip"]}[kind]
    with open_sources(paths) as scans:
        assert [one.name for one in scans] == ["cd", "other"]
        for one in scans:
            assert one.dicom is not None
            np.testing.assert_array_equal(read_scan(one.dicom).volume.array, scan.array)


def test_a_multi_frame_file_is_a_scan(tmp_path: Path) -> None:
    save(enhanced(frames_of(make_scan())), tmp_path / "hip.dcm")
    (only,) = listed(tmp_path / "hip.dcm")
    assert (only.name, only.path) == ("hip", tmp_path / "hip.dcm")
    echoes = [frame for time in (5.0, 9.0) for frame in frames_of(make_scan(), EffectiveEchoTime=time)]
    save(enhanced(echoes), tmp_path / "echoes.dcm")
    with pytest.raises(InputError, match="2 DICOM series in one file"), open_sources([tmp_path / "echoes.dcm"]):
        pass
    assert listed(tmp_path / "echoes.dcm", series=2)[0].series == 2
