"""The pixels of DICOM slices as intensities, and which of them are padding.

SimpleITK (GDCM) reads them, and unpacks every compression that hospitals use; pydicom hands out single frames.
"""

from __future__ import annotations

import struct
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import iter_pixels
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from femur3d.io.dicom.headers import numbers
from femur3d.io.dicom.slices import Slice
from femur3d.io.integrity import damaged, itk_error, quiet_itk, reading

_WORD_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.3"  # multi-frame grey-value secondary capture: pixels and nothing else
_PIXEL_MODULE = (
    *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
# What pydicom raises over damaged pixels.
_DAMAGED = (*(AttributeError, ValueError, LookupError, TypeError), *(RuntimeError, EOFError, struct.error))


def read_voxels(slices: Sequence[Slice]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The stacked slices as intensities, array (z, y, x), and a note where padding was replaced.

    Rescale slope and intercept of each slice are applied; the dtype is the stored one where they change nothing. Values
    that a slice declares to be padding are no intensities: they get the lowest real one.

    Raises:
        InputError: a file is damaged, or compressed in a way that is not read.
    """
    with quiet_itk():
        planes = _planes(slices)
    return _without_padding(np.stack(planes), slices)


def _planes(slices: Sequence[Slice]) -> list[np.ndarray]:
    """Intensities (y, x) of each slice, in their order; the frames of a file are read together."""
    found: dict[int, np.ndarray] = {i: _single(one) for i, one in enumerate(slices) if one.frame is None}
    for path in dict.fromkeys(one.path for one in slices if one.frame is not None):
        wanted = [i for i, one in enumerate(slices) if one.path == path]
        for i, stored in zip(wanted, _frames(path, [slices[i] for i in wanted]), strict=True):
            found[i] = _rescaled(stored, slices[i])
    for i, plane in found.items():
        if plane.shape != slices[i].size[::-1]:
            raise damaged(slices[i].path, f"its pixels are an array of {plane.shape}, not of {slices[i].size[::-1]}")
    return [found[i] for i in range(len(slices))]


def _single(one: Slice) -> np.ndarray:
    """Intensities of a file of one slice."""
    return _by_gdcm(one.path, one.path)[0]


def _by_gdcm(path: Path, user_path: Path) -> np.ndarray:
    """All frames of a file (z, y, x), rescaled as its header says; `user_path` is named where it cannot be read."""
    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
    except RuntimeError as error:
        raise damaged(user_path, itk_error(error)) from error


def _frames(path: Path, slices: Sequence[Slice]) -> list[np.ndarray]:
    """Stored values (y, x) of frames of one file."""
    wanted = [one.frame or 0 for one in slices]
    try:
        with warnings.catch_warnings(), reading(path):
            warnings.simplefilter("ignore")
            if slices[0].transfer_syntax.is_encapsulated:
                return _unpacked(path, wanted, slices[0].transfer_syntax)
            is_deflated = slices[0].transfer_syntax == DeflatedExplicitVRLittleEndian
            source = pydicom.dcmread(path) if is_deflated else path
            return _in_order(iter_pixels(source, indices=sorted(wanted), raw=True), wanted)
    except _DAMAGED as error:
        raise damaged(path, str(error).split("\n")[0][:200]) from error


def _in_order(frames: Iterator[np.ndarray], wanted: Sequence[int]) -> list[np.ndarray]:
    """Frames that come sorted by their number, as they are wanted."""
    by_number = dict(zip(sorted(wanted), frames, strict=True))
    return [by_number[number] for number in wanted]


def _unpacked(path: Path, wanted: Sequence[int], syntax: UID) -> list[np.ndarray]:
    """Stored values of compressed frames: GDCM unpacks a file that holds them and nothing that it would interpret."""
    source = pydicom.dcmread(path, specific_tags=[*_PIXEL_MODULE, "PixelData", "NumberOfFrames"])
    frames = list(generate_frames(source.PixelData, number_of_frames=int(source.get("NumberOfFrames") or 1)))
    plain = pydicom.Dataset()
    for keyword in _PIXEL_MODULE:
        if keyword in source:
            plain[keyword] = source[keyword]
    plain.SOPClassUID, plain.SOPInstanceUID, plain.NumberOfFrames = _WORD_CAPTURE, "1.2.3", len(wanted)
    plain.PixelData = encapsulate([frames[number] for number in wanted])
    plain["PixelData"].VR = "OB"
    plain.file_meta = pydicom.dataset.FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = syntax
    with tempfile.TemporaryDirectory(prefix="femur3d-") as folder:
        copy = Path(folder) / "frames.dcm"
        plain.save_as(copy, enforce_file_format=True)
        return list(_by_gdcm(copy, path))


def _rescaled(stored: np.ndarray, one: Slice) -> np.ndarray:
    slope, intercept = one.rescale
    return stored if (slope, intercept) == (1.0, 0.0) else stored * slope + intercept


def _without_padding(array: np.ndarray, slices: Sequence[Slice]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The array (z, y, x) with the lowest real intensity where a slice's header says padding, and a note."""
    padding = np.zeros(array.shape, bool)
    for plane, one, mask in zip(array, slices, padding, strict=True):
        if values := padding_values(one):
            _mark(plane, one, values, mask)
    n_padded = int(np.count_nonzero(padding))
    if n_padded in (0, array.size):
        return array, ()
    lowest = array[~padding].min()
    found = np.unique(array[padding])
    received = f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g} to {found[-1]:g}"
    array[padding] = lowest
    note = f"{n_padded / array.size:.1%} of the voxels hold padding ({received}), which counts as {lowest:g}"
    return array, (note,)


def padding_values(one: Slice) -> tuple[int, int] | None:
    """The lowest and the highest stored value that a slice declares to be padding; None where it declares none."""
    declared = [numbers(one.header[name]) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    ends = [_as_stored(int(value[0]), one) for value in declared if value]
    return (min(ends), max(ends)) if declared[0] else None


def _as_stored(value: int, one: Slice) -> int:
    """A padding value as a pixel of the file's kind: 63536 is −2000 where pixels have a sign."""
    bits = int(one.header["BitsAllocated"])
    value &= (1 << bits) - 1
    return value - (1 << bits) if one.header["PixelRepresentation"] == "1" and value >> (bits - 1) else value


def _mark(plane: np.ndarray, one: Slice, values: tuple[int, int], mask: np.ndarray) -> None:
    """Sets the mask (y, x) where a slice holds padding.

    A declared value within the range of the intensities is one of them, whatever the header says: there are pixels both
    just below and just above it.
    """
    slope, intercept = one.rescale
    low, high = sorted(value * slope + intercept for value in values)
    step = abs(slope)
    if not np.any(inside := (plane > low - step / 2) & (plane < high + step / 2)):
        return
    below = np.any((plane > low - 1.5 * step) & ~inside & (plane < low))
    above = np.any((plane < high + 1.5 * step) & ~inside & (plane > high))
    if not (below and above):
        mask[...] = inside
