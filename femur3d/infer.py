"""Segments the femurs of hip MR scans with a trained model.

    python -m femur3d.infer -i PATH [PATH ...] -o DIR [--model MODEL] [--labels femur|sides] [--fast] [--continue] ...

PATH is a scan file (.nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd), a folder with a DICOM series, a folder of these, or a zip
of any of them. Without --model the models that come with femur3d are used: hip_t1, and hip_mr where its flags are red.
Writes DIR/CASE.nii.gz, a uint8 label map on the scan's own grid, and DIR/CASE.json; more on request. Nothing is sent
anywhere.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from femur3d import cli
from femur3d.cluster import hand_out
from femur3d.engines import selection
from femur3d.errors import EXIT_INPUT, EXIT_RED_FLAG, EXIT_SOME_FAILED, InputError
from femur3d.export import case_results, claims
from femur3d.export.batch import Finish, Steps, say, segment_all
from femur3d.export.case_files import LABEL_MAPS, SURFACES, Case, Wanted
from femur3d.export.case_results import MadeWith
from femur3d.export.femur_measures import write_femurs
from femur3d.export.output_folder import (
    cases_by_input,
    check_folder,
    check_results_replace_nothing,
    check_tables_replace_nothing,
    digest,
    report_files,
    too_long,
)
from femur3d.inference.choice import AUTO, Chooser, find_models
from femur3d.inference.mode import EXACT, FAST, Mode
from femur3d.inference.quality_limits import RED, YELLOW, Limit, read_limits
from femur3d.inference.saved_model import identity, load_model, state
from femur3d.inference.segmenter import Segmentation, Segmenter
from femur3d.io.images import ScanFile, read_scan, scan_extension
from femur3d.io.inputs import Scan, open_sources

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("input", None, "scan file, DICOM folder, folder or zip; more may follow", short_name="i")
flags.DEFINE_string("output", None, "folder for the results", short_name="o", required=True)
flags.DEFINE_string(
    "model", AUTO, "hip_t1, hip_mr, the folder of a trained model, or auto: hip_t1, hip_mr where its flags are better"
)
flags.DEFINE_enum("labels", "sides", ["sides", "femur"], "1 left and 2 right, or 1 for every femur")
flags.DEFINE_bool("fast", False, "faster, not quite the same: bfloat16, and fewer patches where no femur is near")
flags.DEFINE_enum(
    "engine", selection.AUTO, [selection.AUTO, *selection.NAMES], "what computes; auto: see docs/engines.md"
)
flags.DEFINE_float("overlap", None, "share of a patch that its neighbour covers too; by default 0.5", 0.0, 0.9)
flags.DEFINE_bool("continue", False, "skip the scans that this model has segmented with these flags already")
flags.DEFINE_string("part", "", "k/n: only the k-th of n parts of the scans, by their names, for arrays of jobs")
flags.DEFINE_string("cluster", "", "local:N, tcp://host:port or slurm.yaml: by workers of Dask, see docs/cluster.md")
flags.DEFINE_integer("series", None, "number of the series, where a DICOM folder has several")
flags.DEFINE_string("name", "", "what results of DICOM scans are called, such as '{PatientID}_{SeriesNumber}'")
flags.DEFINE_bool("follow_links", False, "follow links that lead out of a given folder, too")
flags.DEFINE_enum("format", "nii.gz", [*(e[1:] for e in LABEL_MAPS), "input"], "of the label map; input: the scan's")
flags.DEFINE_bool("probability", False, "write CASE_prob in the same format, float32, too")
flags.DEFINE_bool("preview", False, "write CASE_preview.png, slices with contours and the surface, too")
flags.DEFINE_enum("surface", None, SURFACES, "write a smooth mesh of each femur, LPS millimetres, too")
flags.DEFINE_bool("segmentation", False, "write CASE.seg.nrrd for 3D Slicer too")
flags.DEFINE_bool("dicom_seg", False, "write CASE.dcm, a DICOM segmentation, for a scan that comes as DICOM too")
flags.DEFINE_bool("rtstruct", False, "write CASE_rtstruct.dcm, DICOM contours, for a scan that comes as DICOM too")
flags.DEFINE_bool("report", False, "write report.html, a page of all results that works offline, too")
flags.DEFINE_bool("morphometry", False, "measure head, neck, alpha angle and cam: CASE.json, a picture, femurs.csv")
flags.DEFINE_bool("strict", False, "exit code 5 where a segmentation, written all the same, has a red quality flag")
flags.DEFINE_bool("verbose", False, "show TensorFlow's messages and the time of every stage")


def main(argv: Sequence[str]) -> int:
    """Parses, loads the model once, segments scan after scan."""
    paths, folder = [Path(p) for p in [*(FLAGS.input or []), *argv[1:]]], Path(FLAGS.output)
    if FLAGS.dicom_seg:
        from femur3d.export.dicom.source import require_highdicom  # here: pydicom

        require_highdicom()
    with open_sources(
        paths,
        FLAGS.series,
        leave_out=folder,
        results_in=case_results.results_in,
        follow_links=FLAGS.follow_links,
        pattern=FLAGS.name,
        say=lambda message: say(f"Note: {message}"),
    ) as all_scans:
        scans = claims.part_of(all_scans, FLAGS.part)
        if FLAGS.part:
            say(f"Part {FLAGS.part.replace('/', ' of ')}: {len(scans)} of {len(all_scans)} scans")
        if not scans:
            return 0
        cases = [Case(scan.name, scan.path, scan.series, folder) for scan in scans]
        scans = list(map(_with_name_that_fits, scans, cases))
        check_results_replace_nothing(scans, cases, [_wanted(scan) for scan in scans])
        check_tables_replace_nothing(
            cases, ["femurs.csv"] * FLAGS.morphometry + report_files(len(cases)) * FLAGS.report
        )
        check_folder(folder)
        case_results.tidy(cases)
        claims.tidy(cases)
        folders = find_models(FLAGS.model)
        run = _run(folders) if FLAGS.cluster else _load(folders)
        say(f"Model {', or '.join(one.name for one in folders)} on {run.device or FLAGS.cluster}")
        if FLAGS["continue"].value:
            done = run.done(scans, cases)
            cases = [one or case for one, case in zip(done, cases, strict=True)]
        else:
            done = [None] * len(cases)
        todo = [i for i, one in enumerate(done) if one is None]
        if len(todo) < len(scans):
            say(f"{len(scans) - len(todo)} of {len(scans)} scans are done already: skipped")
        if FLAGS.cluster and todo:
            failed, tried = hand_out.segment_all(FLAGS.cluster, sys.argv, scans, cases, todo)
        else:
            failed, tried = segment_all(run.steps(), scans, cases, todo, FLAGS.verbose)
        if FLAGS.morphometry:
            write_femurs(folder, [case.json for case in cases])
        if FLAGS.report:
            from femur3d.report.page import write_report_of  # here: pictures and surfaces, which others do not wait for

            write_report_of(cases, folder)
        return _outcome(cases, failed, tried)


def prepare(words: Sequence[str]) -> Callable[[Scan, Case], tuple[int, int]]:
    """In a worker of a cluster: what segments a scan by these words and returns how many failed and were tried."""
    for name in FLAGS:  # this worker may have served another command
        FLAGS[name].unparse()
    sys.argv = list(words)
    cli.parse(words)
    folders = find_models(FLAGS.model)
    loaded, run = list(map(state, folders)), _load(folders)

    def segment_one(scan: Scan, case: Case) -> tuple[int, int]:
        nonlocal loaded, run
        if (now := list(map(state, folders))) != loaded:  # trained anew since, or with other limits
            loaded, run = now, _load(folders)
        return segment_all(run.steps(), [scan], [case], [0], FLAGS.verbose)

    return segment_one


def _load(folders: Sequence[Path]) -> _Run:
    engine = cli.load_engine(FLAGS.engine, FLAGS.fast)
    engine.make_repeatable(training=False)
    mode = _mode()
    segmenter = Chooser(folders, lambda one: Segmenter(load_model(one), engine, mode))
    return _run(folders, segmenter, engine.device_name())


def _run(folders: Sequence[Path], segmenter: Chooser | None = None, device: str = "") -> _Run:
    return _Run(tuple(map(identity, folders)), tuple(map(read_limits, folders)), segmenter, device)


def _mode() -> Mode:
    base = FAST if FLAGS.fast else EXACT
    return base if FLAGS.overlap is None else dataclasses.replace(base, overlap=FLAGS.overlap)


def _wanted(scan: Scan) -> Wanted:
    extension = f".{FLAGS.format}"
    if FLAGS.format == "input":
        extension = next((e for e in LABEL_MAPS if e == scan_extension(scan.path)), LABEL_MAPS[0])
    return Wanted(
        FLAGS.labels, extension, FLAGS.probability, FLAGS.preview, FLAGS.surface or "", FLAGS.segmentation,
        FLAGS.dicom_seg and scan.dicom is not None, FLAGS.rtstruct and scan.dicom is not None, FLAGS.morphometry,
    )  # fmt: skip


def _with_name_that_fits(scan: Scan, case: Case) -> Scan:
    return dataclasses.replace(scan, problem=scan.problem or too_long(case, _wanted(scan)))


def _read(scan: Scan) -> ScanFile:
    if scan.problem:
        raise InputError(scan.problem)
    return read_scan(scan.dicom or scan.path, series=scan.series)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What segments every scan of this command."""

    models: tuple[dict[str, Any], ...]
    limits: tuple[dict[str, Limit], ...]  # of each model
    segmenter: Chooser | None = None  # where others segment
    device: str = ""

    def made_with(self, scan: Scan, input_sha256: str, model: dict[str, Any]) -> MadeWith:
        options = {**dataclasses.asdict(_mode()), **dataclasses.asdict(_wanted(scan))}
        return MadeWith(scan.source, input_sha256, scan.series, options, model)

    def done(self, scans: Sequence[Scan], cases: Sequence[Case]) -> list[Case | None]:
        """Where an earlier run has made the same of the same scan: under its name, or under another in the folder."""
        taken, earlier = {case.name for case in cases}, cases_by_input(cases[0].folder)
        found: list[Case | None] = []
        for scan, case in zip(scans, cases, strict=True):
            names = [case.name, *(set(earlier.get(os.path.realpath(scan.source), ())) - taken)]
            there = [one for name in names if os.path.isfile((one := dataclasses.replace(case, name=name)).json)]
            sha256 = digest(scan) if there else ""
            done = [one for one in there if self._is_done(one, scan, sha256)]
            found.append(done[0] if sha256 and done else None)
        return found

    def _is_done(self, case: Case, scan: Scan, sha256: str) -> bool:
        done = any(
            case_results.is_done(case, self.made_with(scan, sha256, model)) and case_results.is_flagged_by(case, limits)
            for model, limits in zip(self.models, self.limits, strict=True)
        )
        if len(self.models) == 1 or not done:
            return done
        summary = case_results.read_summary(case.json)  # of a choice, or of the first model, which would be kept
        if "choice" in summary:
            return case_results.is_choice_between(case, [str(model["weights_sha256"]) for model in self.models])
        return summary["model"] == self.models[0] and not case_results.has_red_flag(case)

    def steps(self) -> Steps:
        """What `segment_all` does with a scan."""
        return Steps(_read, self.segment, lambda scan, case: bool(self.done([scan], [case])[0]))

    def segment(self, scan: Scan, case: Case, reading: Future[ScanFile]) -> Finish:
        """Segments one scan; returns what writes all that is wanted and prints what was found."""
        assert self.segmenter
        start = time.perf_counter()
        file = reading.result()
        waited = time.perf_counter() - start
        with tqdm(unit="patch", leave=False, disable=not sys.stderr.isatty()) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            result = self.segmenter(file.volume, FLAGS.labels, progress)
        seconds = {"reading": waited, **result.seconds, "total": time.perf_counter() - start}
        return lambda: self._finish(scan, case, file, result, seconds)

    def _finish(self, scan: Scan, case: Case, file: ScanFile, result: Segmentation, seconds: dict[str, float]) -> None:
        for note in _notes(file):
            say(f"  Note: {note}")
        made_with = self.made_with(scan, file.sha256, result.model)
        command = shlex.join(["python", "-m", "femur3d.infer", *sys.argv[1:]])
        summary = case_results.summary_of(
            made_with, result, file.notes, device=self.device, command=command, seconds=seconds
        )
        summary = case_results.write_case(result, file, case, _wanted(scan), summary)
        _print_result(result, case.folder / summary["files"][0], summary["seconds"])
        for name, reason in summary.get("failed", {}).items():
            say(scan.with_given_paths(f"{case.folder / name}: not written. {reason}"), sys.stderr)


def _notes(read: ScanFile) -> list[str]:
    asked = [("segmentation", FLAGS.dicom_seg), ("contours", FLAGS.rtstruct)]
    lacking = [what for what, is_asked in asked if is_asked and read.dicom is None]
    return [*read.notes, *(f"no DICOM {what} for a scan that does not come as DICOM" for what in lacking)]


def _print_result(result: Segmentation, target: Path, seconds: dict[str, float]) -> None:
    volumes = ", ".join(f"{name} {ml:.1f} ml" for name, ml in result.volumes_ml.items()) or "no femur found"
    say(f"  {target}: {volumes} ({seconds['total']:.1f} s)")
    if ";" in result.choice.get("why", ""):
        say(f"  Model {result.choice['taken']} was taken: {result.choice['why']}")
    for flag in result.quality.values():
        if flag.level in (YELLOW, RED):
            say(f"  {flag.level.capitalize()} flag: {flag.sentence}")
    if FLAGS.verbose:
        say("  " + ", ".join(f"{stage} {s:.2f} s" for stage, s in seconds.items()))


def _outcome(cases: Sequence[Case], failed: int, tried: int) -> int:
    """Prints how a batch ended and returns the exit code; a scan without a femur is not one that succeeded."""
    empty = sum(map(case_results.found_no_femur, cases))
    if len(cases) > 1:
        counts = f"{tried - failed} segmented, {len(cases) - tried} skipped, {failed} failed"
        say(f"{counts}, {empty} without a femur" if empty else counts)
    if failed:
        return EXIT_INPUT if failed == len(cases) else EXIT_SOME_FAILED
    red = sum(map(case_results.has_red_flag, cases))
    if FLAGS.strict and red:
        say(f"--strict: {red} with a red flag: look at them before you use them", sys.stderr)
        return EXIT_RED_FLAG
    if empty:
        say(f"No femur was found in {empty} of {len(cases)}: check that they show a hip", sys.stderr)
    return EXIT_SOME_FAILED if empty else 0


if __name__ == "__main__":
    cli.run(main)
