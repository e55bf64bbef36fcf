"""What an ablation says, worked out by hand: means by case, paired differences, the table, the curves."""

import csv
import dataclasses
import io
import math
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

import femur3d
from experiments.studies import ablation_report
from experiments.studies.paper_tables import table_1, table_2
from femur3d.errors import InputError
from tests.support.ablation_runs import LABELS, MISSED, SOURCE, cells, femur, make_run, three_runs

CURVE = 500  # pixels


@pytest.fixture
def runs():
    return three_runs()


def by_dice(arm, seed, **dice):
    """A run with one femur a case."""
    return make_run(arm, seed, {(case, "left"): femur(dice=value) for case, value in dice.items()})


def comparison(*differences):
    """Compares two arms that differ by just these numbers in cases 0, 1, …"""
    return ablation_report.compare(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))


# Means and paired differences


def test_femurs_and_seeds_of_a_case_are_averaged_first():
    def three(left, right, other):
        return {("b", "left"): femur(dice=other), ("a", "left"): femur(dice=left), ("a", "right"): femur(dice=right)}

    runs = [
        make_run("scratch", 0, three(0.8, 0.6, 0.9)),
        make_run("scratch", 1, three(0.4, 0.2, 0.7)),
        make_run("no_deep_supervision", 0, three(0.1, 0.1, 0.1)),
    ]
    found = ablation_report.by_case(runs, "scratch", "dice")
    assert found == pytest.approx({"a": 0.5, "b": 0.8})  # (0.8 + 0.6 + 0.4 + 0.2) / 4, (0.9 + 0.7) / 2
    assert list(found) == ["a", "b"]
    assert ablation_report.by_case(runs, "no_deep_supervision", "dice") == pytest.approx({"a": 0.1, "b": 0.1})
    assert ablation_report.by_case(runs, "transfer", "dice") == {}


def test_difference_is_the_first_arm_minus_the_second_by_case():
    found = ablation_report.compare({"x": 0.9, "y": 0.5}, {"y": 0.75, "x": 0.5})
    assert found.differences == pytest.approx({"x": 0.4, "y": -0.25})
    assert found.mean == pytest.approx(0.075)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ((0.01, 0.02, 0.03, 0.04), 2 / 16),  # of 16 patterns of signs the two extreme ones
        ((-0.01, -0.02, -0.03, -0.04), 2 / 16),
        ((1, 1, 1, 1), 2 / 16),
        ((1, 2, 3, -4), 14 / 16),  # rank sum 4: 7 subsets of the ranks 1 to 4 sum to at most 4
        ((0, 1, 2, 3), 2 / 8),  # a case that does not differ is left out
        ((1, 2, 3, 4, 5, 6), 2 / 64),
        ((0, 0, 0, 0), 1),
        ((3,), 1),
    ],
)
def test_wilcoxon_by_hand(differences, p):
    assert comparison(*differences).p == pytest.approx(p)


@pytest.mark.parametrize(
    ("differences", "low", "high"),
    [
        ((0, 1), 0, 1),  # the mean of two draws is 0, 1/2 or 1 in a quarter, a half, a quarter of the resamples
        ((1, 0, 0, 0), 0, 0.75),  # at most 2 of 4 draws in 94.9%, at most 3 in 99.6%
        ((0, 0, 0), 0, 0),
        ((0.25,), 0.25, 0.25),
    ],
)
def test_interval_by_hand(differences, low, high):
    found = comparison(*differences)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.mean == pytest.approx(np.mean(differences))


@pytest.mark.parametrize("seed", range(4))
def test_interval_holds_the_mean_and_is_the_same_at_every_call(seed):
    differences = np.random.default_rng(seed).normal(size=4 + seed)
    found = comparison(*differences)
    assert min(differences) <= found.low < found.mean < found.high <= max(differences)
    assert comparison(*differences) == found


@pytest.mark.parametrize(("a", "b"), [(math.inf, 1.0), (1.0, math.inf), (math.inf, math.inf)])
def test_infinite_distance_cannot_be_compared(a, b):
    assert ablation_report.compare({"x": 1.0, "y": a}, {"x": 2.0, "y": b}) is None


def test_comparison_lines_by_hand():
    runs = [
        by_dice("transfer", 0, a=0.9, b=0.8),
        by_dice("transfer", 1, a=0.7, b=0.8),
        by_dice("scratch", 0, a=0.5, b=0.7),
        by_dice("no_deep_supervision", 0, a=0.5, b=0.7),
    ]
    lines = ablation_report.comparison_lines(runs)
    first = next(i for i, line in enumerate(lines) if line.startswith("  dice") and "(surrogate) - scratch:" in line)
    assert lines[first].endswith(": +0.2000 [+0.1000, +0.3000], p = 0.500")
    assert lines[first + 1].split(", ") == ["           a +0.3000", "b +0.1000"]
    (second,) = [line for line in lines if line.startswith("  dice") and "scratch - no deep supervision:" in line]
    assert second.endswith(": +0.0000 [+0.0000, +0.0000], p = 1.000")
    assert sum(line.startswith("  mean_mm") for line in lines) == 2


def test_every_case_counts_the_same_however_many_femurs_it_has():
    both = {("a", "left"): femur(dice=0.9), ("a", "right"): femur(dice=0.7), ("b", "left"): femur(dice=0.4)}
    runs = [make_run("scratch", 0, both), make_run("no_deep_supervision", 0, {key: femur() for key in both})]
    (line,) = [line for line in ablation_report.comparison_lines(runs) if line.startswith("  dice")]
    assert ": +0.6000 [" in line  # (0.8 + 0.4) / 2, not (0.9 + 0.7 + 0.4) / 3


def test_missed_femur_is_said_in_the_comparison():
    good, missed = femur(mean_mm=1.0, dice=0.9), femur(**MISSED)
    runs = [
        make_run("scratch", 0, {("a", "left"): missed, ("b", "left"): good}),
        make_run("no_deep_supervision", 0, {("a", "left"): good, ("b", "left"): good}),
    ]
    lines = ablation_report.comparison_lines(runs)
    (distance,) = [line for line in lines if line.startswith("  mean_mm")]
    assert "scratch - no deep supervision" in distance
    assert "not finite" in distance
    assert "missed" in distance
    (dice,) = [line for line in lines if line.startswith("  dice")]
    assert ": -0.4500 [-0.9000, +0.0000], p = 1.000" in dice


@pytest.mark.parametrize("cases", [1, 2, 4, 5])
def test_smallest_p_is_said(cases):
    dice = {f"case_{i}": i / 10 for i in range(cases)}
    last = ablation_report.comparison_lines([by_dice("scratch", 0, **dice), by_dice("no_deep_supervision", 0, **dice)])[
        -1
    ]
    count, smallest = re.search(r"with cases: (\d+), is ([\d.]+)\.$", last).groups()
    assert int(count) == cases
    assert float(smallest) == pytest.approx(2 / 2**cases, rel=0.05)  # rounded


def test_arms_that_are_not_there_are_not_compared():
    lines = ablation_report.comparison_lines([by_dice("scratch", 0, a=0.5), by_dice("no_deep_supervision", 0, a=0.5)])
    assert not [line for line in lines if "transfer" in line]
    assert ablation_report.comparison_lines([by_dice("scratch", 0, a=0.5)]) == []


# What belongs together


def test_runs_of_one_ablation_belong_together(runs):
    assert ablation_report.check_runs(runs) is None


@pytest.mark.parametrize(
    ("number", "change", "found"),
    [
        (1, {"setting": "hips: 3 cases; filters"}, "settings"),
        (1, {"femurs": {("a", "left"): {"mean_mm": 1.0, "dice": 0.9}}}, "weighting of surface distances"),
        (2, {"femurs": {("a", "left"): femur()}}, "validation femurs"),
        (0, {"source": {**SOURCE, "source_sha256": "cd" * 32}}, "encoder weights"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(runs, tmp_path, number, change, found):
    both = [*runs, make_run("transfer", 1, runs[0].femurs)]
    both[number] = dataclasses.replace(both[number], **change)
    with pytest.raises(InputError, match=f"differ in their {found}") as caught:
        ablation_report.write_reports(both, tmp_path / "report", ["command", "data"])
    assert str(caught.value).count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# Files


def test_csv_of_all_femurs_comes_back(runs):
    rows = list(csv.DictReader(io.StringIO(ablation_report.femurs_csv(runs))))
    expected = [(run, key, values) for run in runs for key, values in run.femurs.items()]
    assert len(rows) == len(expected) == 6
    for row, (run, (case, label), values) in zip(rows, expected, strict=True):
        assert (row.pop("arm"), row.pop("seed"), row.pop("case"), row.pop("label")) == (
            run.label, str(run.seed), case, label,
        )  # fmt: skip
        assert {metric: float(text) for metric, text in row.items()} == values


def drawn(monkeypatch, runs, path):
    """Draws and returns the figure, whose lines can be asked for their numbers."""
    made = []

    def figure(**words):
        made.append(Figure(**words))
        return made[-1]

    monkeypatch.setattr(ablation_report, "Figure", figure)
    ablation_report.draw_curves(runs, path)
    return made[0]


def numbers(axes, thick):
    """(x, y) of the thick lines or of the thin ones."""
    return [np.transpose(line.get_data()).tolist() for line in axes.lines if (line.get_linewidth() > 1) == thick]


def count_pixels(path, arm):
    """Pixels of an arm's colour; a key of the legend has fewer than CURVE."""
    return int((np.abs(imread(path)[..., :3] - to_rgb(ablation_report.COLOURS[arm])).max(axis=-1) < 0.02).sum())


def test_curves_of_all_arms(monkeypatch, tmp_path):
    runs = []
    for arm, height in zip(LABELS, (1, 2, 3), strict=True):  # so that no curve hides another one
        curve = {1: {"ce_upper": 0.8 * height}, 2: {"ce_upper": 0.4 * height, "validation_dice": 0.1 * height}}
        curve[3] = {"validation_dice": 0.2 * height}
        runs += [make_run(arm, seed, {("a", "left"): femur()}, curve) for seed in (0, 1)]
    figure = drawn(monkeypatch, runs, tmp_path / "curves.png")
    entropy, dice = figure.axes
    assert [len(numbers(axes, thick)) for axes in (entropy, dice) for thick in (True, False)] == [3, 6, 3, 6]
    np.testing.assert_allclose(numbers(entropy, True), [[(1, 0.8 * h), (2, 0.4 * h)] for h in (1, 2, 3)])
    np.testing.assert_allclose(numbers(dice, True), [[(2, 0.1 * h), (3, 0.2 * h)] for h in (1, 2, 3)])
    for arm in LABELS:
        assert count_pixels(tmp_path / "curves.png", arm) > CURVE
    legend = [text.get_text() for text in dice.get_legend().get_texts()]
    assert legend == [f"{label}, mean of 2" for label in LABELS.values()]
    assert "surrogate" in legend[0]


def test_one_seed_has_its_own_curve_as_mean(monkeypatch, tmp_path):
    curve = {10: {"ce_upper": 1.0, "validation_dice": 0.25}, 20: {"ce_upper": 0.5, "validation_dice": 0.75}}
    runs = [make_run("scratch", 0, {("a", "left"): femur()}, curve)]
    entropy, dice = drawn(monkeypatch, runs, tmp_path / "curves.png").axes
    assert numbers(entropy, True) == numbers(entropy, False) == [[[10, 1.0], [20, 0.5]]]
    assert numbers(dice, True) == numbers(dice, False) == [[[10, 0.25], [20, 0.75]]]
    assert count_pixels(tmp_path / "curves.png", "scratch") > CURVE
    assert (
        count_pixels(tmp_path / "curves.png", "transfer")
        == count_pixels(tmp_path / "curves.png", "no_deep_supervision")
        == 0
    )


def test_mean_curve_has_the_steps_that_all_seeds_have(monkeypatch, tmp_path):
    heights = [{10: 1.0, 20: 0.5, 30: 0.25}, {10: 3.0, 20: 1.5}]
    curves = [{s: {"ce_upper": v, "validation_dice": v / 4} for s, v in of_seed.items()} for of_seed in heights]
    runs = [make_run("no_deep_supervision", seed, {("a", "left"): femur()}, curve) for seed, curve in enumerate(curves)]
    entropy, dice = drawn(monkeypatch, runs, tmp_path / "curves.png").axes
    assert numbers(entropy, True) == [[[10, 2.0], [20, 1.0]]]
    assert numbers(entropy, False) == [[[10, 1.0], [20, 0.5], [30, 0.25]], [[10, 3.0], [20, 1.5]]]
    assert numbers(dice, True) == [[[10, 0.5], [20, 0.25]]]
    assert count_pixels(tmp_path / "curves.png", "no_deep_supervision") > CURVE


def test_reports_are_written(runs, tmp_path, capsys):
    folder = tmp_path / "report"
    paths = ablation_report.write_reports(
        runs, folder, ["$ python -m experiments.studies.run_ablation --seeds 2", "phantom (synthetic)"]
    )
    assert [path.name for path in paths] == ["table.txt", "table_1.txt", "femurs.csv", "curves.csv", "curves.png"]
    assert sorted(folder.iterdir()) == sorted(paths)
    text = paths[0].read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    lines = text.splitlines()
    assert lines[0] == "$ python -m experiments.studies.run_ablation --seeds 2"
    assert lines[1] == "phantom (synthetic)"
    assert lines[2] == f"femur3d {femur3d.__version__}; hips: 2 cases; filters"
    assert lines[3] == f"transfer (surrogate): surrogate_weights, SHA-256 {'ab' * 32}"
    for line in (*table_2(runs, {}), *ablation_report.comparison_lines(runs)):
        assert line in lines
    first = paths[1].read_text(encoding="utf-8").splitlines()
    assert first[:5] == lines[:5]
    assert first[5:] == table_1(runs, {})
    assert paths[2].read_text(encoding="utf-8") == ablation_report.femurs_csv(runs)
    assert paths[3].read_text(encoding="utf-8") == ablation_report.curves_csv(runs)
    assert count_pixels(paths[4], "scratch") > 0


def test_curves_are_thinned_to_means_by_hand():
    curve = {n: {"ce_upper": float(n)} for n in range(1, 8)}
    curve[4]["validation_dice"] = 0.5
    curve[7]["validation_dice"] = 0.75
    runs = [
        make_run("scratch", 3, {("a", "left"): femur()}, curve),
        make_run("transfer", 0, {}, {2: {"ce_upper": 2.5}}),
    ]
    assert ablation_report.curves_csv(runs, rows=3).splitlines() == [
        "arm,seed,step,ce_upper,validation_dice",
        "scratch,3,3,2,",
        "scratch,3,6,5,0.5",
        "scratch,3,7,7,0.75",
        "transfer (surrogate),0,2,2.5,",
    ]


def test_reports_show_the_published_rows(runs, tmp_path):
    (tmp_path / "rows.json").write_text(
        '{"table_1": {"Pat01": {"dice": 0.9875}}, "table_2": {"transfer": {"dice": 0.9712}}}'
    )
    paths = ablation_report.write_reports(runs, tmp_path / "report", ["command", "data"], str(tmp_path / "rows.json"))
    lines = paths[0].read_text(encoding="utf-8").splitlines()
    assert cells(lines, "transfer, published") == ["0.9712"]
    assert cells(lines, "scratch, mean")[3] == "0.6650"
    assert cells(paths[1].read_text(encoding="utf-8").splitlines(), "Pat01, published") == ["0.9875"]
