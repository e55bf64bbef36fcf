"""How good are models on the same patients in other contrasts, slice directions and voxel sizes, and where is no hip?

    python -m experiments.studies.contrast_table --dataset hips --cache runs/contrast.jsonl [-o table.txt]
        [--model hip_t1 --model hip_mr] [--fold 0 | --all] [--quality DIR]

The fold's validation scans are changed in every way of CONTRASTS and GRIDS, segmented (fast mode), taken back to their
own grid and compared with the references there. Nothing of this is the training's code (`data/random_transforms.py`).
Of the grids, PARTS have no hip: only what lies above the femurs, or only their shafts; no femur or a red flag is right
then. Each scan counts once for each of its femurs. The Dice is the mean over the femurs; one that is not found counts
as 0; 'flagged' are those whose scan has a red flag or no femur. Of two models the table also has what `--model auto` of
femur3d.infer would take.

--quality learns the limits of the last model's flags from all its good results (every Dice at least GOOD_DICE) in the
cache, of whatever dataset, none stricter than the first model's, and writes them to that model's folder; the table's
flags are by the limits that then lie there. The same command goes on where it was stopped: what is in the cache is not
segmented again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from absl import flags
from scipy import ndimage
from tqdm import tqdm

from experiments.studies.corruption import top_box
from experiments.studies.table_output import command_line, output_table
from femur3d import cli
from femur3d.data.nnunet_dataset import CasePaths, find_cases, load_case, read_labels, read_split
from femur3d.data.preprocessing import cut
from femur3d.errors import InputError, UsageError
from femur3d.evaluation.overlap import count_overlap, dice
from femur3d.inference.postprocessing import LEFT, RIGHT
from femur3d.inference.quality_limits import Limit, excess, learn_limits, read_limits, write_limits
from femur3d.inference.quality_limits import flags as flags_of
from femur3d.io.images import sitk_from_volume, volume_from_sitk
from femur3d.volume import Volume

with cli.quiet_imports():
    from femur3d import segment
    from femur3d.inference.choice import NAMES, concern
    from femur3d.inference.saved_model import find_model, read_config

FLAGS = flags.FLAGS
ABOVE_MM = 10.0
BELOW_MM = 100.0  # of the top of the femurs begin the shafts
GOOD_DICE = 0.80  # limits are learnt from results as good as this
NO_LIMITS = ("largest_volume_ml",)  # it says how much of the thigh is in view
BODY = 0.08  # of the 99.5th percentile: what is darker is air
PRESSED = 0.12  # what fat suppression leaves


def gamma(shares: np.ndarray) -> np.ndarray:
    """Dark tissues brighter."""
    return shares**0.45


def inverted(shares: np.ndarray) -> np.ndarray:
    """Dark and bright exchanged within the body; air stays dark."""
    return np.where(ndimage.gaussian_filter(shares, 1) > BODY, 1.02 - shares, 0)


def fat_suppressed(shares: np.ndarray) -> np.ndarray:
    """What is brighter than Otsu's threshold of the body, fat and marrow in T1, pressed down."""
    body = sitk.GetImageFromArray(shares[shares > BODY].reshape(1, 1, -1).astype(np.float32))
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(body)
    return np.where(shares > otsu.GetThreshold(), PRESSED * shares, shares)


CONTRASTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda shares: shares,
    "gamma 0.45": gamma,
    "inverted": inverted,
    "fat-suppressed": fat_suppressed,
}
GRIDS: dict[str, tuple[float, float, float] | None] = {  # voxels (right-left, front-back, up-down), mm
    "as acquired": None,
    "axial 3 mm": (1.0, 1.0, 3.0),
    "sagittal 4 mm": (4.0, 1.0, 1.0),
    "1.5 mm cubes": (1.5, 1.5, 1.5),
    "above hips": None,
    "shafts alone": None,
}


def recontrasted(scan: Volume, contrast: str) -> Volume:
    """The scan in another contrast, int16."""
    shares = np.clip(scan.array / np.float32(np.percentile(scan.array, 99.5)), 0, 1).astype(np.float32)
    return scan.with_array(np.rint(1000 * CONTRASTS[contrast](shares)).astype(np.int16))


def regridded(scan: Volume, grid: str) -> Volume:
    """The scan averaged over and interpolated at other voxels, axes along the patient's; all of it is in view."""
    spacing = GRIDS[grid]
    if spacing is None:
        return scan
    image = sitk.DICOMOrient(sitk_from_volume(scan.with_array(scan.array.astype(np.float32))), "LPS")
    old, new = np.array(image.GetSpacing()), np.array(spacing)
    coarser = new > 1.2 * old
    if coarser.any():
        image = sitk.SmoothingRecursiveGaussian(image, np.where(coarser, 0.4 * new, 0.01 * old).tolist())
    size = np.ceil(np.array(image.GetSize()) * old / new).astype(int).tolist()
    at = (image.GetOrigin(), new.tolist(), image.GetDirection())
    return volume_from_sitk(sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, *at, 0.0))


def on_grid_of(labels: Volume, scan: Volume, value: int) -> np.ndarray:
    """Mask of one label on the scan's grid, by linear interpolation."""
    mask = sitk_from_volume(labels.with_array((labels.array == value).astype(np.float32)))
    like = sitk_from_volume(scan)
    return sitk.GetArrayFromImage(sitk.Resample(mask, like, sitk.Transform(), sitk.sitkLinear, 0.0)) > 0.5


@dataclasses.dataclass(frozen=True)
class Result:
    """One segmentation: of which scan, by which weights, the Dice of each femur there is, and `quality.measure`."""

    weights: str
    case: str
    contrast: str
    grid: str
    dice: list[float]
    measures: dict[str, float]

    @property
    def is_good(self) -> bool:
        """Whether there are femurs and all were found well."""
        return bool(self.dice) and min(self.dice) >= GOOD_DICE

    def concern(self, limits: Mapping[str, Limit]) -> tuple[float, int, int]:
        """See `inference.choice.concern`."""
        return concern(flags_of(self.measures, limits))

    def is_flagged(self, limits: Mapping[str, Limit]) -> bool:
        """Whether nothing was found or a flag is red."""
        return "smallest_volume_ml" not in self.measures or self.concern(limits)[1] > 0


def measure(scan: Volume, reference: Volume, model: str | Path, contrast: str, grid: str) -> tuple[list[float], dict]:
    """Dice of each femur of the reference, none where the hips are cut away, and the measures of quality."""
    if grid in PARTS:
        with contextlib.suppress(InputError):  # too low a scan is refused: nothing is found
            found = segment(recontrasted(PARTS[grid](scan, reference), contrast), model, fast=True)
            return [], {name: flag.value for name, flag in found.quality.items()}
        return [], {}
    found = segment(regridded(recontrasted(scan, contrast), grid), model, fast=True)
    sides = [value for value in (LEFT, RIGHT) if (reference.array == value).any()]
    pairs = [(reference.array == value, on_grid_of(found.labels, scan, value)) for value in sides]
    return [dice(count_overlap(*pair)) for pair in pairs], {name: flag.value for name, flag in found.quality.items()}


def without_hips(scan: Volume, reference: Volume) -> Volume:
    """What of a scan lies ABOVE_MM and more above both femurs: lower back and sacroiliac joints."""
    heights = scan.world_mm(np.argwhere(reference.array > 0))[:, 2]
    corners = scan.world_mm(list(itertools.product(*[(0, n - 1) for n in scan.array.shape])))[:, 2]
    return cut(scan, top_box(scan, float(corners.max() - heights.max()) - ABOVE_MM, keep=True))


def shafts_alone(scan: Volume, reference: Volume) -> Volume:
    """What of a scan lies BELOW_MM and more under the top of the femurs; a hundredth of the label may be specks.

    Raises UsageError where the scan ends above that.
    """
    heights = scan.world_mm(np.argwhere(reference.array > 0))[:, 2]
    corners = scan.world_mm(list(itertools.product(*[(0, n - 1) for n in scan.array.shape])))[:, 2]
    start = float(np.percentile(heights, 99)) - BELOW_MM
    if start <= corners.min():
        raise UsageError(
            f"A scan ends {BELOW_MM:g} mm below its femurs' top, or above.\nLeave out --grid 'shafts alone'."
        )
    return cut(scan, top_box(scan, float(corners.max()) - start, keep=False))


PARTS: dict[str, Callable[[Volume, Volume], Volume]] = {"above hips": without_hips, "shafts alone": shafts_alone}


def chosen(results: Sequence[Result], limits: Sequence[Mapping[str, Limit]]) -> int:
    """Which model's result `--model auto` takes of a scan: the number of the first one not flagged, or the best."""
    best = 0
    for number in range(1, len(results)):
        if not results[best].is_flagged(limits[best]):
            break
        if results[number].concern(limits[number]) < results[best].concern(limits[best]):
            best = number
    return best


def laxer(limits: Mapping[str, Limit], others: Mapping[str, Limit]) -> dict[str, Limit]:
    """Of each measure the limit whose red lies farther out: a handful of patients does not show how people differ."""
    farther = {n: o for n, o in others.items() if n in limits and excess(n, o.red, limits[n].red) > 0}
    return {**limits, **farther}


def format_table(
    found: Mapping[tuple[str, str], Sequence[Sequence[Result]]],
    names: Sequence[str],
    limits: Sequence[Mapping[str, Limit]],
    head: Sequence[str],
) -> str:
    """A line for each contrast and grid; of each model, then of the choice: Dice, the smallest one, flagged.

    Args:
        found: by contrast and grid; of each scan the results of all models.
        names: of the models.
        limits: of the models.
        head: lines above.
    """
    columns = [*names, "auto"] if len(names) > 1 else list(names)
    title = f"{'Contrast':<16}{'Grid':<16}{'Count':>6}" + f"{'Dice':>12}{'Smallest':>10}{'Flagged':>9}" * len(columns)
    lines = [*head, "", " " * 38 + "".join(f"{name:>31}" for name in columns), title]
    for (contrast, grid), scans in found.items():
        taken = [chosen(results, limits) for results in scans]
        picks = [[n] * len(scans) for n in range(len(names))] + ([taken] if len(names) > 1 else [])
        cells = "".join(_cells(scans, pick, limits) for pick in picks)
        count = sum(max(len(results[0].dice), 1) for results in scans)
        note = f"   {names[1]} taken: {sum(map(bool, taken))} of {len(scans)} scans" if len(names) == 2 else ""
        lines.append(f"{contrast:<16}{grid:<16}{count:>6}{cells}{note}")
    return "\n".join(lines) + "\n"


def _cells(scans: Sequence[Sequence[Result]], pick: Sequence[int], limits: Sequence[Mapping[str, Limit]]) -> str:
    results = [(models[n], limits[n]) for models, n in zip(scans, pick, strict=True)]
    values = [value for result, _ in results for value in result.dice]
    flagged = sum(result.is_flagged(of_model) * max(len(result.dice), 1) for result, of_model in results)
    scores = f"{np.mean(values):>12.4f}{min(values):>10.4f}" if values else f"{'-':>12}{'-':>10}"
    return f"{scores}{flagged:>9}"


def read_cache(path: Path) -> dict[tuple[str, str, str, str], Result]:
    """What was done before; a line that was cut off is passed over."""
    results = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, TypeError):
            result = Result(**json.loads(line))
            results[result.weights, result.case, result.contrast, result.grid] = result
    return results


def _define_flags() -> None:
    """Not at import: tests use the functions above."""
    flags.DEFINE_multi_string("dataset", None, "folder in nnU-Net's layout, labels 1 left and 2 right", required=True)
    flags.DEFINE_integer("fold", 0, "whose validation cases are taken", lower_bound=0)
    flags.DEFINE_bool("all", False, "take every case")
    flags.DEFINE_multi_enum("contrast", list(CONTRASTS), list(CONTRASTS), "repeatable; by default all")
    flags.DEFINE_multi_enum("grid", list(GRIDS), list(GRIDS), "repeatable; by default all")
    flags.DEFINE_multi_string("model", list(NAMES), "name or folder of a model; in the order of the choice")
    flags.DEFINE_string("cache", None, "file of what is segmented already", required=True)
    flags.DEFINE_string("quality", None, "write quality.json of the last model into this folder")
    flags.DEFINE_string("output", None, "write the table to this file too", short_name="o")


def main(argv: Sequence[str]) -> int:
    """Measures case after case, and prints the table."""
    cli.no_arguments(argv)
    folders = [find_model(name) for name in FLAGS.model]
    weights = [read_config(folder)["weights_sha256"] for folder in folders]
    cases = [(case, dataset) for dataset in FLAGS.dataset for case in _cases(dataset)]
    done, ways = read_cache(Path(FLAGS.cache)), list(itertools.product(FLAGS.contrast, FLAGS.grid))
    found: dict[tuple[str, str], list[list[Result]]] = {way: [] for way in ways}
    with Path(FLAGS.cache).open("a", encoding="utf-8") as lines:
        for (case, dataset), way in tqdm(list(itertools.product(cases, ways)), unit="scan", disable=None):
            results = []
            for folder, sha256 in zip(folders, weights, strict=True):
                key = (str(sha256), case.name, *way)
                if key not in done:
                    scan, reference = load_case(case, read_labels(dataset))
                    values, measures = measure(scan, reference, folder, *way)
                    done[key] = Result(sha256, case.name, way[0], way[1], values, measures)
                    lines.write("\n" + json.dumps(dataclasses.asdict(done[key])))  # never on one that was cut off
                    lines.flush()
                results.append(done[key])
            found[way].append(results)
    if FLAGS.quality:
        good = [result for result in done.values() if result.weights == weights[-1] and result.is_good]
        told = f"{len(good)} good results of {len({result.case for result in good})} scans in other contrasts and grids"
        learnt = learn_limits(result.measures for result in good)
        if len(folders) > 1:
            learnt, told = laxer(learnt, read_limits(folders[0])), f"{told}; none is stricter than {folders[0].name}'s"
        write_limits(Path(FLAGS.quality), {n: limit for n, limit in learnt.items() if n not in NO_LIMITS}, told)
    names, limits = [folder.name for folder in folders], [read_limits(folder) for folder in folders]
    output_table(format_table(found, names, limits, [command_line(__file__)]), FLAGS.output)
    return 0


def _cases(dataset: str) -> list[CasePaths]:
    cases = find_cases(dataset)
    return cases if FLAGS.all else [case for case in cases if case.name in read_split(dataset, FLAGS.fold).val]


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
