"""NRRD and MetaImage as programs write them: every encoding, several data files, headers that say little."""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from femur3d.errors import InputError
from femur3d.io.formats.text_headers import data_files
from femur3d.io.formats.voxels import sha256_of
from femur3d.io.images import read_scan, read_volume, sitk_from_volume
from tests.support.scan_files import make_volume

VOXELS = np.random.default_rng(0).integers(-500, 500, (5, 6, 7)).astype("<i2")
PLACE = "space: left-posterior-superior\nspace directions: (5,0,0) (0,4,0) (0,0,3)\nspace origin: (1,2,3)"
META_PLACE = "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nElementSpacing = 5 4 3"
PACK: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "hex": lambda data: data.hex().encode(),
    "ascii": lambda data: " ".join(map(str, np.frombuffer(data, "<i2"))).encode(),
}


def nrrd(encoding: str = "raw", *more: str, place: str = PLACE, sizes: str = "7 6 5", kind: str = "short") -> bytes:
    """A header, without the empty line at its end."""
    dimension = len(sizes.split())
    first = f"NRRD0004\n# a comment: of no meaning\ntype: {kind}\ndimension: {dimension}\n"
    return "\n".join([f"{first}sizes: {sizes}", "endian: little", f"encoding: {encoding}", place, *more, ""]).encode()


def meta(*more: str, place: str = META_PLACE, sizes: str = "7 6 5", data: str = "LOCAL") -> bytes:
    lines = [f"NDims = {len(sizes.split())}", f"DimSize = {sizes}", "ElementType = MET_SHORT", place, *more]
    return "\n".join([*filter(None, lines), f"ElementDataFile = {data}", ""]).encode()


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 2
    assert message.startswith(str(path.parent))
    for word in words:
        assert word in message


def assert_read(path: Path) -> None:
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.volume.array, VOXELS)
    assert (scan.volume.spacing_mm, scan.volume.origin_mm, scan.notes) == ((5, 4, 3), (1, 2, 3), ())
    assert scan.sha256 == sha256_of((path, *data_files(path)))


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("skip", ["", "lines", "packed lines", "bytes"])
def test_every_encoding_in_one_file_and_in_two(tmp_path: Path, encoding: str, skip: str) -> None:
    """Lines are skipped before unpacking, unless they are packed too; bytes after it."""
    data = VOXELS.tobytes()
    if skip == "bytes" and encoding in ("hex", "ascii"):
        pytest.skip("no bytes are skipped in text")
    if skip == "packed lines" and encoding not in ("gzip", "bz2"):
        pytest.skip("not packed")
    before = {"bytes": b"\x01\n\x02", "packed lines": b"two\nlines\n"}.get(skip, b"")
    packed = PACK[encoding](before + data)
    packed = b"two\nlines\n" + packed if skip == "lines" else packed
    more = {"": [], "bytes": ["byteskip: 3"]}.get(skip, ["line skip: 2"])
    (tmp_path / "one.nrrd").write_bytes(nrrd(encoding, *more) + b"\n" + packed)
    assert_read(tmp_path / "one.nrrd")
    (tmp_path / "data.x").write_bytes(packed)
    (tmp_path / "two.nhdr").write_bytes(nrrd(encoding, *more, "data file: data.x"))
    assert_read(tmp_path / "two.nhdr")


def test_last_bytes_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "data.raw").write_bytes(b"some header" + VOXELS.tobytes())
    (tmp_path / "a.nhdr").write_bytes(nrrd("raw", "byte skip: -1", "data file: data.raw"))
    (tmp_path / "a.mhd").write_bytes(meta("HeaderSize = -1", data="data.raw"))
    (tmp_path / "b.mhd").write_bytes(meta("HeaderSize = 11", data="data.raw"))
    for name in ("a.nhdr", "a.mhd", "b.mhd"):
        assert_read(tmp_path / name)


@pytest.mark.parametrize(
    ("named", "names"),
    [
        ("s%03d.raw 0 4 1", [f"s{z:03d}.raw" for z in range(5)]),
        ("s%d.raw 12 4 -2", [f"s{z}.raw" for z in (12, 10, 8, 6, 4)]),
        ("LIST", ["c.raw", "a b.raw", "b.raw", "e.raw", "d.raw"]),
    ],
)
def test_one_data_file_a_slice(tmp_path: Path, named: str, names: list[str]) -> None:
    """Each of them counts for the digest."""
    for name, voxels in zip(names, VOXELS, strict=True):
        (tmp_path / name).write_bytes(voxels.tobytes())
    listed = "\n".join(names) if named == "LIST" else ""
    (tmp_path / "a.nhdr").write_bytes(nrrd("raw", f"data file: {named}", listed))
    (tmp_path / "a.mhd").write_bytes(meta(data=named) + listed.encode())
    for header in (tmp_path / "a.nhdr", tmp_path / "a.mhd"):
        assert_read(header)
        assert read_scan(header).sha256 == sha256_of((header, *(tmp_path / name for name in names)))
        digests = [sha256_of((header, *data_files(header)))]
        for name in names:
            data = bytearray((tmp_path / name).read_bytes())
            data[3] ^= 1
            (tmp_path / name).write_bytes(data)
            digests.append(sha256_of((header, *data_files(header))))
            data[3] ^= 1
            (tmp_path / name).write_bytes(data)
        assert len(set(digests)) == 6
    (tmp_path / names[3]).unlink()
    refused(tmp_path / "a.nhdr", f"{names[3]} is missing")
    refused(tmp_path / "a.mhd", f"{names[3]} is missing")


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("%d" * 2000, "is missing"),
        ("%d" * 200_000, "its header names a data file by 400,000 characters"),
        ("%9999999d%03d.raw 0 8 1", "%9999999d000.raw is missing"),
        ("\0%d.raw 0 4 1", "is missing"),
    ],
    ids=["long", "endless", "wide", "zero"],
)
def test_names_that_no_file_can_have(tmp_path: Path, named: str, words: str) -> None:
    (tmp_path / "a.nhdr").write_bytes(nrrd("raw", f"data file: {named}"))
    refused(tmp_path / "a.nhdr", words)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_more_lines_to_skip_than_there_are(tmp_path: Path, encoding: str) -> None:
    packed = PACK[encoding](VOXELS.tobytes())
    (tmp_path / "a.nrrd").write_bytes(nrrd(encoding, "line skip: 999999999999") + b"\n" + packed)
    refused(tmp_path / "a.nrrd", "0 bytes of voxels where its header announces 420")


def test_voxels_in_text_have_as_many_digits_as_numbers_have(tmp_path: Path) -> None:
    """All get the room of the longest."""
    first, rest = PACK["ascii"](VOXELS.tobytes()).split(b" ", 1)
    for digits, is_read in ((64, True), (65, False)):
        (tmp_path / "a.nrrd").write_bytes(nrrd("ascii") + b"\n" + b"%0*d " % (digits, int(first)) + rest)
        if is_read:
            assert_read(tmp_path / "a.nrrd")
        else:
            refused(tmp_path / "a.nrrd", "not written as numbers")


@pytest.mark.parametrize("encoding", ["gzip", "bz2", "zlib"])
def test_damaged_data_in_a_second_file(tmp_path: Path, encoding: str) -> None:
    """A byte that changed, one that is missing, bytes that stand before or behind: none may give other voxels."""
    pack = zlib.compress if encoding == "zlib" else PACK[encoding]
    header = meta("CompressedData = True", data="data") if encoding == "zlib" else nrrd(encoding, "data file: data")
    path = tmp_path / ("a.mhd" if encoding == "zlib" else "a.nhdr")
    path.write_bytes(header)
    (tmp_path / "data").write_bytes(pack(VOXELS.tobytes()))
    assert_read(path)
    packed = bytearray(pack(VOXELS.tobytes()))
    packed[len(packed) // 2] ^= 255
    shifted = pack(bytes(352) + VOXELS.tobytes())
    for data in (packed, pack(VOXELS.tobytes())[:-3], shifted, pack(VOXELS.tobytes()[:-2]), b""):
        (tmp_path / "data").write_bytes(data)
        refused(path, "damaged")


@pytest.mark.parametrize("extra", [b"\0\0", bytes(352)])
def test_more_bytes_than_announced(tmp_path: Path, extra: bytes) -> None:
    """Where they stand is not known, so neither is where the voxels begin."""
    (tmp_path / "data").write_bytes(extra + VOXELS.tobytes())
    (tmp_path / "a.nhdr").write_bytes(nrrd("raw", "data file: data"))
    (tmp_path / "a.nrrd").write_bytes(nrrd() + b"\n" + VOXELS.tobytes() + extra)
    (tmp_path / "a.mhd").write_bytes(meta(data="data"))
    (tmp_path / "a.mha").write_bytes(meta() + VOXELS.tobytes() + extra)
    for name in ("a.nhdr", "a.nrrd", "a.mhd", "a.mha"):
        refused(tmp_path / name, f"{420 + len(extra)} bytes of voxels where its header announces 420")


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_one_volume_of_four_axes(tmp_path: Path, name: str) -> None:
    directions = PLACE.replace("(0,0,3)", "(0,0,3) none\nkinds: space space space list")
    place = "\n".join([META_PLACE.replace("1 0 0 0 1 0 0 0 1", " ".join(map(str, np.eye(4, dtype=int).ravel())))])
    place = place.replace("1 2 3", "1 2 3 0").replace("5 4 3", "5 4 3 1")
    head = nrrd(place=directions, sizes="7 6 5 1") + b"\n" if name == "a.nrrd" else meta(place=place, sizes="7 6 5 1")
    (tmp_path / name).write_bytes(head + VOXELS.tobytes())
    assert_read(tmp_path / name)
    twice = head.replace(b"7 6 5 1", b"7 6 5 2") + VOXELS.tobytes() * 2
    (tmp_path / name).write_bytes(twice)
    with pytest.raises(InputError, match=r"4-D image of 7×6×5×2|2 values a voxel"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize(
    ("head", "missing"),
    [
        (nrrd(place="spacings: 5 4 3"), "no 'space directions'"),
        (nrrd(place=PLACE.replace("space: left-posterior-superior", "space dimension: 3")), "no anatomical 'space'"),
        (nrrd(place=PLACE.replace("left-posterior-superior", "scanner-xyz")), "no anatomical 'space'"),
        (meta(place="ElementSpacing = 5 4 3"), "no TransformMatrix"),
        (meta(place="ElementSize = 5 4 3"), "no TransformMatrix"),
    ],
)
def test_orientation_that_is_not_said_gets_the_note_that_nifti_gets(tmp_path: Path, head: bytes, missing: str) -> None:
    path = tmp_path / ("a.nrrd" if head.startswith(b"NRRD") else "a.mha")
    path.write_bytes(head + b"\n" * head.startswith(b"NRRD") + VOXELS.tobytes())
    scan = read_scan(path)
    assert scan.volume.spacing_mm == (5, 4, 3)
    (note,) = scan.notes
    assert note.startswith(f"its header has {missing}, so it does not say how the scan lies in the body")
    assert note.endswith("left and right may be exchanged")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (nrrd(place=""), "how large the voxels are (neither 'space directions' nor 'spacings')"),
        (nrrd(place="spacings: nan nan nan"), "how large the voxels are"),
        (nrrd(place='spacings: 5 4 3\nunits: "cm" "cm" "cm"'), "lengths are in cm"),
        (nrrd(place=PLACE + '\nspace units: "um" "um" "um"'), "lengths are in um"),
        (meta(place=""), "how large the voxels are (no ElementSpacing)"),
        (meta(place="TransformMatrix = 1 0 0 0 1 0 0 0 1"), "how large the voxels are"),
        (nrrd("zrl"), "encoding 'zrl'"),
        (nrrd(kind="block"), "voxels of type 'block'"),
    ],
)
def test_what_cannot_be_guessed_is_refused(tmp_path: Path, head: bytes, words: str) -> None:
    path = tmp_path / ("a.nrrd" if head.startswith(b"NRRD") else "a.mha")
    path.write_bytes(head + b"\n" * head.startswith(b"NRRD") + VOXELS.tobytes())
    refused(path, words)


@pytest.mark.parametrize("odd", ["²", "9" * 5000])
def test_numbers_that_are_none(tmp_path: Path, odd: str) -> None:
    """`isdigit` lets both pass, and `int` refuses them."""
    heads = [nrrd(sizes=f"7 6 {odd}"), nrrd("raw", f"byte skip: {odd}"), nrrd("raw", f"line skip: {odd}")]
    heads += [meta().replace(b"NDims = 3", f"NDims = {odd}".encode())]
    heads += [meta("CompressedData = True", f"CompressedDataSize = {odd}")]
    for head in heads:
        path = tmp_path / ("a.nrrd" if head.startswith(b"NRRD") else "a.mha")
        content = head + b"\n" * head.startswith(b"NRRD") + VOXELS.tobytes()
        path.write_bytes(content.replace("²".encode(), b"\xb2"))  # headers are read as Latin-1
        refused(path, "damaged")


@pytest.mark.parametrize("extension", [".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "float32", "float64"])
def test_simpleitk_reads_the_same(tmp_path: Path, extension: str, packed: bool, dtype: str) -> None:
    path = tmp_path / f"a{extension}"
    sitk.WriteImage(sitk_from_volume(make_volume(dtype=dtype)), str(path), useCompression=packed)
    expected, found = sitk.ReadImage(str(path)), read_volume(path)
    theirs = sitk.GetArrayFromImage(expected)
    assert found.array.dtype == theirs.dtype
    np.testing.assert_array_equal(found.array, theirs)
    assert (found.spacing_mm, found.origin_mm) == (expected.GetSpacing(), expected.GetOrigin())
    np.testing.assert_allclose(found.direction, expected.GetDirection(), rtol=0, atol=1e-15)


def test_big_endian(tmp_path: Path) -> None:
    data = VOXELS.astype(">i2").tobytes()
    (tmp_path / "a.nrrd").write_bytes(nrrd().replace(b"little", b"big") + b"\n" + data)
    (tmp_path / "a.mha").write_bytes(meta("BinaryDataByteOrderMSB = True") + data)
    (tmp_path / "b.mha").write_bytes(meta("BinaryData = False") + PACK["ascii"](VOXELS.tobytes()))
    for name in ("a.nrrd", "a.mha", "b.mha"):
        assert_read(tmp_path / name)
