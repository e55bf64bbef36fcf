"""Reads and writes weight files of C3D's own Caffe: a binary NetParameter whose blobs have five dimensions.

    net = read_net("conv3d_deepnetA_sport1m_iter_1900000")
    kernel, bias = net.layers["conv1a"].blobs  # (out, in, length, height, width), float32

The nine fields that matter are described to the protobuf library here, in about 30 lines. A .proto file and the module
that protoc makes of it would be longer, and worse: generated code asks for a protobuf at least as new as its protoc,
and registers its messages for the whole process, where a real Caffe has others. Everything wrong with a file ends in a
BlobError, after at most seconds and with at most about twice the file's size in memory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory  # type: ignore[import-untyped]

MAX_BYTES = 2**30  # more than three times C3D's published file; protobuf itself ends at 2 GiB
MAX_RECORDS = 20_000  # C3D's file has some hundred; each one costs protobuf more memory than it takes in the file
CONVOLUTION3D, INNER_PRODUCT = 30, 14  # LayerParameter.type
COLOURS = 3
EXPECTED = (
    "Expected C3D's weight file: a binary NetParameter of C3D's own Caffe, with layers conv1a, conv2a, … and blobs "
    "of five dimensions (the published one has 319,966,293 bytes)."
)
EXPECTED_BLOB = (
    "Expected one binary BlobProto of C3D's own Caffe: num, channels, length, height, width and packed floats."
)

_field = descriptor_pb2.FieldDescriptorProto
# Text is read as bytes, since nothing promises UTF-8. `data` is declared as bytes too: on the wire, packed floats are a
# length and then little-endian values, exactly as bytes are, but as `repeated float` each value would become a Python
# object on its way to NumPy. `diff` (7, training gradients) is left undeclared: protobuf passes it by. An enum of
# unknown values is an int32 on the wire.
_SCHEMA: dict[str, dict[str, tuple[int, int | str]]] = {
    "NetParameter": {"name": (1, _field.TYPE_BYTES), "layers": (2, "LayerParameter")},
    "LayerParameter": {"name": (4, _field.TYPE_BYTES), "type": (5, _field.TYPE_INT32), "blobs": (6, "BlobProto")},
    "BlobProto": {
        **{n: (i, _field.TYPE_INT32) for i, n in enumerate(("num", "channels", "length", "height", "width"), start=1)},
        "data": (6, _field.TYPE_BYTES),
    },
}
_CHILDREN = {(m, n): kind for m, fields in _SCHEMA.items() for n, kind in fields.values() if isinstance(kind, str)}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAINLINE = "it is of mainline Caffe, whose blobs have four dimensions or a BlobShape"
# Records that tell another format, by (message, field, wire type).
_FOREIGN = {
    ("NetParameter", 100, _BYTES): _MAINLINE,  # layer
    ("BlobProto", 5, _BYTES): _MAINLINE,  # data, where C3D has width
    ("BlobProto", 5, _FIXED32): _MAINLINE,
    ("BlobProto", 6, _FIXED32): "its blobs hold their floats one by one, not packed",
}


class BlobError(ValueError):
    """A file that is not what it should be. The message (two lines) says what was found and what was expected."""


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A layer that has weights.

    Attributes:
        name: e.g. 'conv1a'; as of the network, at most 200 printable characters.
        type: Caffe's number of the kind of layer, as CONVOLUTION3D or INNER_PRODUCT.
        blobs: kernel (out, in, length, height, width) and bias, which has `out` values in any of its five dimensions;
            finite little-endian float32, read-only.
    """

    name: str
    type: int
    blobs: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Net:
    """The contents of a weight file.

    Attributes:
        path: the file.
        name: of the network, as it stands in the file.
        layers: those with weights by name, in file order.
        size: of the file in bytes.
        sha256: of the bytes that were read, hexadecimal.
    """

    path: Path
    name: str
    layers: dict[str, Layer]
    size: int
    sha256: str


def read_net(path: str | os.PathLike[str]) -> Net:
    """Reads all weights of a network. Raises BlobError."""
    raw = _read(path, EXPECTED)
    parsed = _parse(raw, "NetParameter", path, EXPECTED)
    size, sha256 = len(raw), hashlib.sha256(raw).hexdigest()
    del raw  # protobuf has a copy; a second one follows
    layers: dict[str, Layer] = {}
    for record in parsed.layers:
        layer = _layer(record, path)
        if layer.blobs and layer.name in layers:
            raise BlobError(f"{path}: two layers with weights are called {short(layer.name)}.\n{EXPECTED}")
        if layer.blobs:
            layers[layer.name] = layer
    net = Net(Path(path), _text(parsed.name), layers, size, sha256)
    if not layers:
        raise BlobError(f"{path}: network {short(net.name)} of {size:,} bytes has no layer with weights.\n{EXPECTED}")
    return net


def read_blob(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a file of one blob, such as C3D's mean clip: float32 (num, channels, length, height, width).

    Raises:
        BlobError: as the module says.
    """
    parsed = _parse(_read(path, EXPECTED_BLOB), "BlobProto", path, EXPECTED_BLOB)
    return _array(parsed, f"{path}", EXPECTED_BLOB)


def write_net(
    path: str | os.PathLike[str], name: str, layers: Mapping[str, tuple[int, np.ndarray, np.ndarray]]
) -> None:
    """Writes a file that `read_net` and C3D's own Caffe understand.

    Args:
        path: the file.
        name: of the network.
        layers: by name: type, kernel and bias, both with five dimensions; stored as float32.
    """
    net = _MESSAGES["NetParameter"](name=name.encode())
    for layer_name, (kind, *blobs) in layers.items():
        record = net.layers.add(name=layer_name.encode(), type=kind)
        for blob in blobs:
            num, channels, length, height, width = blob.shape
            record.blobs.add(
                num=num, channels=channels, length=length, height=height, width=width, data=blob.astype("<f4").tobytes()
            )
    Path(path).write_bytes(net.SerializeToString())


def check_convolutions(net: Net, names: Sequence[str]) -> None:
    """Raises BlobError unless the layers are 3×3×3 convolutions that follow one another, the first one of colours."""
    missing = [name for name in names if name not in net.layers]
    if missing:
        raise BlobError(
            f"{net.path}: network {short(net.name)} has no {', '.join(missing)}, but {short(list(net.layers))}.\n"
            f"Expected C3D's layers: {', '.join(names)}, each with kernel and bias."
        )
    channels = COLOURS
    for name in names:
        shapes = [blob.shape for blob in net.layers[name].blobs]
        out = shapes[0][0]
        if len(shapes) != 2 or shapes[0] != (out, channels, 3, 3, 3) or math.prod(shapes[1]) != out:
            found = " and ".join(dimensions(s) for s in shapes[:3])
            raise BlobError(
                f"{net.path}: blobs of {name} are {found}.\n"
                f"Expected a kernel (out, in, length, height, width) of OUT×{channels}×3×3×3 and a bias of OUT values."
            )
        channels = out


def dimensions(shape: Sequence[int]) -> str:
    """(2, 3, 4) as '2×3×4'."""
    return "×".join(map(str, shape))


def short(value: object) -> str:
    """The value's repr in at most about a hundred characters, however long the file's own text is."""
    writer = reprlib.Repr()
    writer.maxstring = writer.maxother = 60
    return writer.repr(value)


def _layer(record: Any, path: str | os.PathLike[str]) -> Layer:
    name = _text(record.name)
    blobs = (_array(b, f"{path}: {short(name)} blob {i}", EXPECTED) for i, b in enumerate(record.blobs))
    return Layer(name, record.type, tuple(blobs))


def _array(blob: Any, where: str, expected: str) -> np.ndarray:
    """The values in five dimensions; a dimension that is not stored counts as 1."""
    names = ("num", "channels", "length", "height", "width")
    shape = tuple(getattr(blob, name) if blob.HasField(name) else 1 for name in names)
    data = blob.data
    if min(shape) < 1 or len(data) != 4 * math.prod(shape):
        found = f"{len(data):,} bytes of floats for dimensions {dimensions(shape)}"
        raise BlobError(f"{where}: {found}, which need {4 * math.prod(shape):,}.\n{expected}")
    values = np.frombuffer(data, "<f4").reshape(shape)
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):  # both are NaN where one value is
        raise BlobError(
            f"{where}: {np.count_nonzero(~np.isfinite(values)):,} of {values.size:,} floats are NaN or infinite.\n"
            "Expected finite weights: the file is damaged, or the training that wrote it diverged."
        )
    return values


def _text(raw: bytes) -> str:
    """A name from the file, fit to be printed and stored: at most 200 printable characters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in raw[:200].decode("utf-8", "replace"))


def _read(path: str | os.PathLike[str], expected: str) -> bytes:
    """The bytes of a file, once its size is seen to be possible."""
    if not os.path.isfile(path):
        raise BlobError(f"{path}: no such file.\n{expected}")
    try:
        size = os.path.getsize(path)
        if not 0 < size <= MAX_BYTES:
            raise BlobError(f"{path}: {size:,} bytes, where 1 to {MAX_BYTES:,} are possible.\n{expected}")
        with open(path, "rb") as file:
            return file.read(size)
    except OSError as error:
        raise BlobError(f"{path}: cannot be read ({error.strerror}).\n{expected}") from error


def _parse(raw: bytes, kind: str, path: str | os.PathLike[str], expected: str) -> Any:
    """The protobuf message; what cannot be one, or would take far more memory than the file, is not handed over."""
    try:
        _inspect(memoryview(raw), kind)
        return _MESSAGES[kind].FromString(raw)
    except (_MalformedError, message.DecodeError) as error:
        raise BlobError(f"{path}: {error}; {len(raw):,} bytes that start with {raw[:16]!r}.\n{expected}") from error


class _MalformedError(ValueError):
    """Why bytes are not a message of C3D's Caffe."""


def _inspect(view: memoryview, kind: str) -> int:
    """Counts the records of a message and of the messages in it. Raises _MalformedError.

    Protobuf alone would not do: a layer of no content takes two bytes in a file but a hundred in memory.
    """
    count = 0
    for number, wire, payload in _records(view):
        if (kind, number, wire) in _FOREIGN:
            raise _MalformedError(_FOREIGN[kind, number, wire])
        child = _CHILDREN.get((kind, number))
        count += 1 + (_inspect(payload, child) if child and wire == _BYTES else 0)
        if count > MAX_RECORDS:
            raise _MalformedError(f"more than {MAX_RECORDS:,} records")
    return count


def _records(view: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Field number, wire type and payload of each record of one message; nothing is copied. Raises _MalformedError."""
    position = 0
    while position < len(view):
        tag, position = _varint(view, position)
        number, wire = tag >> 3, tag & 7
        if wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32) or not 0 < number < 2**29:
            raise _MalformedError(f"no protobuf (field {number} of wire type {wire})")
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire, 0)
        if wire in (_VARINT, _BYTES):
            value, position = _varint(view, position)
            size = value if wire == _BYTES else 0
        if size > len(view) - position:
            raise _MalformedError("cut short or no protobuf (a record goes on beyond the end)")
        yield number, wire, view[position : position + size]
        position += size


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """A number of variable length and the position after it."""
    value = 0
    for i, byte in enumerate(view[position : position + 10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, position + i + 1
    raise _MalformedError("cut short or no protobuf (a number does not end)")


def _message_classes() -> dict[str, Any]:
    """Protobuf's classes of `_SCHEMA`, in a pool of their own, so that a real Caffe in the process is no conflict."""
    file = descriptor_pb2.FileDescriptorProto(name="c3d_blobs.proto", package="c3d", syntax="proto2")
    for kind, fields in _SCHEMA.items():
        described = file.message_type.add(name=kind)
        for name, (number, content) in fields.items():
            field = described.field.add(name=name, number=number, label=_field.LABEL_OPTIONAL)
            if isinstance(content, str):
                field.label, field.type, field.type_name = _field.LABEL_REPEATED, _field.TYPE_MESSAGE, f".c3d.{content}"
            else:
                field.type = content
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {kind: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"c3d.{kind}")) for kind in _SCHEMA}


_MESSAGES = _message_classes()
