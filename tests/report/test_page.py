"""The report's files: whole, safe, and without anything from elsewhere. tests/report/test_browser.py opens them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys

import pytest

from femur3d.errors import UsageError
from femur3d.evaluation.metrics import measure_case
from femur3d.io.images import write_volume
from femur3d.report.cohort import cohort_of
from femur3d.report.measure import measure
from femur3d.report.page import SCRIPTS, TEMPLATE, case_line, script_json, write_report
from femur3d.report.results import Result, find_results
from femur3d.report.tables import femur_rows
from tests.support.result_folders import MEASURED, ellipsoids, write_result

EVIL = "</script><script>alert(1)</script><!--"


def data_of(text: str, name: str = "report-data"):
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', text).group(1))


@pytest.fixture
def folder(tmp_path):
    write_result(tmp_path / "out", "good")
    write_result(tmp_path / "out", "missed", ellipsoids(1), notes=[EVIL])
    for name in ("good", "missed"):
        write_volume(ellipsoids(1, 2), tmp_path / "truth" / f"{name}.nii.gz")
    return tmp_path


def test_one_file_holds_everything(folder):
    results, rows, problems = measure(find_results(folder / "out", references=folder / "truth"), {})
    text = write_report(results, folder / "r.html", rows).read_text(encoding="utf-8")
    report = data_of(text)
    assert problems == []
    assert [case["name"] for case in report["cases"]] == ["good", "missed"]
    good, missed = report["cases"]
    assert good["metrics"][0]["dice"] == 1.0
    assert missed["metrics"][1]["mean_mm"] == "inf"
    assert missed["suspicion"] > good["suspicion"]
    assert [one["side"] for one in data_of(text, "case-1")["surfaces"]] == ["left", "missed"]
    assert data_of(text, "case-0")["stack"]["picture"]
    assert good["thumbnail"].startswith("data:image/webp;base64,")
    assert (report["femurs"], report["failures"], report["table"][0]["dice"]) == (4, 1, 0.75)


def test_what_was_measured_is_shown_with_its_gate_and_what_cannot_be_without_a_number(tmp_path):
    write_result(tmp_path / "out", "a", morphometry={"left": MEASURED, "right": {"error": "No head."}})
    write_result(tmp_path / "out", "b")
    write_result(tmp_path / "out", "other", morphometry={"left": {"head_radius": 3}})
    results = find_results(tmp_path / "out")
    a, b, other = data_of(write_report(results, tmp_path / "r.html").read_text(encoding="utf-8"))["cases"]
    assert (b["shape"], other["shape"]) == (None, None)
    rows = {name: texts for name, *texts in a["shape"]["rows"]}
    assert a["shape"]["sides"] == ["left", "right"]
    assert rows["head_centre"] == ["(1.0, 2.0, 3.0) ± 0.5 mm, with care", "not measurable"]
    assert rows["head_radius_mm"] == ["23.2 (22.5 to 24.0) mm, with care", "not measurable"]
    assert rows["alpha_max_deg"] == ["not measurable"] * 2
    reasons = dict(a["shape"]["reasons"])
    assert set(reasons) == {"Thick slices.", "No head."}
    assert "alpha_max_deg" in reasons["Thick slices."]
    assert reasons["No head."] == ["head_centre"]


def test_nothing_in_strings_can_end_a_script(folder):
    text = write_report(find_results(folder / "out"), folder / "r.html").read_text(encoding="utf-8")
    assert EVIL not in text
    assert "<!--" not in text
    assert data_of(text)["cases"][1]["notes"] == [EVIL]
    assert "<" not in script_json(EVIL + "\u2028")


def test_policy_allows_this_script_and_style_and_no_request(folder):
    text = write_report(find_results(folder / "out"), folder / "r.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "/images/" not in text  # no path of a scan


def test_scripts_put_text_into_the_page_as_text_only():
    code = "".join((TEMPLATE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|fetch\(|XMLHttp"
    assert not re.findall(unsafe, code)


def test_a_folder_has_a_page_and_two_files_a_case(folder):
    page = write_report(find_results(folder / "out"), folder / "report")
    assert page == folder / "report" / "index.html"
    names = sorted(path.name for path in (folder / "report" / "cases").iterdir())
    assert names == ["0.js", "0.webp", "1.js", "1.webp"]
    report = data_of(page.read_text(encoding="utf-8"))
    assert (report["folder"], report["cases"][0]["thumbnail"]) == ("cases", "cases/0.webp")
    (folder / "report" / "cases" / "note.js").write_text("")
    write_report(find_results(folder / "out")[:1], folder / "report")
    left = sorted(path.name for path in (folder / "report" / "cases").iterdir())
    assert left == ["0.js", "0.webp", "note.js"]  # no case of the earlier report
    write_report(find_results(folder / "out"), folder / "report")
    script = (folder / "report" / "cases" / "1.js").read_text(encoding="utf-8")
    content = json.loads(script.removeprefix("femur3dCase(1, ").removesuffix(");\n"))
    assert content["stack"]["shape"]


def test_a_folder_that_is_half_written_again_shows_no_case_under_the_name_of_another(folder):
    results = find_results(folder / "out")
    write_report(results, folder / "report")

    def stop(results):
        yield results[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(results[::-1], folder / "report", progress=stop)
    assert not (folder / "report" / "index.html").exists()


@pytest.mark.parametrize(
    "part", [{"model": "x"}, {"model": {"provenance": "p"}}, {"seconds": [1]}, {"notes": 3}, {"morphometry": "m"}]
)
def test_other_types_in_a_summary_are_shown_as_nothing(part):
    result = Result("a", {"files": [], "model": {"weights_sha256": "ab"}, **part}, None)
    line = case_line(result, [])
    assert (line["notes"], line["seconds"], line["shape"]) == ([], None, None)
    assert line["model"] == ("" if part.get("model") == "x" else line["model"])
    (row,) = femur_rows(result)
    assert (row["case"], row["model"], row["seconds"]) == ("a", "", "")


def test_a_report_takes_the_place_of_nothing_else(folder):
    results = find_results(folder / "out")
    (folder / "x.html").mkdir()
    (folder / "file").write_text("")
    for name in ("x.html", "file"):
        with pytest.raises(UsageError, match="Give another name"):
            write_report(results, folder / name)


def test_cohort_has_mean_sd_median_and_says_what_failed():
    rows = measure_case("a", ellipsoids(1, 2), ellipsoids(1, 2)) + measure_case("b", ellipsoids(1, 2), ellipsoids(1))
    cohort = cohort_of(rows)
    table = {(line["case"], line["label"]): line for line in cohort["table"]}
    assert (cohort["femurs"], cohort["failures"]) == (4, 1)
    assert table["Mean", "all"]["dice"] == 0.75
    assert table["Median", "all"]["dice"] == 1.0
    assert table["SD", "all"]["dice"] == pytest.approx(0.75**0.5 / 2)
    assert table["Mean", "all"]["mean_mm"] == float("inf")
    assert table["Mean", "without failures"]["mean_mm"] == pytest.approx(0, abs=1e-6)
    assert table["Mean", "femur_right"]["dice"] == 0.5
    assert cohort_of([]) == {}


def test_command_line(folder):
    def run(*arguments):
        command = [sys.executable, "-m", "femur3d.report", "-i", str(folder / "out"), *arguments]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)

    ended = run("-o", str(folder / "r.html"), "--tables", "--references", str(folder / "truth"))
    assert ended.returncode == 0, ended.stderr
    assert f"{folder / 'r.html'} (" in ended.stdout
    assert (folder / "out" / "femurs.csv").is_file()
    ended = run()
    assert ended.returncode == 2
    assert ended.stderr.startswith("Nothing to write.\nExpected")


def test_a_reference_on_another_grid_is_told_and_left_out(folder):
    write_volume(type(ellipsoids(1))(ellipsoids(1, 2).array), folder / "truth" / "good.nii.gz")
    results, rows, problems = measure(find_results(folder / "out", references=folder / "truth"), {})
    assert [result.reference is None for result in results] == [True, False]
    assert {row.case for row in rows} == {"missed"}
    assert "different grids" in str(problems[0])
