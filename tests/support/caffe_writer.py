"""Writes weight files in the format of C3D's Caffe, byte by byte: the tests' own idea of it, apart from the reader's.

python -m tests.support.caffe_writer FILE    a file of C3D's full size (320 MB), random weights
"""

import struct
import sys

import numpy as np

CONVOLUTION3D, INNER_PRODUCT, RELU = 30, 14, 18
CONVOLUTIONS = ("conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b")


def varint(number):
    """Base 128, the least significant digits first; negative numbers as 64-bit two's complement."""
    number %= 2**64
    digits = []
    while number > 127:
        digits.append(number % 128 + 128)
        number //= 128
    return bytes([*digits, number])


def number_field(field, number):
    return varint(field * 8) + varint(number)


def bytes_field(field, payload):
    return varint(field * 8 + 2) + varint(len(payload)) + payload


def blob(array, dims=None):
    """BlobProto of C3D's fork: five dimensions (1-D arrays become 1×1×1×1×n), then packed floats in field 6."""
    dims = dims or (1,) * (5 - array.ndim) + array.shape
    head = b"".join(number_field(i, n) for i, n in enumerate(dims, start=1))
    return head + bytes_field(6, np.asarray(array, "<f4").tobytes())


def unpacked_blob(array):
    """The same with one tag for each float."""
    dims = (1,) * (5 - array.ndim) + array.shape
    head = b"".join(number_field(i, n) for i, n in enumerate(dims, start=1))
    return head + b"".join(varint(6 * 8 + 5) + struct.pack("<f", v) for v in array.ravel())


def mainline_blob(array):
    """BlobProto of mainline Caffe: four dimensions, packed floats in field 5."""
    dims = (1,) * (4 - array.ndim) + array.shape
    head = b"".join(number_field(i, n) for i, n in enumerate(dims, start=1))
    return head + bytes_field(5, np.asarray(array, "<f4").tobytes())


def layer(name, blobs=(), kind=CONVOLUTION3D):
    """LayerParameter: bottom 2, top 3, name 4, type 5, blobs 6, and parameters that a reader should pass by."""
    text = bytes_field(2, b"before") + bytes_field(3, name.encode()) + bytes_field(4, name.encode())
    body = b"".join(bytes_field(6, b) for b in blobs)
    rates = struct.pack("<Bf", 7 * 8 + 5, 1.0) + struct.pack("<Bd", 15 * 8 + 1, 0.5)
    return text + number_field(5, kind) + body + rates + bytes_field(10, number_field(1, 64))


def net(layers, name="deepnet"):
    return bytes_field(1, name.encode()) + b"".join(bytes_field(2, part) for part in layers)


def shapes(widths, fc=(4096, 4096, 487), spatial=16):
    """Kernel shapes by layer in the order of the file: eight convolutions, three inner products."""
    wide = [widths[0], widths[1], widths[2], widths[2], *[widths[3]] * 4]
    found = {n: (out, into, 3, 3, 3) for n, out, into in zip(CONVOLUTIONS, wide, [3, *wide], strict=False)}
    into = widths[3] * spatial
    for name, out in zip(("fc6-1", "fc7-1", "fc8-1"), fc, strict=False):
        found[name] = (out, into)
        into = out
    return found


def random_weights(widths=(2, 3, 4, 5), seed=0, fc=(6, 6, 5), spatial=1):
    """(kernel, bias) by layer, float32; kernels with He's variance, so that no layer falls silent."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes(widths, fc, spatial).items():
        scale = np.float32((2 / np.prod(shape[1:])) ** 0.5)
        kernel = rng.standard_normal(shape, np.float32) * scale
        weights[name] = kernel, rng.standard_normal(shape[0], np.float32) * np.float32(0.1)
    return weights


def layers_of(weights):
    """Serialized layers one by one, each convolution followed by a ReLU without blobs."""
    for name, blobs in weights.items():
        kind = CONVOLUTION3D if name.startswith("conv") else INNER_PRODUCT
        yield layer(name, [blob(b) for b in blobs], kind)
        if kind == CONVOLUTION3D:
            yield layer(name.replace("conv", "relu"), (), RELU)


def write_net(path, weights, name="deepnet"):
    """Writes a weight file; returns its path."""
    with open(path, "wb") as file:
        file.write(bytes_field(1, name.encode()))
        for part in layers_of(weights):
            file.write(bytes_field(2, part))
    return path


if __name__ == "__main__":
    write_net(sys.argv[1], random_weights((64, 128, 256, 512), 0, (4096, 4096, 487), 16), "deepnetA-random")
