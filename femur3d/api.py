"""Segmentation from Python: `from femur3d import segment, segment_many`."""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from femur3d import cli
from femur3d.engines import selection
from femur3d.errors import InputError
from femur3d.export.case_files import Case, Wanted
from femur3d.export.case_results import MadeWith, summary_of, write_case
from femur3d.export.femur_measures import measured
from femur3d.export.output_folder import check_results_replace_nothing
from femur3d.export.slicer import EXTENSION, write_segment_nrrd
from femur3d.inference.choice import AUTO, Chooser, find_models
from femur3d.inference.mode import EXACT, FAST, Mode
from femur3d.inference.saved_model import load_model, state
from femur3d.inference.segmenter import Segmentation, Segmenter
from femur3d.io.geometry import orthonormalise
from femur3d.io.images import ScanFile, case_name, read_scan, volume_from_sitk
from femur3d.io.inputs import Scan
from femur3d.io.read_ahead import read_ahead
from femur3d.volume import IDENTITY, Volume

if TYPE_CHECKING:
    from femur3d.morphometry.measure import Morphometry


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result(Segmentation):
    """A segmentation, with the scan that it was made of.

    Attributes:
        scan: as it was read.
        source: its path; '' for a scan that was never a file.
        mode: how it was computed.
        series: the number that was given, of a DICOM folder.
    """

    scan: ScanFile | None = None
    source: str = ""
    mode: Mode = EXACT
    series: int | None = None

    @property
    def kind(self) -> Literal["femur", "sides"]:
        """What the labels are: 1 for every femur, or 1 left and 2 right."""
        return "sides" if "left" in self.names.values() else "femur"

    def measure(self) -> dict[str, Morphometry | InputError]:
        """Head, neck, shaft, alpha angle and cam of every femur, each measure with its error bar and its gate.

        Returns:
            By 'left' and 'right'; for a femur without a head the error that says so.
        """
        return measured(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the label map: .nii.gz, .nii, .nrrd or .mha, or .seg.nrrd, a segmentation of 3D Slicer."""
        if os.fspath(path).endswith(EXTENSION):
            write_segment_nrrd(self.labels, path, self.kind)
        else:
            super().save(path)

    def save_all(self, folder: str | os.PathLike[str], name: str = "", **wanted: Any) -> list[Path]:
        """Writes what `femur3d.infer -o folder` writes, CASE.json too; returns the files.

            result.save_all("out", surface="stl", segmentation=True, preview=True)

        Args:
            folder: made if needed.
            name: of the case; by default that of the scan's file.
            wanted: fields of `export.case_files.Wanted` but `labels`.

        Raises:
            InputError: the label map cannot be written.
            UsageError: a result would replace the scan, a file beside it, or another scan's results.
            ValueError: a scan from memory without a name.
        """
        if self.scan is None or not (name or self.source):
            raise ValueError("A scan from memory has no name. Expected name=.")
        files, sha256 = Wanted(labels=self.kind, **wanted), self.scan.sha256
        case = Case(name or case_name(self.source), Path(self.source), self.series, Path(folder))
        if self.source:
            scan = Scan(case.name, case.path, self.series, self.source)
            check_results_replace_nothing([scan], [case], [files], lambda _: sha256)
        options = {**dataclasses.asdict(self.mode), **dataclasses.asdict(files)}
        made_with = MadeWith(self.source, sha256, self.series, options, self.model)
        summary = summary_of(made_with, self, self.scan.notes, seconds=self.seconds)
        return [case.folder / file for file in write_case(self, self.scan, case, files, summary)["files"]]


def segment(
    scan: str | os.PathLike[str] | Volume | np.ndarray | Any,
    model: str | os.PathLike[str] = AUTO,
    *,
    labels: Literal["femur", "sides"] = "sides",
    fast: bool = False,
    engine: str = selection.AUTO,
    series: int | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    direction: tuple[float, ...] = IDENTITY,
) -> Result:
    """Segments the femurs of one scan. The model is loaded at the first call and kept for the next ones.

        result = segment("scan.nii.gz")
        result.volumes_ml, result.labels.array, result.quality
        result.save("femurs.nii.gz")

    Args:
        scan: a scan file, a folder with a DICOM series, a SimpleITK image, a `Volume`, or an array (z, y, x) with its
            geometry in the last three arguments.
        model: folder of a trained model, or the name of one that comes with femur3d, 'hip_t1' or 'hip_mr'; 'auto' is
            hip_t1, and where its flags are red hip_mr, if that has fewer; `choice` of the result says which.
        labels: 'sides' (1 left, 2 right) or 'femur' (1 for both).
        fast: bfloat16, and fewer patches where no femur is near: faster, not quite the same; see `inference.mode.FAST`.
        engine: 'tensorflow', 'jax', 'openvino', or 'auto' for the best there is.
        series: number of the series, where a DICOM folder has several.
        spacing_mm: of an array: voxel size along (x, y, z).
        origin_mm: of an array: world position (LPS) of its first voxel.
        direction: of an array: 3×3 matrix, row-major; column a is the world direction of index axis a.

    Returns:
        Label map and probability map on the scan's own grid, and what is out of the ordinary about them.

    Raises:
        InputError: the scan or the model cannot be read, or cannot be used.
        UsageError: there is no such engine, or it is not installed.
    """
    run = _Run(os.fspath(model), labels, fast, engine)
    return run(scan, _read(scan, series, spacing_mm, origin_mm, direction), series)


def segment_many(
    scans: Iterable[str | os.PathLike[str]],
    model: str | os.PathLike[str] = AUTO,
    *,
    labels: Literal["femur", "sides"] = "sides",
    fast: bool = False,
    engine: str = selection.AUTO,
) -> Iterator[tuple[str | os.PathLike[str], Result | InputError]]:
    """Segments scan after scan; the next one is read while this process is busy with one.

        for path, result in segment_many(Path("scans").glob("*.nii.gz")):
            if isinstance(result, InputError):
                print(result)
            else:
                result.save_all("out")

    Args:
        scans: files, or folders with a DICOM series each; taken only as far as they are needed.
        model: see `segment`.
        labels: see `segment`.
        fast: see `segment`.
        engine: see `segment`.

    Yields:
        Each path with its result, or with the error that says why there is none.
    """
    run = _Run(os.fspath(model), labels, fast, engine)
    for reading in read_ahead(lambda scan: (scan, _read_or_error(scan)), scans):
        scan, read = reading.result()
        try:
            yield scan, read if isinstance(read, InputError) else run(scan, read)
        except InputError as error:
            yield scan, error
        except MemoryError as error:
            yield scan, _too_large(scan, error)


def _read_or_error(scan: str | os.PathLike[str]) -> ScanFile | InputError:
    try:
        return read_scan(scan)
    except InputError as error:
        return error
    except MemoryError as error:
        return _too_large(scan, error)


def _too_large(scan: str | os.PathLike[str], error: MemoryError) -> InputError:
    reason = f" ({error})" if str(error) else ""
    what = f"{os.fspath(scan)}: not enough memory{reason}"
    return InputError(f"{what}.\nCrop the scan to the hips, or segment it on a machine with more.")


class _Run:
    """A model, ready for scans."""

    def __init__(self, model: str, labels: Literal["femur", "sides"], fast: bool, engine: str) -> None:
        folders = [folder.resolve() for folder in find_models(model)]
        self._segment = Chooser(folders, lambda one: _loaded(one, fast, engine))
        self._labels, self._mode = labels, FAST if fast else EXACT

    def __call__(self, scan: Any, read: ScanFile, series: int | None = None) -> Result:
        """The result of a scan, as it was given and as it was read."""
        found = dataclasses.replace(self._segment(read.volume, self._labels), nifti=read.nifti)
        source = os.fspath(scan) if isinstance(scan, (str, os.PathLike)) else ""
        return Result(**vars(found), scan=read, source=source, mode=self._mode, series=series)


_LOADING = threading.Lock()  # two threads would load a model twice, and hide what the process says for good


def _loaded(folder: Path, fast: bool, engine: str) -> Segmenter:
    with _LOADING:
        return _segmenter(folder, state(folder), fast, engine)


@functools.lru_cache(maxsize=4)  # the two models that come with femur3d, in both modes
def _segmenter(folder: Path, content: str, fast: bool, engine: str) -> Segmenter:
    """The loaded model; `content`, its state, makes a folder that was replaced another one."""
    return Segmenter(load_model(folder), cli.load_engine(engine, fast), FAST if fast else EXACT)


def _read(
    scan: Any,
    series: int | None,
    spacing_mm: tuple[float, float, float] | None,
    origin_mm: tuple[float, float, float],
    direction: tuple[float, ...],
) -> ScanFile:
    if isinstance(scan, (str, os.PathLike)):
        return read_scan(scan, series=series)
    if isinstance(scan, Volume):
        return _usable("The volume", scan)
    if isinstance(scan, np.ndarray):
        return _usable("The array", _from_array(scan, spacing_mm, origin_mm, direction))
    if hasattr(scan, "GetDimension") and hasattr(scan, "GetNumberOfComponentsPerPixel"):  # unlike one of ITK or VTK
        if scan.GetDimension() != 3 or scan.GetNumberOfComponentsPerPixel() != 1:
            received = f"{scan.GetDimension()} dimensions, {scan.GetNumberOfComponentsPerPixel()} values a voxel"
            raise InputError(f"A SimpleITK image of {received}.\nExpected a 3-D grey image.")
        return _usable("The SimpleITK image", volume_from_sitk(scan))
    raise InputError(
        f"A {type(scan).__name__} cannot be segmented.\nExpected a path, a SimpleITK image, a Volume or a NumPy array."
    )


def _usable(what: str, volume: Volume) -> ScanFile:
    """A scan from memory, held to what is asked of one from a file."""
    array = volume.array
    if min(array.shape) < 2 or array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise InputError(f"{what} has shape {array.shape} and {array.dtype}.\nExpected real numbers, axes (z, y, x).")
    if array.dtype == bool:
        volume = volume.with_array(array.astype(np.uint8))
    straight, notes = orthonormalise(what, volume)
    return ScanFile(straight, notes)


def _from_array(
    array: np.ndarray,
    spacing_mm: tuple[float, float, float] | None,
    origin_mm: tuple[float, float, float],
    direction: tuple[float, ...],
) -> Volume:
    if spacing_mm is None:
        raise InputError("An array without spacing_mm.\nExpected the voxel size (x, y, z) in millimetres.")
    if array.ndim != 3:
        raise InputError(f"An array of shape {array.shape}.\nExpected axes (z, y, x).")
    try:
        x, y, z = (float(mm) for mm in spacing_mm)
        origin_x, origin_y, origin_z = (float(mm) for mm in origin_mm)
        matrix = np.reshape(direction, 9).astype(float).tolist()
    except (TypeError, ValueError) as error:
        geometry = f"spacing_mm={spacing_mm}, origin_mm={origin_mm}, direction={direction}"
        raise InputError(f"An array with {geometry}.\nExpected three, three and nine numbers.") from error
    return Volume(array, (x, y, z), (origin_x, origin_y, origin_z), tuple(matrix))
