"""The files of one segmented scan but CASE.json: the label map always, other formats on request."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from femur3d.errors import InputError
from femur3d.export.mesh import write_mesh
from femur3d.export.segments import Labels, segments_of
from femur3d.export.slicer import write_segment_nrrd
from femur3d.io.images import ScanFile, write_volume
from femur3d.volume import Volume

if TYPE_CHECKING:  # what reads a summary does without it
    from femur3d.inference.segmenter import Segmentation
    from femur3d.io.dicom.slices import Slice
    from femur3d.morphometry.measure import Morphometry

LABEL_MAPS = (".nii.gz", ".nii", ".nrrd", ".mha")  # formats of the label map
SURFACES = ("stl", "ply")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the user asked for.

    Attributes:
        labels: 'femur' or 'sides'.
        format: extension of the label map and the probability map, one of LABEL_MAPS.
        probability: CASE_prob, float32.
        preview: CASE_preview.png.
        surface: one of SURFACES for a mesh of each femur; '' for none.
        segmentation: CASE.seg.nrrd for 3D Slicer.
        dicom_seg: CASE.dcm for a scan that came as DICOM.
        rtstruct: CASE_rtstruct.dcm, contours, for a scan that came as DICOM.
        morphometry: what is measured on the femurs in CASE.json, CASE_morphometry.png, and for a scan that came as
            DICOM CASE_sr.dcm.
    """

    labels: Labels = "sides"
    format: str = ".nii.gz"
    probability: bool = False
    preview: bool = False
    surface: str = ""
    segmentation: bool = False
    dicom_seg: bool = False
    rtstruct: bool = False
    morphometry: bool = False


@dataclasses.dataclass(frozen=True)
class Case:
    """A scan and where its results go.

    Attributes:
        name: results are called NAME….
        path: the scan file or DICOM folder that was read.
        series: which series of the folder.
        folder: of the results.
    """

    name: str
    path: Path
    series: int | None
    folder: Path

    def file(self, ending: str) -> Path:
        """The result with an ending, such as '.nii.gz'."""
        return self.folder / f"{self.name}{ending}"

    @property
    def json(self) -> Path:
        """CASE.json."""
        return self.file(".json")


def possible_files(case: Case, wanted: Wanted) -> list[Path]:
    """Every file that may be written for a case, CASE.json included."""
    endings = [wanted.format, ".json"]
    endings += [f"_prob{wanted.format}"] * wanted.probability + ["_preview.png"] * wanted.preview
    endings += [f"{side}.{wanted.surface}" for side in ("", "_left", "_right") if wanted.surface]
    endings += [".seg.nrrd"] * wanted.segmentation + [".dcm"] * wanted.dicom_seg
    endings += ["_rtstruct.dcm"] * wanted.rtstruct
    endings += ["_morphometry.png", "_sr.dcm"] * wanted.morphometry
    return [case.file(ending) for ending in endings]


def write_files(
    result: Segmentation,
    scan: ScanFile,
    case: Case,
    wanted: Wanted,
    weights_sha256: str,
    folder: Path,
    measured: Mapping[str, Morphometry | InputError] | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Writes the label map, and then whatever else can be written. Without a femur there is no mesh nor DICOM.

    Args:
        result: of the scan.
        scan: as it was read.
        case: whose files they are.
        wanted: what to write.
        weights_sha256: of the model, for the DICOM segmentation.
        folder: to write to.
        measured: on the femurs, for its picture and its DICOM report.

    Returns:
        Names of the files that were written, and for each other one that was wanted the reason why it was not.

    Raises:
        InputError: the label map cannot be written.
    """
    label_map, *others = _writers(result, scan, case, wanted, weights_sha256)
    others += _measure_writers(
        scan, case, [one for one in (measured or {}).values() if not isinstance(one, InputError)]
    )
    _write(label_map, case, folder)
    written, failed = [case.file(label_map[0]).name], {}
    for other in others:
        name = case.file(other[0]).name
        try:
            _write(other, case, folder)
            written.append(name)
        except Exception as error:  # the segmentation is done: nothing beside the label map is worth losing it
            (folder / name).unlink(missing_ok=True)
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            failed[name] = " ".join(reason.replace(str(folder), str(case.folder)).split())[:500]
    return written, failed


Writer = tuple[str, Callable[[Path], None]]  # the ending of a file, and what writes it to a path


def _write(writer: Writer, case: Case, folder: Path) -> None:
    ending, write = writer
    if case.file(ending).is_dir():
        raise InputError(f"{case.file(ending)}: a folder.\nRemove it: the result is to be called so.")
    write(folder / case.file(ending).name)


def _writers(result: Segmentation, scan: ScanFile, case: Case, wanted: Wanted, weights_sha256: str) -> Iterator[Writer]:
    """What there is to write, the label map first."""
    labels = result.labels
    yield wanted.format, lambda path: write_volume(labels, path, like=scan.nifti)
    if wanted.probability:
        yield f"_prob{wanted.format}", lambda path: write_volume(result.probability, path, like=scan.nifti)
    if wanted.preview:
        yield "_preview.png", lambda path: _write_preview(result, scan, case, wanted, path)
    for segment in segments_of(labels, wanted.labels) if wanted.surface else ():
        side = f"_{segment.side.meaning.lower()}" if segment.side else ""
        yield f"{side}.{wanted.surface}", functools.partial(_write_surface, result, segment.value)
    if wanted.segmentation:
        yield ".seg.nrrd", lambda path: write_segment_nrrd(labels, path, wanted.labels)
    slices = scan.dicom.slices if scan.dicom and labels.array.any() else ()
    if wanted.dicom_seg and slices:
        yield ".dcm", lambda path: _write_dicom_seg(labels, slices, wanted, weights_sha256, path)
    if wanted.rtstruct and slices:
        yield "_rtstruct.dcm", lambda path: _write_rtstruct(labels, slices, wanted, path)


# What only some outputs need is imported for these: libigl, Matplotlib and pydicom take half a second each.


def _measure_writers(scan: ScanFile, case: Case, femurs: Sequence[Morphometry]) -> Iterator[Writer]:
    if femurs:
        yield "_morphometry.png", lambda path: _write_morphometry(femurs, path, case.name)
    if femurs and scan.dicom:
        yield "_sr.dcm", lambda path: _write_dicom_sr(femurs, scan, path)


def _write_dicom_seg(labels: Volume, slices: Sequence[Slice], wanted: Wanted, weights_sha256: str, path: Path) -> None:
    from femur3d.export.dicom.segmentation import write_dicom_seg

    write_dicom_seg(labels, slices, path, wanted.labels, weights_sha256=weights_sha256)


def _write_rtstruct(labels: Volume, slices: Sequence[Slice], wanted: Wanted, path: Path) -> None:
    from femur3d.export.dicom.structure_set import write_rtstruct

    write_rtstruct(labels, slices, path, wanted.labels)


def _write_dicom_sr(femurs: Sequence[Morphometry], scan: ScanFile, path: Path) -> None:
    from femur3d.export.dicom.measures import write_dicom_sr

    assert scan.dicom is not None
    write_dicom_sr(femurs, scan.dicom.slices, path)


def _write_morphometry(femurs: Sequence[Morphometry], path: Path, title: str) -> None:
    from femur3d.export.pictures.morphometry import morphometry_figure

    morphometry_figure(femurs, path, title)


def _write_preview(result: Segmentation, scan: ScanFile, case: Case, wanted: Wanted, path: Path) -> None:
    from femur3d.export.pictures.preview import preview_figure

    preview_figure(scan.volume, result.labels, path, title=case.name, labels=wanted.labels)


def _write_surface(result: Segmentation, value: int, path: Path) -> None:
    from femur3d.morphometry.implicit_surface import femur_mesh

    mask = result.labels.with_array(result.labels.array == value)
    write_mesh(*femur_mesh(mask, result.probability), path)
