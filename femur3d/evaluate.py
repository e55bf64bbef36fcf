"""Compares predicted label maps with references and writes the paper's Table 1 (section 3.4).

    python -m femur3d.evaluate --predictions out --references data/labelsTr -o evaluation [--images data/imagesTr]
        [--split val --fold 0] [--present-only] [--figures] [--report]

Files are matched by case name. A reference without prediction is a failure: its distances are inf and its Dice is 0,
and the command ends with code 4; --present-only leaves such cases out. A reference that cannot be used is told and left
out, with code 4 too. A femur that is neither in the reference nor in the prediction is not applicable: it is counted
and in no average. Writes metrics.csv, summary.json (averages over all and of each side, agreement of the volumes,
command, versions, models), table.txt, and a picture per case with --images; with --figures CASE_distance.png, the
surface coloured by its distance to the reference; with --report a page of all.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from tqdm import tqdm

import femur3d
from femur3d import cli
from femur3d.data.nnunet_dataset import read_split
from femur3d.errors import EXIT_SOME_FAILED, InputError, UsageError
from femur3d.evaluation import cases as evaluation
from femur3d.evaluation.metrics import LABEL_MODES, FemurMetrics, measure_case
from femur3d.evaluation.tables import format_table, write_report
from femur3d.export.case_results import read_summary
from femur3d.io.images import read_volume, scan_extension
from femur3d.io.read_ahead import read_ahead
from femur3d.volume import Volume

if TYPE_CHECKING:
    from femur3d.report.results import Result

FLAGS = flags.FLAGS
flags.DEFINE_string("predictions", None, "Folder of predicted label maps.", required=True)
flags.DEFINE_string("references", None, "Folder of reference label maps; ../dataset.json names labels.", required=True)
flags.DEFINE_string("output", None, "Folder to write to.", short_name="o", required=True)
flags.DEFINE_string("images", None, "Folder of the scans: writes CASE.png with the contours of both.")
flags.DEFINE_bool("figures", False, "Write CASE_distance.png too, the paper's Fig. 2; with --images beside slices.")
flags.DEFINE_bool("report", False, "Write report.html too, a page of all cases that works offline.")
flags.DEFINE_enum(
    "split",
    "all",
    ["all", "train", "val"],
    "all references, or only a part of them by ../splits_final.json beside their folder.",
)
flags.DEFINE_integer("fold", 0, "Entry of ../splits_final.json that --split takes, from 0.", lower_bound=0)
flags.DEFINE_bool(
    "present_only", False, "Leave out references without prediction instead of counting them as failures."
)
flags.DEFINE_alias("present-only", "present_only")
flags.DEFINE_enum(
    "labels",
    "auto",
    LABEL_MODES,
    "sides: compare equal label values (1 left, 2 right). femur: the prediction knows no sides; each connected "
    "component counts for the reference femur it overlaps most or is nearest to. auto: whichever the labels suggest.",
)


LIBRARIES = ("numpy", "scipy", "SimpleITK", "libigl")


def main(argv: Sequence[str]) -> int:
    """Evaluates every case, prints the table and the files written; 0, or 4 where a file of a case was no use."""
    cli.no_arguments(argv)
    output, references = Path(FLAGS.output), Path(FLAGS.references)
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: is a file.\nExpected a folder to write to for -o.")
    cases, roles = _cases(references), evaluation.roles_beside(references)
    if roles and roles.left_out:
        print(f"No femur by dataset.json, so left out: {', '.join(roles.left_out)}")
    missing = [case.name for case in cases if case.prediction is None]
    if FLAGS.present_only:
        cases = [case for case in cases if case.prediction]
    rows: list[FemurMetrics] = []
    not_compared: dict[str, InputError] = {}  # by the case's name: its reference is no use
    unusable: list[InputError] = []
    pictures: list[Path] = []
    no_pictures: list[InputError] = []

    def load(case: evaluation.Case) -> tuple[Volume, Volume, InputError | None]:
        is_own = case.prediction is not None and bool(_summary(case.prediction))
        return evaluation.load_pair(case, roles, is_own)

    loading = tqdm(read_ahead(load, cases), "evaluate", len(cases), unit="case", disable=None)
    for case, loaded in zip(cases, loading, strict=True):
        try:
            reference, prediction, problem = loaded.result()
        except InputError as error:
            not_compared[case.name] = error
            continue
        unusable += [problem] if problem else []
        rows += measure_case(case.name, reference, prediction, FLAGS.labels, evaluation.label_names(roles))
        image, problem = _load_image(case, reference)
        no_pictures += [problem] if problem else []
        pictures += _draw(case, image, reference, prediction, output)
    cases = [case for case in cases if case.name not in not_compared]
    missing = [name for name in missing if name not in not_compared]
    problems = [*not_compared.values(), *unusable]
    if problems and len(unusable) == sum(case.prediction is not None for case in cases):
        raise problems[0]
    print(format_table(rows))
    print(*write_report(rows, output, _origin(cases, missing, list(not_compared), pictures)), *pictures, sep="\n")
    if FLAGS.report:
        from femur3d.report.page import write_report as write_page  # here: pictures take a second to import

        print(write_page([_result(case) for case in cases], output / "report.html", rows))
    said = {"Not compared": list(not_compared.values()), "Counted as a failure": unusable, "No picture": no_pictures}
    return _report_failures(said, missing, [case.name for case in cases if case.image is None])


def _cases(references: Path) -> list[evaluation.Case]:
    """The cases of the part of the split that is asked for. Raises InputError, UsageError."""
    cases = evaluation.find_cases(references, Path(FLAGS.predictions), Path(FLAGS.images) if FLAGS.images else None)
    if FLAGS.split == "all":
        if FLAGS["fold"].present:
            raise UsageError(f"--fold: received {FLAGS.fold} without --split.\nExpected --split train or val with it.")
        return cases
    wanted = getattr(read_split(references.resolve().parent, FLAGS.fold), FLAGS.split)
    chosen = [case for case in cases if case.name in wanted]
    if not chosen:
        raise UsageError(f"--split {FLAGS.split}: no such case beside {references}.\nExpected a splits_final.json.")
    if FLAGS.present_only and all(case.prediction is None for case in chosen):
        raise UsageError(
            f"--split {FLAGS.split} --fold {FLAGS.fold} --present-only: no case has a prediction in "
            f"{FLAGS.predictions}.\nExpected predictions of {', '.join(case.name for case in chosen[:3])}."
        )
    print(f"Split: {FLAGS.split} of fold {FLAGS.fold}, {len(chosen)} cases")
    return chosen


def _load_image(case: evaluation.Case, reference: Volume) -> tuple[Volume | None, InputError | None]:
    """The scan of a case, None where it is not asked for; and why it is no use: then only its picture is lacking."""
    try:
        image = read_volume(case.image) if case.image else None
        if case.image and image:
            evaluation.check_geometry(case.image, image, case.reference, reference)
        return image, None
    except InputError as error:
        return None, error


def _draw(
    case: evaluation.Case, image: Volume | None, reference: Volume, prediction: Volume, output: Path
) -> list[Path]:
    pictures = []
    if image:
        pictures.append(output / f"{case.name}.png")
        from femur3d.evaluation.contour_figure import contour_figure

        contour_figure(image, reference, prediction, pictures[-1])
    if FLAGS.figures:
        pictures.append(output / f"{case.name}_distance.png")
        from femur3d.report.distance_figure import distance_figure

        distance_figure(image, reference, prediction, pictures[-1], case.name)
    return pictures


def _result(case: evaluation.Case) -> Result:
    """What a report needs to know of a case, and what the CASE.json beside its prediction says of it."""
    from femur3d.report.results import Result

    summary = _summary(case.prediction) if case.prediction else {}
    return Result(case.name, summary, case.prediction, case.image, case.reference)


def _origin(
    cases: Sequence[evaluation.Case], missing: Sequence[str], not_compared: Sequence[str], pictures: Sequence[Path]
) -> dict[str, Any]:
    """What the numbers come from, for summary.json; models as the CASE.json beside each prediction names them."""
    models = Counter(_model_hash(case.prediction) for case in cases if case.prediction)
    unknown = models.pop("", 0)
    return {
        "command": shlex.join(["python", "-m", "femur3d.evaluate", *sys.argv[1:]]),
        "versions": {
            "femur3d": femur3d.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES},
        },
        "models": [{"weights_sha256": digest, "predictions": count} for digest, count in sorted(models.items())],
        "predictions_of_unknown_model": unknown,
        "split": None if FLAGS.split == "all" else {"part": FLAGS.split, "fold": FLAGS.fold},
        "cases": [case.name for case in cases],
        "without_prediction": list(missing),
        "without_prediction_left_out": FLAGS.present_only,
        "unusable_references": list(not_compared),
        "pictures": [path.name for path in pictures],
    }


def _model_hash(prediction: Path) -> str:
    """SHA-256 of the weights that made a prediction; empty where no CASE.json says so."""
    model = _summary(prediction).get("model")
    return str(model.get("weights_sha256", "")) if isinstance(model, dict) else ""


def _summary(prediction: Path) -> dict[str, Any]:
    return read_summary(prediction.with_name(f"{prediction.name.removesuffix(scan_extension(prediction))}.json"))


def _report_failures(
    problems: Mapping[str, Collection[InputError]], missing: Sequence[str], no_image: Sequence[str]
) -> int:
    """Says on stderr what was no use, and what came of it, and what was not there; returns the exit code."""
    for outcome, errors in problems.items():
        for error in errors:
            print(f"{outcome}: {error}", file=sys.stderr)
    if missing:
        said = "Left out" if FLAGS.present_only else "Counted as failures"
        print(f"{said}, no prediction: {', '.join(missing)}", file=sys.stderr)
    if FLAGS.images and no_image:
        print(f"No picture, no image: {', '.join(no_image)}", file=sys.stderr)
    return EXIT_SOME_FAILED if any(problems.values()) or (missing and not FLAGS.present_only) else 0


if __name__ == "__main__":
    cli.run(main)
