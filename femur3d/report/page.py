"""The report: one HTML file that holds everything, or a folder of a page and a file a case for large cohorts.

The page is made of the files in template/, put together as they are. Its content security policy names the checksums of
its style and its script, so that nothing else runs in it, and allows no request. What comes from files (names of cases,
notes, sentences) is JSON with every `<` written as an escape, and the script shows it as text only.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import femur3d
from femur3d.errors import InputError, UsageError
from femur3d.evaluation.cases import empty_labels, split_femurs, without_ignored
from femur3d.evaluation.metrics import METRICS, FemurMetrics
from femur3d.export.batch import say
from femur3d.export.case_files import Case
from femur3d.export.case_results import read_summary
from femur3d.export.femur_measures import columns_of, in_words
from femur3d.export.output_folder import CASES_IN_ONE_REPORT, report_case_files
from femur3d.io.atomic import replacing
from femur3d.io.integrity import part, valid_json
from femur3d.report.cohort import cohort_of
from femur3d.report.results import Result, femur_masks, result_of
from femur3d.report.slices import packed_stack, stack_of, thumbnail
from femur3d.report.surfaces import packed_surfaces, surfaces_of
from femur3d.report.tables import side_of

TEMPLATE = Path(__file__).with_name("template")
SCRIPTS = ("page.js", "charts.js", "slices.js", "surface.js", "marks.js", "table.js", "app.js")
INDEX, CASES = "index.html", "cases"  # of the folder form
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}

Content = dict[str, Any]  # of a case page


def write_report_of(cases: Iterable[Case], folder: Path) -> None:
    """Writes report.html, or for many cases the folder report/, of those that have results; says where it is."""
    found = [(case, read_summary(case.json)) for case in cases]
    results = [result_of(case.folder, case.name, summary, case.path) for case, summary in found if summary]
    if results:
        say(str(write_report(results, folder / ("report.html" if len(results) <= CASES_IN_ONE_REPORT else "report"))))


def write_report(
    results: Sequence[Result],
    path: Path,
    rows: Iterable[FemurMetrics] = (),
    progress: Callable[[Sequence[Result]], Iterable[Result]] = iter,
) -> Path:
    """Writes the report and returns the file to open.

    Args:
        results: at least one case.
        path: ends with .html for one file that holds everything; else the folder for index.html and cases/.
        rows: metrics of the cases that have a reference.
        progress: goes through the cases, to show how far it is.

    Raises:
        UsageError: the path is a folder where a file is meant, or the other way round.
        InputError: there is no case.
    """
    if not results:
        raise InputError("No case to report.\nExpected a folder of results of femur3d.infer.")
    single = path.suffix.lower() in (".html", ".htm")
    if (single and path.is_dir()) or (not single and path.exists() and not path.is_dir()):
        raise UsageError(f"{path}: exists and is {'a folder' if single else 'a file'}.\nGive another name for -o.")
    page = path if single else path / INDEX
    if not single:
        page.unlink(missing_ok=True)  # it would show the new pictures of one case under the name of another
    metrics = list(rows)
    cases, blocks = [], []
    for index, result in enumerate(progress(results)):
        picture, content = case_content(result)
        cases.append(case_line(result, [row for row in metrics if row.case == result.name]))
        if single:
            blocks.append(_block(f"case-{index}", content))
            source = f"data:image/webp;base64,{base64.b64encode(picture).decode()}"
        else:
            source = _write_case(path / CASES, index, picture, content)
        cases[-1]["thumbnail"] = source if picture else None
    report = {
        "id": hashlib.sha256("\n".join(result.name for result in results).encode("utf-8", "replace")).hexdigest()[:16],
        "version": femur3d.__version__,
        "created": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        "folder": None if single else CASES,
        "cases": cases,
        **cohort_of(metrics),
    }
    if not single:
        _remove_others(path / CASES, len(results))
    with replacing(page) as temporary:
        temporary.write_text(_page([_block("report-data", report), *blocks], single), encoding="utf-8")
    return page


def case_line(result: Result, rows: Sequence[FemurMetrics]) -> Content:
    """What the table and the cohort need to know of a case. Neither paths nor headers of the scan are in it."""
    model, notes = part(result.summary, "model"), result.summary.get("notes")
    name, digest = part(model, "provenance").get("experiment", ""), str(model.get("weights_sha256", ""))
    return {
        "name": result.name,
        "volumes": result.volumes_ml or {row_side(row): row.prediction_ml for row in rows if row.prediction_ml},
        "level": result.level,
        "suspicion": result.suspicion + 100 * any(row.failed for row in rows),
        "flags": result.flags,
        "metrics": [
            {"label": row.label, "side": row_side(row), **{metric: getattr(row, metric) for metric in METRICS}}
            for row in rows
        ],
        "shape": _shape(result),
        "notes": [str(note) for note in notes] if isinstance(notes, list) else [],
        "model": f"{name} ({digest[:12]})" if digest else "",
        "device": str(result.summary.get("device") or ""),
        "seconds": part(result.summary, "seconds").get("total"),
    }


def _shape(result: Result) -> Content | None:
    """What was measured by --morphometry, in words; None where it was not."""
    found = columns_of(result.summary)
    try:
        return in_words(found) if found else None
    except (AttributeError, KeyError, TypeError, ValueError):  # written by another version
        return None


def row_side(row: FemurMetrics) -> str:
    """'left', 'right', or 'femur' for a label that does not say."""
    side = side_of(row.label)
    return side if side in ("left", "right") else "femur"


def case_content(result: Result) -> tuple[bytes, Content]:
    """The thumbnail of a case and what its page shows; b"" and nothing where there is no label map.

    Raises:
        InputError: the reference cannot be read.
    """
    labels, reference = result.read_labels(), result.read_reference()
    if reference is not None:
        if labels is None or labels.geometry_difference(reference):  # a failure: the reference shows what is missing
            labels = empty_labels(reference)
        reference, labels = without_ignored(reference, labels)
    if labels is None:
        return b"", {"stack": None, "surfaces": []}
    meaning = result.labels
    if reference is not None and reference.array.max() > 1 >= labels.array.max():  # the prediction knows no sides
        labels, meaning = split_femurs(reference, labels), "sides"
    stack = stack_of(result.read_scan(labels), labels, reference)
    truth = None if reference is None else femur_masks(reference, "")
    surfaces = surfaces_of(labels, femur_masks(labels, meaning), truth)
    return thumbnail(stack), {"stack": packed_stack(stack), "surfaces": packed_surfaces(surfaces)}


def _write_case(folder: Path, index: int, picture: bytes, content: Content) -> str:
    """Writes the script and the thumbnail of a case; returns the thumbnail's place in the report's folder."""
    with replacing(folder / f"{index}.js") as temporary:
        temporary.write_text(f"femur3dCase({index}, {script_json(content)});\n", encoding="utf-8")
    if picture:
        with replacing(folder / f"{index}.webp") as temporary:
            temporary.write_bytes(picture)
    return f"{folder.name}/{index}.webp"


def _remove_others(folder: Path, count: int) -> None:
    """Removes the cases of an earlier report that had more than `count`."""
    for file in report_case_files(folder):
        if int(file.stem) >= count:
            file.unlink()


def script_json(value: Any) -> str:
    """JSON that may stand in a script element whatever its strings hold: none can end it or begin another one."""
    return json.dumps(valid_json(value), allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def _block(name: str, value: Mapping[str, Any]) -> str:
    return f'<script type="application/json" id="{name}">{script_json(value)}</script>'


def _page(blocks: Sequence[str], single: bool) -> str:
    script = "\n".join((TEMPLATE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}}})();\n'
    style = (TEMPLATE / "report.css").read_text(encoding="utf-8")
    # The script may add those of the cases, and show the pictures beside them.
    scripts, pictures = ("", "") if single else (" 'strict-dynamic'", " file: 'self'")
    policy = [
        "default-src 'none'", f"script-src 'sha256-{_digest(script)}'{scripts}", f"style-src 'sha256-{_digest(style)}'",
        f"img-src data: blob:{pictures}", "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip
    template = string.Template((TEMPLATE / "report.html").read_text(encoding="utf-8"))
    parts = {"csp": "; ".join(policy), "style": style, "data": "\n".join(blocks), "script": script}
    return template.substitute(parts)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
