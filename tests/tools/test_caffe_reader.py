"""The reader of C3D's weight files, on files that `caffe_writer` encodes by hand."""

import hashlib
import os
import pathlib
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import caffe_writer
from tests.support.caffe_writer import blob, bytes_field, layer, net, number_field, random_weights
from tools.c3d import caffe_reader as caffe_blobs

BlobError, read_net, read_blob = caffe_blobs.BlobError, caffe_blobs.read_net, caffe_blobs.read_blob
mainline_blob, unpacked_blob, varint = caffe_writer.mainline_blob, caffe_writer.unpacked_blob, caffe_writer.varint
ENCODER = ("conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b")
KERNEL = np.arange(2 * 3 * 27, dtype=np.float32).reshape(2, 3, 3, 3, 3)
BIAS = np.array([7, -8], np.float32)
ONE_LAYER = net([layer("conv1a", [blob(KERNEL), blob(BIAS)])])
SMALL = net(layer(n, map(blob, b)) for n, b in random_weights((1, 1, 1, 1), fc=(2, 1, 1)).items())


def attempt(function, *args):
    """The result, or the BlobError; nothing else may come out."""
    try:
        return function(*args)
    except BlobError as error:
        return error


@pytest.fixture
def read(tmp_path):
    """Reads bytes as a weight file, all checks included."""

    def reader(raw, names=("conv1a",)):
        path = tmp_path / "weights"
        path.write_bytes(raw)
        found = read_net(path)
        caffe_blobs.check_convolutions(found, names)
        return found

    return reader


def test_values_names_and_order(read):
    weights = random_weights((2, 3, 4, 5))
    layers = [layer(n, map(blob, b), 30 if n.startswith("conv") else 14) for n, b in weights.items()]
    raw = net([layer("data", (), 39), *layers, layer("prob", (), 20)], "some net")
    found = read(raw, ENCODER)
    assert (found.name, found.size) == ("some net", len(raw))
    assert found.sha256 == hashlib.sha256(raw).hexdigest()
    assert list(found.layers) == [*ENCODER, "conv5a", "conv5b", "fc6-1", "fc7-1", "fc8-1"]  # those with weights
    assert [found.layers[n].type for n in ("conv1a", "fc8-1")] == [30, 14]
    for name, (kernel, bias) in weights.items():
        shape = (1,) * (5 - kernel.ndim) + kernel.shape
        np.testing.assert_array_equal(found.layers[name].blobs[0], kernel.reshape(shape), strict=True)
        np.testing.assert_array_equal(found.layers[name].blobs[1], bias.reshape(1, 1, 1, 1, -1), strict=True)


def five_dimensional(array):
    return array.reshape((1,) * (5 - array.ndim) + array.shape)


def test_written_file_reads_back(tmp_path):
    weights = random_weights((2, 3, 4, 5), fc=(6, 7, 8))
    kinds = {name: 30 if name.startswith("conv") else 14 for name in weights}
    layers = {name: (kinds[name], *map(five_dimensional, blobs)) for name, blobs in weights.items()}
    caffe_blobs.write_net(tmp_path / "weights", "surrogate, klein und schön", layers)
    found = read_net(tmp_path / "weights")
    assert found.name == "surrogate, klein und schön"
    assert list(found.layers) == list(weights)
    caffe_blobs.check_convolutions(found, ENCODER)
    for name, blobs in weights.items():
        assert found.layers[name].type == kinds[name]
        for a, b in zip(found.layers[name].blobs, blobs, strict=True):
            np.testing.assert_array_equal(a, five_dimensional(b), strict=True)


def test_written_bytes_are_caffes(tmp_path):
    """The same as this project's other writer, which knows no protobuf."""
    layers = {"conv1a": (30, KERNEL, five_dimensional(BIAS)), "fc": (14, KERNEL[:1, :1, :1], five_dimensional(BIAS))}
    caffe_blobs.write_net(tmp_path / "weights", "some net", layers)
    expected = bytes_field(1, b"some net")
    for name, (kind, *blobs) in layers.items():
        content = b"".join(bytes_field(6, blob(b)) for b in blobs)
        expected += bytes_field(2, bytes_field(4, name.encode()) + number_field(5, kind) + content)
    assert (tmp_path / "weights").read_bytes() == expected
    assert (caffe_blobs.CONVOLUTION3D, caffe_blobs.INNER_PRODUCT) == (30, 14)


@pytest.mark.parametrize(
    "kernel",
    [KERNEL.astype(np.float64), KERNEL.astype(">f4"), KERNEL.astype(np.int64), np.asfortranarray(KERNEL)],
    ids=["float64", "big-endian", "integers", "Fortran order"],
)
def test_written_floats_are_the_values_in_c_order(tmp_path, kernel):
    caffe_blobs.write_net(tmp_path / "weights", "net", {"conv1a": (30, kernel, five_dimensional(BIAS))})
    np.testing.assert_array_equal(read_net(tmp_path / "weights").layers["conv1a"].blobs[0], KERNEL, strict=True)


def test_types_beyond_the_enum_and_names_beyond_utf8(read):
    strange = bytes_field(4, b"\xff\xfe\n") + number_field(5, 12345) + bytes_field(6, blob(BIAS))
    found = read(ONE_LAYER + bytes_field(2, strange) + bytes_field(1, b"\xc3\x28\0"))
    assert list(found.layers) == ["conv1a", "\ufffd\ufffd\ufffd"]
    assert found.layers["\ufffd\ufffd\ufffd"].type == 12345
    assert found.name == "\ufffd(\ufffd"


def test_training_gradients_are_passed_by(read):
    both = blob(KERNEL) + bytes_field(7, KERNEL.tobytes())
    np.testing.assert_array_equal(read(one(both)).layers["conv1a"].blobs[0], KERNEL, strict=True)


def test_lone_blob_and_dimensions_that_are_not_stored(tmp_path):
    (tmp_path / "blob").write_bytes(blob(KERNEL))
    np.testing.assert_array_equal(read_blob(tmp_path / "blob"), KERNEL, strict=True)
    (tmp_path / "blob").write_bytes(number_field(2, 3) + bytes_field(6, struct.pack("<3f", 1, 2, 3)))
    np.testing.assert_array_equal(read_blob(tmp_path / "blob").ravel(), [1, 2, 3])
    assert read_blob(tmp_path / "blob").shape == (1, 3, 1, 1, 1)


def test_real_mean_clip_of_c3d():
    """What C3D's own Caffe wrote: the mean of its training clips, red, green and blue in some order, 0 to 255."""
    hips = os.environ.get("FEMUR3D_HIPS", "")
    path = pathlib.Path(hips).parent / "c3d" / "fb_train16_128_mean.binaryproto"
    if not hips or not path.is_file():
        pytest.skip(f"C3D's mean clip: set FEMUR3D_HIPS to hips beside c3d (received {hips!r}, no {path})")
    clip = read_blob(path)
    assert clip.shape == (1, 3, 16, 128, 128)
    assert clip.dtype == np.float32
    np.testing.assert_allclose([clip.min(), clip.max()], [93.44854, 137.68782], rtol=1e-6)
    np.testing.assert_allclose(clip.mean((0, 2, 3, 4), np.float64), [105.699, 115.757, 127.542], atol=1e-3)
    assert np.abs(np.diff(clip, axis=2)).max() < 2  # a mean over many clips hardly changes in time
    with pytest.raises(BlobError, match="no layer with weights"):
        read_net(path)


def one(kernel_blob, bias_blob=None):
    return net([layer("conv1a", [kernel_blob, bias_blob or blob(BIAS)])])


def filled(value, kernel=KERNEL):
    changed = kernel.copy()
    changed.flat[5] = value
    return changed


CONV2 = layer("conv2a", [blob(np.zeros((4, 5, 3, 3, 3))), blob(np.zeros(4))])
BAD = {
    "empty": (b"", "0 bytes"),
    "text": (b"<!DOCTYPE html><html>404</html>", "no protobuf.*<!DOCTYPE"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "protobuf"),
    "zeros": (bytes(10_000), "no protobuf"),
    "endless number": (b"\xff" * 50, "number does not end"),
    "cut in a kernel": (ONE_LAYER[:200], "cut short"),
    "cut in a length": (ONE_LAYER[:10], "cut short"),
    "layer longer than the file": (b"\x12\xff\xff\xff\xff\x07abc", "cut short"),
    "mainline, old": (one(mainline_blob(KERNEL[:, :, 0])), "mainline"),
    "mainline, new": (bytes_field(1, b"VGG") + bytes_field(100, layer("conv1_1")), "mainline"),
    "mainline, BlobShape": (one(bytes_field(5, bytes(8)) + bytes_field(7, bytes_field(1, b"\2"))), "mainline"),
    "not packed": (one(unpacked_blob(KERNEL)), "one by one"),
    "nothing in it": (net([]), "no layer with weights"),
    "no weights in it": (net([layer("data"), layer("conv1a")]), "no layer with weights"),
    "other network": (net([layer("fc6", [blob(BIAS)])], "AlexNet"), "AlexNet.*no conv1a.*fc6"),
    "two of a name": (net([layer("conv1a", [blob(KERNEL), blob(BIAS)])] * 2), "two layers.*conv1a"),
    "too few floats": (
        one(blob(KERNEL, (2, 3, 3, 3, 4))),
        "648 bytes of floats for dimensions 2×3×3×3×4, which need 864",
    ),
    "no floats": (one(number_field(1, 1)), "0 bytes of floats"),
    "half a float": (one(number_field(1, 1) + bytes_field(6, b"12345")), "5 bytes of floats.* need 4"),
    "negative": (one(blob(KERNEL, (-2, -3, 3, 3, 3))), "dimensions -2×-3×3×3×3"),
    "zero": (one(blob(KERNEL[:0])), "dimensions 0×3×3×3×3"),
    "huge": (one(blob(KERNEL, (2**31 - 1,) * 5)), "dimensions 2147483647×"),
    "NaN": (one(blob(filled(np.nan))), "'conv1a' blob 0: 1 of 162 floats are NaN"),
    "infinite": (one(blob(KERNEL), blob(np.array([np.inf, -np.inf]))), "'conv1a' blob 1: 2 of 2"),
    "no bias": (net([layer("conv1a", [blob(KERNEL)])]), "2×3×3×3×3.*\n.*bias"),
    "three blobs": (net([layer("conv1a", [blob(KERNEL), blob(BIAS), blob(BIAS)])]), "and 1×1×1×1×2 and"),
    "wrong bias": (one(blob(KERNEL), blob(np.zeros(3))), "1×1×1×1×3"),
    "grey": (one(blob(KERNEL[:, :1])), "2×1×3×3×3.*\n.*OUT×3×3×3×3"),
    "flat kernel": (one(blob(KERNEL[:, :, :1])), "2×3×1×3×3"),
    "inner product": (one(blob(KERNEL[:, :, 0, 0, 0])), "1×1×1×2×3"),
    "wrong chain": (ONE_LAYER + bytes_field(2, CONV2), "4×5×3×3×3.*\n.*OUT×2×3×3×3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_say_what_was_found_and_expected(read, case):
    raw, message = BAD[case]
    with pytest.raises(BlobError, match=rf"(?s)weights: .*{message}") as caught:
        read(raw, ("conv1a", "conv2a") if case == "wrong chain" else ("conv1a",))
    assert str(caught.value).count("\n") == 1
    assert "Expected" in str(caught.value).split("\n")[1]


BAD_BLOBS = [b"", b"junk", mainline_blob(KERNEL[0]), unpacked_blob(BIAS), blob(filled(np.nan)), SMALL]


@pytest.mark.parametrize("raw", BAD_BLOBS)
def test_bad_lone_blobs(tmp_path, raw):
    (tmp_path / "blob").write_bytes(raw)
    with pytest.raises(BlobError, match=r"blob: .*\n.*Expected"):
        read_blob(tmp_path / "blob")


def test_what_is_no_regular_file(tmp_path):
    for path in (tmp_path / "none", tmp_path, "/dev/zero"):
        with pytest.raises(BlobError, match="no such file"):
            read_net(path)


def test_junk_of_two_gigabytes_is_refused_by_its_size(tmp_path):
    with open(tmp_path / "junk", "wb") as file:
        file.truncate(2 * 10**9)  # sparse
    start = time.perf_counter()
    with pytest.raises(BlobError, match="2,000,000,000 bytes"):
        read_net(tmp_path / "junk")
    assert time.perf_counter() - start < 1
    assert caffe_blobs.MAX_BYTES > 319_966_293  # C3D's own file


def test_every_cut_is_noticed_or_lies_between_two_layers(tmp_path):
    parts = [layer(n, map(blob, b)) for n, b in random_weights((1, 1, 1, 1), fc=(2, 1, 1)).items()]
    borders = [len(net(parts[:count])) for count in range(1, len(parts))]
    for length in sorted({*range(0, len(SMALL), 5), *borders, *(b + 1 for b in borders), *(b - 1 for b in borders)}):
        (tmp_path / "cut").write_bytes(SMALL[:length])
        found = attempt(read_net, tmp_path / "cut")
        if length in borders:
            assert len(found.layers) == borders.index(length) + 1
        else:
            assert isinstance(found, BlobError)


def peak_mib(path):
    """What reading a file adds to the largest size of a fresh process, in MiB, and its last line of output."""
    code = f"""
import sys
from tools.c3d import caffe_reader as caffe_blobs
status = lambda: open("/proc/self/status").read()
peak = lambda: int(status().split("VmHWM:")[1].split()[0]) / 1024
before, found = peak(), None
try:
    found = caffe_blobs.read_net({str(path)!r})
except caffe_blobs.BlobError as error:
    print(repr(str(error)))
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, timeout=60)
    *said, peak = done.stdout.splitlines()
    return float(peak), "".join(said)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("record", [b"\x12\x00", b"\x0a\x00", b"\x18\x01", b"\x12\x02\x32\x00"])
def test_tiny_records_do_not_fill_the_memory(tmp_path, record):
    (tmp_path / "junk").write_bytes(record * (2**26 // len(record)))
    peak, said = peak_mib(tmp_path / "junk")
    assert "more than 20,000 records" in said
    assert peak < 3 * 64


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_takes_less_than_three_times_the_file(tmp_path):
    kernels = {f"fc{i}": (np.ones((2**20, 5), np.float32), np.ones(2**20, np.float32)) for i in range(4)}
    size = caffe_writer.write_net(tmp_path / "big", kernels).stat().st_size / 2**20
    peak, said = peak_mib(tmp_path / "big")
    assert not said
    assert 96 < size < 97
    assert size < peak < 2.5 * size


edits = st.lists(
    st.tuples(st.integers(0, len(SMALL)), st.integers(0, 3), st.binary(max_size=6)), min_size=1, max_size=6
)


def mutated(changes):
    """SMALL with some bytes overwritten, put in, or taken out."""
    raw = SMALL
    for at, removed, put in changes:
        raw = raw[:at] + put + raw[at + (len(put) if removed == 3 else removed) :]
    return raw


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "file"


def read_anything(path, raw):
    """Reads bytes in both ways; whatever they are, there is a result that fits or a BlobError of two lines."""
    path.write_bytes(raw)
    found, lone = attempt(read_net, path), attempt(read_blob, path)
    results = [found, lone]
    if isinstance(found, caffe_blobs.Net):
        results.append(attempt(caffe_blobs.check_convolutions, found, ENCODER))
        for blobs in (part.blobs for part in found.layers.values()):
            assert all(b.ndim == 5 and b.dtype == np.float32 and np.isfinite(b).all() for b in blobs)
            assert sum(b.nbytes for b in blobs) <= len(raw)
    assert isinstance(lone, BlobError) or lone.nbytes <= len(raw)
    for error in (r for r in results if isinstance(r, BlobError)):
        assert str(error).count("\n") == 1
        assert len(str(error)) < 1500


fuzz = settings(max_examples=200, deadline=5000)


@fuzz
@given(raw=st.binary(max_size=400))
def test_random_bytes(scratch, raw):
    read_anything(scratch, raw)


@fuzz
@given(changes=edits)
def test_mutated_file(scratch, changes):
    read_anything(scratch, mutated(changes))


RECORD = st.tuples(st.integers(0, 120), st.integers(0, 7), st.integers(-(2**31), 2**64), st.binary(max_size=30))


@fuzz
@given(records=st.lists(RECORD, max_size=8), level=st.integers(0, 2))
def test_random_records_at_each_level(scratch, records, level):
    raw = b""
    for number, wire, value, content in records:
        raw += varint(number * 8 + wire) + (varint(len(content)) + content if wire == 2 else varint(value))
    raw = {0: raw, 1: bytes_field(2, raw), 2: bytes_field(2, bytes_field(4, b"conv1a") + bytes_field(6, raw))}[level]
    read_anything(scratch, raw)
