"""Makes a report of a folder of results that opens in any browser, offline: tables, slices, surfaces, the cohort.

    python -m femur3d.report -i OUT -o report.html [--references DIR] [--images DIR]
    python -m femur3d.report -i OUT -o report          # a folder, for large cohorts
    python -m femur3d.report -i OUT --tables           # OUT/femurs.csv and OUT/metrics.csv

OUT is what femur3d.infer wrote, or any folder of label maps. Nothing is segmented again. The scans are read where
CASE.json says they were, or from --images by the cases' names. With --references cases are compared as by
femur3d.evaluate, and surfaces are coloured by their distance to the reference. Nothing is sent anywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

from femur3d import cli
from femur3d.errors import EXIT_SOME_FAILED, UsageError
from femur3d.evaluation.cases import label_names, roles_beside
from femur3d.report.measure import measure
from femur3d.report.page import write_report
from femur3d.report.results import find_results
from femur3d.report.tables import write_tables

FLAGS = flags.FLAGS
flags.DEFINE_string("input", None, "folder of results, or of label maps", short_name="i", required=True)
flags.DEFINE_string("output", None, "report to write: NAME.html for one file, else a folder", short_name="o")
flags.DEFINE_string("images", None, "folder of the scans; by default where CASE.json says that they were")
flags.DEFINE_string("references", None, "folder of reference label maps, to compare with")
flags.DEFINE_bool("tables", False, "write femurs.csv and metrics.csv into the folder of results")


def main(argv: Sequence[str]) -> int:
    """Reads the results, compares them where there are references, writes; 4 where a reference was no use."""
    cli.no_arguments(argv)
    if not (FLAGS.output or FLAGS.tables):
        raise UsageError("Nothing to write.\nExpected -o report.html, -o FOLDER, or --tables.")
    folder, references = Path(FLAGS.input), Path(FLAGS.references) if FLAGS.references else None
    results = find_results(folder, Path(FLAGS.images) if FLAGS.images else None, references)
    names = label_names(roles_beside(references)) if references else {}
    results, rows, problems = measure(tqdm(results, desc="compare", unit="case", disable=None), names)
    if FLAGS.tables:
        print(*write_tables(results, rows, folder), sep="\n")
    if FLAGS.output:
        page = write_report(
            results, Path(FLAGS.output), rows, lambda all: tqdm(all, desc="report", unit="case", disable=None)
        )
        print(f"{page} ({page.stat().st_size / 1e6:.1f} MB, {len(results)} cases)")
    for problem in problems:
        print(f"Not compared: {problem}", file=sys.stderr)
    return EXIT_SOME_FAILED if problems else 0


if __name__ == "__main__":
    cli.run(main)
