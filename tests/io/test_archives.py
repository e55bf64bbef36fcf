"""Zips become scans: malicious, damaged and huge ones too."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from femur3d.errors import InputError
from femur3d.io.formats import archives
from femur3d.io.images import read_scan, read_volume, write_volume
from femur3d.io.inputs import open_sources
from tests.support.dicom_series import make_scan, write_series
from tests.support.scan_lists import listed, names, refused, touch, write_zip, zip_folder

pytestmark = pytest.mark.usefixtures("temporary")


def test_zip_of_scans_and_dicom_folders(tmp_path: Path, temporary: Path) -> None:
    scan = make_scan()
    folder = touch(tmp_path / "in", "README.txt", "__MACOSX/P1/._a.nii.gz", ".DS_Store", "P1/._a.nii.gz")
    write_volume(scan, folder / "P1" / "a.nii.gz")
    (folder / "P2").mkdir()
    write_series(folder / "P2", scan)
    path = zip_folder(tmp_path / "scans.zip", folder)
    with open_sources([path]) as scans:
        assert [(s.name, s.source) for s in scans] == [("a", f"{path}/P1/a.nii.gz"), ("P2", f"{path}/P2")]
        assert all(s.path.is_relative_to(temporary) for s in scans)
        for one in scans:
            np.testing.assert_array_equal(read_volume(one.path).array, scan.array)
        assert not [p for p in temporary.rglob("*") if p.name.startswith(("._", "__MACOSX"))]
    assert os.listdir(temporary) == []


def test_zip_of_a_dicom_folders_files_is_called_like_the_zip(tmp_path: Path) -> None:
    write_series(tmp_path / "in", make_scan())
    path = zip_folder(tmp_path / "P7.ZIP", tmp_path / "in")
    with open_sources([path]) as (scan,):
        assert (scan.name, scan.source) == ("P7", str(path))
        assert (
            scan.with_given_paths(f"{scan.path}/3.dcm: damaged.\nCopy {scan.path}.")
            == f"{path}/3.dcm: damaged.\nCopy {path}."
        )
    write_series(tmp_path / "in", make_scan(), uid="1.2.3.9")
    path = zip_folder(tmp_path / "P8.zip", tmp_path / "in")
    refused([path], f"{path}: 2 DICOM series in one folder.\n  1 = t1 tse 3", "--series N", lines=4)
    assert listed(path, series=2)[0].series == 2


def test_backslashes_between_folders(tmp_path: Path) -> None:
    """As some programs of Windows write them; also in the entry of a folder, and in hidden ones."""
    write_series(tmp_path / "in", make_scan())
    slices = {f"P1\\S\\IM{z}": p.read_bytes() for z, p in enumerate(sorted((tmp_path / "in").iterdir()))}
    path = write_zip(tmp_path / "a.zip", {"P1\\": b"", "P1\\S\\": b"", "P1\\._x.nii": b"", **slices})
    with open_sources([path]) as (scan,):
        assert scan.source == f"{path}/P1/S"
        np.testing.assert_array_equal(read_scan(scan.path).volume.array, make_scan().array)


def test_zips_and_folders_with_the_same_names(tmp_path: Path) -> None:
    first, second = (write_zip(tmp_path / f"{n}.zip", {"s/t1.nii": b"", "u.nii": b""}) for n in "AB")
    touch(tmp_path, "s/t1.nii")
    expected = ["A.zip_u", "A.zip_s_t1", "B.zip_u", "B.zip_s_t1", f"{tmp_path.name}_s_t1"]
    assert names(first, second, tmp_path / "s") == expected


def test_messages_speak_of_the_zip(tmp_path: Path) -> None:
    write_volume(make_scan(), tmp_path / "whole.mha")
    header = b"NDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = b.raw\n"
    path = write_zip(tmp_path / "scans.zip", {"P1/b.mhd": header, "P1/empty\x1b.nii": b""})
    with open_sources([path]) as scans:
        told = []
        for scan in scans:
            with pytest.raises(InputError) as caught:
                read_volume(scan.path)
            told.append(scan.with_given_paths(str(caught.value)).splitlines())
    assert told == [
        [f"{path}/P1/b.mhd: its data file {path}/P1/b.raw is missing.", "Keep the header and its data file together."],
        [f"{path}/P1/empty�.nii: the file is empty (0 bytes).", "Copy or export it again."],
    ]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_temporary_folder_goes_after_an_exception(tmp_path: Path, temporary: Path, error: type[BaseException]) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.nii": b"x"})

    def use() -> None:
        with open_sources([path, path.with_name("other.nii")]):
            assert len(os.listdir(temporary)) == 1
            raise error

    with pytest.raises(error):
        use()
    assert os.listdir(temporary) == []


def unpacked_nothing(path: Path, temporary: Path, *words: str) -> None:
    """The zip is refused; the good scan before it in the zip was not written, and nothing is left anywhere."""
    before = sorted(p for p in temporary.parent.rglob("*"))
    refused([path], str(path), *words)
    assert sorted(p for p in temporary.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("../evil.nii", "leads out of the folder"),
        ("P1/../../evil.nii", "leads out of the folder"),
        ("../evil/", "leads out of the folder"),
        ("__MACOSX/../../evil.nii", "leads out of the folder"),
        ("/tmp/evil.nii", "absolute path"),
        ("..\\evil.nii", "leads out of the folder"),
        ("P1\\..\\..\\evil.nii", "leads out of the folder"),
        ("\\\\server\\evil.nii", "absolute path"),
        ("P1\\c:evil.nii", "drive letter"),
        ("P1\\nul.nii", "called like a device"),
        ("C:/evil.nii", "drive letter"),
        ("P1/c:evil.nii", "drive letter"),
        ("P1/nul.nii", "called like a device"),
        ("COM1/evil.nii", "called like a device"),
    ],
)
def test_names_that_leave_the_folder(tmp_path: Path, temporary: Path, name: str, what: str) -> None:
    path = write_zip(tmp_path / "evil.zip", {"good.nii": b"x", name: b"x"})
    unpacked_nothing(path, temporary, repr(name), what, "Nothing was unpacked")


def test_zero_byte_in_a_name(tmp_path: Path, temporary: Path) -> None:
    path = write_zip(tmp_path / "evil.zip", {"good.nii": b"x", "evil.nii_": b"x"})
    path.write_bytes(path.read_bytes().replace(b"evil.nii_", b"evil\0.nii"))
    unpacked_nothing(path, temporary, "evil�.nii", "zero byte")


@pytest.mark.parametrize(
    ("kind", "what"), [(stat.S_IFLNK, "is a link"), (stat.S_IFCHR, "is neither"), (stat.S_IFIFO, "is neither")]
)
def test_links_and_devices(tmp_path: Path, temporary: Path, kind: int, what: str) -> None:
    entry = zipfile.ZipInfo("P1/evil.nii")
    entry.create_system = 3
    entry.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("good.nii", b"x")
        archive.writestr(entry, "/etc/passwd")
    unpacked_nothing(tmp_path / "evil.zip", temporary, "'P1/evil.nii'", what)


def test_ordinary_entries_of_unix_and_others_are_no_devices(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "P1/a.nii")
    shutil.make_archive(str(tmp_path / "b"), "zip", folder)  # with entries for folders and with permissions
    assert zipfile.ZipFile(tmp_path / "b.zip").infolist()[0].is_dir()
    assert names(tmp_path / "b.zip") == ["a"]
    assert names(write_zip(tmp_path / "c.zip", {"./P1//b.nii": b"x"})) == ["b"]


@pytest.mark.parametrize(
    ("limit", "value", "received"),
    [("MAX_ZIP_FILES", 2, "3 files of 0.00 GiB"), ("MAX_ZIP_BYTES", 29, "3 files of 0.00 GiB")],
)
def test_limits_are_checked_before_anything_is_written(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, received: str
) -> None:
    path = write_zip(tmp_path / "a.zip", {f"{n}.nii": bytes(10) for n in "abc"} | {"._a.nii": bytes(10)})
    assert len(listed(path)) == 3
    monkeypatch.setattr(archives, limit, value + 1)
    assert len(listed(path)) == 3  # hidden files do not count
    monkeypatch.setattr(archives, limit, value)
    monkeypatch.setattr(archives, "_unpack", lambda *_: pytest.fail("written"))
    unpacked_nothing(path, temporary, received, "Up to", "give the folder")


def test_announced_sizes_of_a_bomb(tmp_path: Path, temporary: Path) -> None:
    """Nine entries of zeros say 1 GiB each; they need not hold it."""
    path = write_zip(tmp_path / "bomb.zip", {f"{n}.nii": bytes(10) for n in range(9)})
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    directory = data[start:].replace(struct.pack("<L", 10), struct.pack("<L", 1 << 30))
    path.write_bytes(data[:start] + directory)
    unpacked_nothing(path, temporary, "9 files of 9.00 GiB", "8 GiB")


def test_bomb_that_lies_about_its_size(tmp_path: Path, temporary: Path) -> None:
    path = write_zip(tmp_path / "bomb.zip", {"good.nii": b"x", "bomb.nii": bytes(1_234_567)})
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", 1_234_567), struct.pack("<L", 10)))
    unpacked_nothing(path, temporary, "damaged")


def test_bytes_are_counted_while_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where zipfile itself would hand out more, or less, than was announced."""
    path = write_zip(tmp_path / "bomb.zip", {"a.nii": bytes(10)})
    n_reads = 0

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal n_reads
            n_reads += 1
            return bytes(10)

    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: Endless())
    refused([path], "a.nii does not have the 10 bytes")
    assert n_reads == 2
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: io.BytesIO(bytes(9)))
    refused([path], "a.nii does not have the 10 bytes")


def test_encrypted_nested_and_unusual_zips(tmp_path: Path, temporary: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"good.nii": b"x", "more/b.ZIP": b"x"})
    unpacked_nothing(path, temporary, "'more/b.ZIP' is a zip inside the zip", "Unpack it yourself")
    path = write_zip(tmp_path / "b.zip", {"good.nii": b"x"}, zipfile.ZIP_LZMA)
    unpacked_nothing(path, temporary, "'good.nii' is packed by method 14", "Unpack it yourself")
    path = write_zip(tmp_path / "c.zip", {"good.nii": b"x"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    unpacked_nothing(path, temporary, "'good.nii' is encrypted", "Unpack it yourself")


def test_damaged_zips(tmp_path: Path, temporary: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"good.nii": b"x" * 99, "a.nii": b"voxels of a scan"}, zipfile.ZIP_STORED)
    whole = path.read_bytes()
    for data in (b"", b"no zip at all", whole[:-30], whole[40:], whole.replace(b"voxels", b"voxelz")):
        path.write_bytes(data)
        unpacked_nothing(path, temporary, "the zip is damaged or of an unknown kind (", "Copy or download it again.")


def test_random_damage_never_ends_in_a_traceback(tmp_path: Path, temporary: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"P1/a.nii": bytes(range(200)), "b.nii": b"x" * 99})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(100):
        data = np.frombuffer(whole, np.uint8).copy()
        data[rng.integers(len(data), size=rng.integers(1, 4))] = rng.integers(256)
        path.write_bytes(data.tobytes())
        try:
            listed(path)
        except InputError as error:
            messages.append(str(error).splitlines())
    assert 50 < len(messages) < 100
    assert {len(lines) for lines in messages} == {2}
    assert os.listdir(temporary) == []


def test_two_entries_of_one_name(tmp_path: Path, temporary: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("a.nii", b"x")
        archive.writestr("a.nii", b"y")
    unpacked_nothing(tmp_path / "a.zip", temporary, "cannot be unpacked (File exists)")
    path = write_zip(tmp_path / "b.zip", {"a.nii": b"x", "a.nii/b.nii": b"x"})
    unpacked_nothing(path, temporary, "cannot be unpacked (")


def test_full_disk(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.nii": bytes(10)})
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=9))
        unpacked_nothing(path, temporary, "more than the disk holds", str(temporary), "TMPDIR")
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
        assert names(path) == ["a"]

    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: Full())
        unpacked_nothing(path, temporary, "the disk became full while", str(temporary), "Free some space")
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        refused([path], "cannot be unpacked (No such file or directory)")


def test_two_zips_are_open_at_once(tmp_path: Path, temporary: Path) -> None:
    paths = [write_zip(tmp_path / f"{n}.zip", {f"{n}.nii": b"x"}) for n in "ab"]
    with open_sources(paths) as scans:
        assert [s.path.read_bytes() for s in scans] == [b"x", b"x"]
        assert len({s.path.parent for s in scans}) == 2
    assert os.listdir(temporary) == []
