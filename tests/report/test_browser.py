"""The report in a real browser, from file://, as people open it."""

from __future__ import annotations

import csv
import json
import shutil
import time

import pytest

from femur3d.io.images import write_volume
from femur3d.report.measure import measure
from femur3d.report.page import write_report
from femur3d.report.results import find_results
from tests.support.result_folders import ellipsoids, flag, write_result

pytestmark = pytest.mark.slow
webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium opens the report in a browser")

EVIL = "<img src=x onerror=window.hacked=1>"
SENTENCE = "</script><script>window.hacked=1</script> {} odd."
NAMES = ["fine", "missed", EVIL]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three results: two femurs, one that was missed and flagged red, and one whose every string is hostile."""
    folder = tmp_path_factory.mktemp("browser")
    write_result(folder / "out", "fine", ellipsoids(1, 2, grow=2.0))
    write_result(folder / "out", "missed", ellipsoids(1), quality={"side_ratio": flag("red", 0.0, "One is missing.")})
    hostile = {"side_ratio": flag("yellow", 0.5, SENTENCE)}
    write_result(folder / "out", EVIL, quality=hostile, notes=[SENTENCE], device=EVIL)
    for name in NAMES:
        write_volume(ellipsoids(1, 2), folder / "truth" / f"{name}.nii.gz")
    results, rows, _ = measure(find_results(folder / "out", references=folder / "truth"), {1: EVIL, 2: "right"})
    write_report(results, folder / "report.html", rows)
    write_report(results, folder / "report", rows)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    flags = "--headless=new --no-sandbox --disable-dev-shm-usage --use-angle=swiftshader --enable-unsafe-swiftshader"
    for argument in [*flags.split(), "--window-size=1300,900"]:
        options.add_argument(argument)
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chromium.set_script_timeout(60)
    chromium.downloads = downloads
    yield chromium
    chromium.quit()


@pytest.fixture
def page(browser, folder):
    """The report, freshly loaded, without earlier marks; afterwards the console is empty and nothing was requested."""
    browser.get("about:blank")
    browser.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "file://", "storageTypes": "local_storage"})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get((folder / "report.html").as_uri())
    yield browser
    check_quiet(browser, folder)


def check_quiet(browser, folder) -> None:
    """Nothing on the console but the driver's remarks, no request beyond the report's files, no script of others."""
    assert [entry for entry in browser.get_log("browser") if "GL Driver Message" not in entry["message"]] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert urls
    allowed = (folder.as_uri(), "data:", "blob:", "about:")
    assert [url for url in urls if not url.startswith(allowed)] == []
    assert browser.execute_script("return window.hacked") is None


def wait_for(browser, script, seconds=60):
    """The first true value of a script."""
    end = time.monotonic() + seconds
    while not (value := browser.execute_script(f"return {script}")):
        assert time.monotonic() < end, script
        time.sleep(0.1)
    return value


def names(browser):
    return [link.text for link in browser.find_elements("css selector", ".case-link")]


def press(browser, keys):
    webdriver.ActionChains(browser).send_keys(keys).perform()


def open_case(browser, name):
    next(link for link in browser.find_elements("css selector", ".case-link") if link.text == name).click()
    wait_for(browser, "document.querySelectorAll('canvas.slice').length === 3")
    wait_for(browser, "document.querySelector('.plane output').textContent !== ''")


def pixels(browser, selector):
    """What a canvas shows, once the next picture is drawn."""
    script = "const done = arguments[1]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => "
    script += "done(document.querySelector(arguments[0]).toDataURL()), 50)))"
    return browser.execute_async_script(script, selector)


def test_it_loads_within_three_seconds_and_the_most_suspicious_comes_first(page):
    page.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})  # of the processor: others may use it too
    page.refresh()
    metrics = {m["name"]: m["value"] for m in page.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
    assert metrics["TaskDuration"] < 3
    assert names(page) == ["missed", EVIL, "fine"]
    assert "One is missing." in page.find_element("css selector", "tbody tr").text


def test_table_sorts_and_filters(page):
    heading = page.find_element("css selector", "th[data-key=dice] button")
    heading.click()
    assert names(page)[0] == "missed"
    heading.click()
    assert names(page)[0] == EVIL  # its prediction is the reference
    assert page.find_element("css selector", "th[data-key=dice]").get_attribute("aria-sort") == "descending"
    press(page, "/fin")
    assert names(page) == ["fine"]
    assert page.find_element("css selector", ".counted").text == "1 of 3 cases"


def test_surface_turns_and_slices_scroll(page):
    open_case(page, "fine")
    before = pixels(page, "canvas.surface")
    canvas = page.find_element("css selector", "canvas.surface")
    webdriver.ActionChains(page).click_and_hold(canvas).move_by_offset(80, 30).release().perform()
    turned = pixels(page, "canvas.surface")
    assert turned != before
    page.find_element("css selector", ".views button").click()
    assert pixels(page, "canvas.surface") == before  # from the front again
    assert "mm" in page.find_element("css selector", ".ticks").text
    slice_before = pixels(page, ".coronal canvas")
    page.execute_script("document.querySelector('.coronal canvas').focus()")
    press(page, "\ue013\ue013")  # arrow up, twice
    assert pixels(page, ".coronal canvas") != slice_before
    assert page.find_element("css selector", ".coronal output").text.startswith("10 /")


def test_surface_of_a_prediction_that_is_too_large_is_red(page):
    open_case(page, "fine")
    pixels(page, "canvas.surface")
    script = """const c = document.querySelector('canvas.surface');
        const flat = document.createElement('canvas'); [flat.width, flat.height] = [c.width, c.height];
        const g = flat.getContext('2d'); g.drawImage(c, 0, 0);
        const p = g.getImageData(0, 0, c.width, c.height).data; let [red, blue] = [0, 0];
        for (let i = 0; i < p.length; i += 4)
            if (p[i + 3]) { red += p[i] > p[i + 2] + 30; blue += p[i + 2] > p[i] + 30; }
        return [red, blue];"""
    red, blue = page.execute_script(script)
    assert red > 2000
    assert blue < red / 20


def test_keys_lead_from_case_to_case_and_marks_are_saved_as_csv(page):
    open_case(page, "missed")
    press(page, "b")
    press(page, "j")
    wait_for(page, f"document.querySelector('h1').textContent === {json.dumps(EVIL)}")
    press(page, "g")
    page.find_element("id", "note").send_keys('=1+1, "so"')
    page.find_element("id", "save-marks").click()
    end = time.monotonic() + 60
    while not (page.downloads / "marks.csv").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    with (page.downloads / "marks.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert (rows["missed"]["mark"], rows[EVIL]["mark"], rows["fine"]["looked_at"]) == ("bad", "good", "no")
    assert rows[EVIL]["note"] == '\'=1+1, "so"'  # no formula
    page.refresh()
    assert page.find_element("id", "mark-good").get_attribute("aria-pressed") == "true"


def test_cohort_shows_charts_and_table_one(page):
    press(page, "c")
    wait_for(page, "document.querySelector('.cohort')")
    text = page.find_element("css selector", ".cohort").text
    for title in ("Volumes", "Left against right", "Flags by kind", "Bland–Altman", "Table 1", "Median"):
        assert title in text
    assert "Failures: 1 of 6 femurs" in text


def test_theme_changes(page):
    before = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    page.find_element("id", "theme").click()
    assert page.execute_script("return getComputedStyle(document.body).backgroundColor") != before


def test_a_folder_loads_its_cases_when_they_are_opened(browser, folder):
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get((folder / "report" / "index.html").as_uri())
    wait_for(browser, "[...document.images].length === 3 && [...document.images].every((i) => i.naturalWidth > 0)")
    open_case(browser, "fine")
    assert pixels(browser, "canvas.surface")
    check_quiet(browser, folder)
