"""The paper's tables with our rows, worked out by hand, and the published rows."""

import json
from pathlib import Path

import pytest

from experiments.studies import paper_tables
from experiments.studies.paper_tables import read_published, table_1, table_2
from femur3d.errors import InputError
from tests.support.ablation_runs import MISSED, cells, femur, make_run, three_runs

PUBLISHED = Path(__file__).parents[2] / paper_tables.PUBLISHED
OVERLAP = ("dice", "jaccard", "precision", "recall")


@pytest.fixture
def runs():
    return three_runs()


def test_first_table_by_hand(runs):
    lines = table_1(runs, {"Pat01": {"mean_mm": 0.25, "dice": 0.9712}, "average": {"hausdorff_mm": 12.5}})
    assert cells(lines, "Pat01, published") == ["0.250", "0.9712"]
    assert cells(lines, "average, published") == ["12.50"]
    begin = lines.index("scratch, seed 1")
    assert cells(lines[begin:], "  a left") == ["0.400", "0.300", "2.00", "0.9600", "0.9200", "1.0000", "0.9400"]
    assert cells(lines[begin:], "  a right") == ["inf", "inf", "inf", "0.0000", "0.0000", "0.0000", "0.0000"]
    assert cells(lines[begin:], "  average") == ["inf", "inf", "inf", "0.4800", "0.4600", "0.5000", "0.4700", "1"]
    assert [line for line in lines if "seed" in line] == [
        "transfer (surrogate), seed 0", "scratch, seed 0", "scratch, seed 1",
    ]  # fmt: skip


def test_table_by_hand(runs):
    lines = table_2(runs, {})
    headings = ["Mean", "STD", "Hausdorff", "DICE", "Jaccard", "Precision", "Recall", "failures"]
    assert lines[0].split() == headings
    one = ["0.400", "0.300", "2.00", "0.9600", "0.9200", "1.0000", "0.9400", "0"]
    assert cells(lines, "transfer (surrogate), seed 0") == one
    assert cells(lines, "transfer (surrogate), mean") == one
    assert cells(lines, "scratch, seed 0") == ["1.500", "0.375", "6.00", "0.8500", "0.7000", "0.8500", "0.8750", "0"]
    assert cells(lines, "scratch, seed 1") == ["inf", "inf", "inf", "0.4800", "0.4600", "0.5000", "0.4700", "1"]
    assert cells(lines, "scratch, mean") == ["inf", "inf", "inf", "0.6650", "0.5800", "0.6750", "0.6725", "1"]
    rows = [line for line in lines if line.startswith(("transfer", "scratch"))]
    assert {len(line) for line in rows} == {len(lines[0])}  # columns stand below their headings


def test_mean_of_an_arm_is_that_of_its_seeds():
    seeds = [(femur(dice=0.5), femur(**MISSED)), (femur(dice=0.6), femur(dice=0.6)), (femur(**MISSED),) * 2]
    both = (("a", "left"), ("b", "left"))
    runs = [
        make_run("no_deep_supervision", seed, dict(zip(both, found, strict=True))) for seed, found in enumerate(seeds)
    ]
    found = cells(table_2(runs, {}), "no deep supervision, mean")
    assert found == ["inf", "inf", "inf", "0.2833", "0.0000", "0.0000", "0.0000", "3"]  # (0.25 + 0.6 + 0) / 3


def test_published_rows_stand_beside_ours(runs):
    published = {"transfer": {"mean_mm": 0.25, "dice": 0.9712}, "scratch": {"hausdorff_mm": 12.5}}
    lines = table_2(runs, published)
    assert cells(lines, "transfer, published") == ["0.250", "0.9712"]
    assert cells(lines, "scratch, published") == ["12.50"]
    row = next(line for line in lines if line.startswith("transfer, published"))
    for heading, number in (("Mean", "0.250"), ("DICE", "0.9712")):
        assert lines[0].index(heading) + len(heading) == row.index(number) + len(number)
    assert not [line for line in lines if "left out" in line]
    ours = [line for line in lines if "seed" in line or "mean" in line]
    assert ours == [line for line in table_2(runs, {}) if "seed" in line or "mean" in line]


def test_table_says_that_published_rows_are_lacking(runs):
    lines = table_2(runs, {})
    assert len([line for line in lines if "left out" in line and "--published" in line]) == 1
    assert not [line for line in lines if ", published" in line]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"transfer": {"mean_mm": 0.2, "dice": 1}}', {"transfer": {"mean_mm": 0.2, "dice": 1.0}}),
        (
            '{"scratch": {"recall": 0.5}, "no_deep_supervision": {"std_mm": 2}}',
            {"scratch": {"recall": 0.5}, "no_deep_supervision": {"std_mm": 2}},
        ),
    ],
)
def test_published_file_is_read(tmp_path, text, expected):
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    assert read_published(str(tmp_path / "rows.json")) == ({}, expected)
    assert read_published(None) == read_published("") == ({}, {})


def test_the_papers_rows_are_those_of_table_2():
    _, published = read_published(str(PUBLISHED))
    assert list(published) == ["scratch", "transfer"]  # in the paper's order
    scratch, transfer = (published[arm] for arm in published)
    assert [scratch[m] for m in ("mean_mm", "hausdorff_mm", "dice", "recall")] == [0.67, 12.4, 0.975, 0.964]
    assert [transfer[m] for m in ("mean_mm", "hausdorff_mm", "dice", "recall")] == [0.22, 6.4, 0.987, 0.982]


@pytest.mark.parametrize(("metric", "decimals"), [("mean_mm", 2), ("hausdorff_mm", 1), *((m, 3) for m in OVERLAP)])
def test_the_papers_averages_are_those_of_its_patients(metric, decimals):
    """Table 1: a typing mistake in a patient's row would show here; rounding leaves half of the last place."""
    rows = json.loads(PUBLISHED.read_text(encoding="utf-8"))["table_1"]
    average = rows.pop("average")[metric]
    assert len(rows) == 10
    mean = sum(row[metric] for row in rows.values()) / len(rows)
    assert abs(mean - average) <= 0.5001 * 10**-decimals


@pytest.mark.parametrize(
    "content",
    [
        None,
        b'{"transfer": {"dice": 0.9',
        b"\xff\xfe",
        b"[1, 2]",
        b'{"transfer": 3}',
        b'{"transfer": null}',
        b'{"transfer": {"dice": "good"}}',
        b'{"transfer": {"dice": null}}',
        b'{"transfer": {"dice": [0.9]}}',
    ],
)
def test_published_file_that_is_no_use_is_two_lines(tmp_path, content):
    path = tmp_path / "rows.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"rows\.json: ") as caught:
        read_published(str(path))
    assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize("text", ['{"transfer": [0.9]}', '{"transfer": {"DICE": 0.9}}'])
def test_published_row_without_a_known_metric_is_refused(tmp_path, text):
    """It would be shown as a row of blanks."""
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="Expected"):
        read_published(str(tmp_path / "rows.json"))
