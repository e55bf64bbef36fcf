"""What is written for one segmented scan: the label map and CASE.json always, other formats on request."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from femur3d.export.dicom_seg import write_dicom_seg
from femur3d.export.mesh import femur_mesh, write_mesh
from femur3d.export.segments import Labels, segments_of
from femur3d.export.slicer import write_segment_nrrd
from femur3d.inference.quality_limits import RED
from femur3d.inference.segmenter import Segmentation
from femur3d.io.atomic import replacing
from femur3d.io.dicom.series import series_files
from femur3d.io.images import ScanFile, write_volume
from femur3d.io.summary import read_summary


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the user asked for.

    Attributes:
        labels: 'femur' or 'sides'.
        format: extension of the label map and the probability map, e.g. '.nii.gz'.
        probability: CASE_prob, float32.
        preview: CASE_preview.png.
        surface: 'stl' or 'ply' for a mesh of each femur; '' for none.
        segmentation: CASE.seg.nrrd for 3D Slicer.
        dicom_seg: CASE.dcm for a scan that came as DICOM.
    """

    labels: Labels = "femur"
    format: str = ".nii.gz"
    probability: bool = False
    preview: bool = False
    surface: str = ""
    segmentation: bool = False
    dicom_seg: bool = False


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


def possible_files(case: Case, wanted: Wanted) -> list[Path]:
    """Every file that may be written for a case."""
    endings = [wanted.format, ".json"]
    endings += [f"_prob{wanted.format}"] * wanted.probability + ["_preview.png"] * wanted.preview
    endings += [f"{side}.{wanted.surface}" for side in ("", "_left", "_right") if wanted.surface]
    endings += [".seg.nrrd"] * wanted.segmentation + [".dcm"] * wanted.dicom_seg
    return [case.file(ending) for ending in endings]


def made_earlier(case: Case) -> dict[str, Any]:
    """The summary that lies where this case's will be written; empty where there is none of ours."""
    return read_summary(case.file(".json"))


def write_results(
    result: Segmentation, scan: ScanFile, case: Case, wanted: Wanted, weights_sha256: str = ""
) -> list[str]:
    """Writes everything but the summary; returns the names of the files. Without a femur there is no mesh nor DICOM.

    Args:
        result: of the scan.
        scan: as it was read.
        case: where to.
        wanted: what.
        weights_sha256: of the model, for the DICOM segmentation.

    Raises:
        InputError: a file cannot be written, or cannot be made of this scan.
    """
    case.folder.mkdir(parents=True, exist_ok=True)
    return [path.name for path in _written(result, scan, case, wanted, weights_sha256)]


def _written(result: Segmentation, scan: ScanFile, case: Case, wanted: Wanted, weights_sha256: str) -> Iterator[Path]:
    labels = result.labels
    yield (path := case.file(wanted.format))
    write_volume(labels, path, like=scan.nifti)
    if wanted.probability:
        yield (path := case.file(f"_prob{wanted.format}"))
        write_volume(result.probability, path, like=scan.nifti)
    if wanted.preview:
        from femur3d.export.preview import preview_figure  # here: Matplotlib takes half a second

        yield (path := case.file("_preview.png"))
        preview_figure(scan.volume, labels, path, title=case.name, labels=wanted.labels)
    for segment in segments_of(labels, wanted.labels) if wanted.surface else ():
        side = f"_{segment.side.meaning.lower()}" if segment.side else ""
        yield (path := case.file(f"{side}.{wanted.surface}"))
        mask = labels.with_array(labels.array == segment.value)
        write_mesh(*femur_mesh(mask, result.probability), path)
    if wanted.segmentation:
        yield (path := case.file(".seg.nrrd"))
        write_segment_nrrd(labels, path, wanted.labels)
    if wanted.dicom_seg and labels.array.any():
        yield (path := case.file(".dcm"))
        slices = series_files(case.path, case.series)
        write_dicom_seg(labels, slices, path, wanted.labels, weights_sha256=weights_sha256)


def write_summary(case: Case, summary: dict[str, Any]) -> None:
    """Writes CASE.json, last of all: where it is, the results are whole."""
    with replacing(case.file(".json")) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def has_red_flag(case: Case) -> bool:
    """Whether the summary, of this run or an earlier one, has a red quality flag; False where there is none."""
    try:
        return any(flag["level"] == RED for flag in made_earlier(case)["quality"].values())
    except (KeyError, TypeError, AttributeError):
        return False


def is_done(case: Case, made_with: dict[str, Any]) -> bool:
    """Whether the summary is there, says the same of scan, model and options, and all its files are there too."""
    try:
        summary = made_earlier(case)
        same = all(summary[name] == value for name, value in made_with.items())
        return same and all((case.folder / name).is_file() for name in summary["files"])
    except (KeyError, TypeError):
        return False
