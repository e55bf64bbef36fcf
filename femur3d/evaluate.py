"""Compares predicted label maps with references and writes the paper's Table 1.

    python -m femur3d.evaluate --predictions out --references data/labelsTr -o evaluation [--images data/imagesTr]
                               [--split val]

Files are matched by case name. A reference without prediction is a failure: its distances are inf and its Dice is 0,
and the command ends with code 4. Writes metrics.csv, summary.json, table.txt, and a picture per case with --images.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

from femur3d import cli
from femur3d.data.nnunet_dataset import read_split
from femur3d.errors import EXIT_SOME_FAILED, InputError, UsageError
from femur3d.evaluation import cases as evaluation
from femur3d.evaluation.contour_figure import contour_figure
from femur3d.evaluation.tables import FemurMetrics, format_table, write_report
from femur3d.io.images import read_volume
from femur3d.volume import Volume

FLAGS = flags.FLAGS
flags.DEFINE_string("predictions", None, "Folder of predicted label maps.", required=True)
flags.DEFINE_string("references", None, "Folder of reference label maps; ../dataset.json names labels.", required=True)
flags.DEFINE_string("output", None, "Folder to write to.", short_name="o", required=True)
flags.DEFINE_string("images", None, "Folder of the scans: writes CASE.png with the contours of both.")
flags.DEFINE_enum(
    "split",
    "all",
    ["all", "train", "val"],
    "all references, or only a part of them by ../splits_final.json beside their folder.",
)
flags.DEFINE_enum(
    "labels",
    "auto",
    evaluation.LABEL_MODES,
    "sides: compare equal label values (1 left, 2 right). femur: the prediction knows no sides; each connected "
    "component counts for the reference femur it overlaps most or is nearest to. auto: whichever the labels suggest.",
)


def main(argv: Sequence[str]) -> int:
    """Evaluates every case, prints the table and the files written; returns 0, or 4 where a prediction was no use."""
    cli.no_arguments(argv)
    output, references = Path(FLAGS.output), Path(FLAGS.references)
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output}: is a file.\nExpected a folder to write to for -o.")
    cases, names = _cases(references), evaluation.label_names(references)
    rows: list[FemurMetrics] = []
    unusable: list[InputError] = []
    for case in tqdm(cases, desc="evaluate", unit="case", disable=None):
        reference = evaluation.load_labels(case.reference)
        try:
            prediction = evaluation.load_prediction(case, reference)
        except InputError as error:
            unusable.append(error)
            prediction = evaluation.nothing(reference)
        rows += evaluation.measure_case(case.name, reference, prediction, FLAGS.labels, names)
        if case.image:
            _draw(case, reference, prediction, output)
    missing = [case.name for case in cases if case.prediction is None]
    if unusable and len(unusable) + len(missing) == len(cases):
        raise unusable[0]
    print(format_table(rows))
    print(*write_report(rows, output), sep="\n")
    return _report_failures(missing, unusable, [case.name for case in cases if case.image is None])


def _cases(references: Path) -> list[evaluation.Case]:
    """The cases of the part of the split that is asked for. Raises InputError, UsageError."""
    cases = evaluation.find_cases(references, Path(FLAGS.predictions), Path(FLAGS.images) if FLAGS.images else None)
    if FLAGS.split == "all":
        return cases
    wanted = getattr(read_split(references.resolve().parent), FLAGS.split)
    chosen = [case for case in cases if case.name in wanted]
    if not chosen:
        raise UsageError(f"--split {FLAGS.split}: no such case beside {references}.\nExpected a splits_final.json.")
    return chosen


def _draw(case: evaluation.Case, reference: Volume, prediction: Volume, output: Path) -> None:
    assert case.image is not None
    image = read_volume(case.image)
    evaluation.check_geometry(case.image, image, case.reference, reference)
    contour_figure(image, reference, prediction, output / f"{case.name}.png")


def _report_failures(missing: Sequence[str], unusable: Sequence[InputError], no_image: Sequence[str]) -> int:
    """Says on stderr which predictions counted as failures and which pictures are lacking; returns the exit code."""
    for error in unusable:
        print(f"Counted as a failure: {error}", file=sys.stderr)
    if missing:
        print(f"Counted as failures, no prediction: {', '.join(missing)}", file=sys.stderr)
    if FLAGS.images and no_image:
        print(f"No picture, no image: {', '.join(no_image)}", file=sys.stderr)
    return EXIT_SOME_FAILED if missing or unusable else 0


if __name__ == "__main__":
    cli.run(main)
