"""What the tool makes of results: Dice of corrupted scans, ROC areas, held-out limits, the cache, and one whole run."""

import dataclasses
import json
import types

import numpy as np
import pytest

from experiments.studies import learn_quality
from femur3d.engines.backend import ENGINE
from femur3d.errors import InputError, UsageError
from femur3d.inference.quality_limits import Limit, read_limits
from femur3d.inference.saved_model import load_model, save_model
from femur3d.inference.segmenter import Segmenter
from femur3d.io.images import write_volume
from tests.support.ellipsoids import ellipsoid_case, write_dataset
from tests.support.networks import PREPROCESSING, threshold_network

Result = learn_quality.Result


def result(fold, dice, kind="noise", **measures):
    return Result("sha", fold, f"{fold}_{dice}", kind, 0.1, dice, measures)


def scan_and_label():
    """As large as life, and with 50 mm above the femurs."""
    above = ((0, 10), (0, 0), (0, 0))
    return tuple(
        dataclasses.replace(v, array=np.pad(v.array, above, mode="edge"), spacing_mm=(5.0, 5.0, 5.0))
        for v in ellipsoid_case()
    )


@pytest.mark.parametrize(
    ("good", "bad", "area"),
    [([1, 2], [3, 4], 1.0), ([3, 4], [1, 2], 0.0), ([1, 3], [2, 4], 0.75), ([1, 1], [1], 0.5), ([1, 2], [2], 0.75)],
)
def test_roc_area(good, bad, area):
    assert learn_quality.roc_area(good, bad) == area


def test_roc_area_of_nothing_is_none():
    assert np.isnan(learn_quality.roc_area([], [1.0]))


def test_smallest_dice():
    _, label = scan_and_label()
    assert learn_quality.smallest_dice(label, label) == 1
    assert learn_quality.smallest_dice(label, label.with_array(3 - label.array * (label.array > 0))) < 1
    swapped = label.with_array(np.choose(label.array, [0, 2, 1]).astype(np.uint8))
    assert learn_quality.smallest_dice(label, swapped) == 1  # sides aside
    one = label.with_array(label.array * (label.array == 1))
    assert learn_quality.smallest_dice(label, one) == 0
    nothing = label.with_array(0 * label.array)
    assert learn_quality.smallest_dice(nothing, one) == 0
    assert learn_quality.smallest_dice(nothing, nothing) is None


def test_plan_has_every_kind_and_patients_take_the_strengths_in_turn():
    plans = [list(learn_quality.plan(patient, 1)) for patient in range(4)]
    assert all(len(plan) == 8 for plan in plans)
    for kind, strengths in learn_quality.STRENGTHS.items():
        assert {strength for plan in plans for other, strength in plan if other == kind} == set(strengths)
    assert set(plans[0]) < set(learn_quality.plan(0, 2))
    assert len(list(learn_quality.plan(0, 4))) == 3 + 4 * 5


def test_specks_of_the_reference_are_no_femurs():
    _, label = scan_and_label()
    speckled = label.with_array(label.array.copy())
    speckled.array[-1, 0, 0] = 2
    np.testing.assert_array_equal(learn_quality.without_specks(speckled).array, label.array)
    top = int(np.argwhere(label.array)[:, 0].max())
    assert learn_quality._above_femurs_mm(label) == pytest.approx(5.0 * (label.array.shape[0] - 1 - top))
    assert learn_quality._above_femurs_mm(speckled) == 0


def test_corrupted_scans_are_compared_with_what_there_is_to_find(threshold_model):
    segmenter, (scan, label) = Segmenter(load_model(threshold_model), ENGINE), scan_and_label()
    examine = learn_quality.examine
    dice, measures = examine(segmenter, scan, label, "as it is", 0.0, 0)
    assert dice > 0.9
    assert measures["missing_femurs"] == 0
    assert measures["border_contact_cm2"] == 0
    upside_down, _ = examine(segmenter, scan, label, "upside down", 0.0, 0)
    assert upside_down > 0.9  # a threshold does not know up from down, and the label map turns too
    cropped, measures = examine(segmenter, scan, label, "cropped head", 50.0, 0)
    assert 0.5 < cropped < dice - 0.1  # 50 of the femurs' 115 mm are gone: they count as missed
    assert measures["border_contact_cm2"] > 10
    nothing, _ = examine(segmenter, scan, label, "wrong body part", 0.0, 0)
    assert nothing in (0.0, None)
    for above, reason in ((25.0, "a hip, not a part of one"), (10.0, "between 1 and")):  # mm of the field of view
        cut = round((learn_quality._above_femurs_mm(label) - above) / 5.0)
        low = [dataclasses.replace(v, array=v.array[:-cut]) for v in (scan, label)]
        with pytest.raises(InputError, match=reason):
            examine(segmenter, *low, "wrong body part", 0.0, 0)


def test_corruptions_that_leave_nothing_to_segment_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(learn_quality, "STRENGTHS", {})
    cases = learn_quality.find_cases(write_dataset(tmp_path / "data", cases=2))
    cv = cross_validation(tmp_path / "cv", ["case_0", "case_1"])

    def examine(segmenter, scan, reference, kind, strength, seed):
        if kind == "wrong body part":
            raise InputError("Too small.\nExpected more.")
        return 0.9, {"fragments": 1.0}

    monkeypatch.setattr(learn_quality, "examine", examine)
    found = learn_quality.run_folds([cv / f"fold{i}" / "model" for i in (0, 1)], cases, cv / "quality.jsonl", 1)
    assert [(r.case, r.kind) for r in found] == [
        (case, kind) for case in ("case_0", "case_1") for kind in ("as it is", "upside down")
    ]
    assert "case_0, wrong body part: left out. Too small." in capsys.readouterr().out


def test_limits_of_a_fold_come_from_the_others_good_results():
    results = [
        result("fold0", 0.9, fragments=0.0),
        result("fold1", 0.9, fragments=6.0),
        result("fold1", 0.5, fragments=50.0),  # bad: not learnt from
        result("fold1", None, fragments=70.0),  # nothing to find
        result("fold1", 0.9, "upside down", fragments=80.0),  # not as a scan should be
    ]
    limits = learn_quality.held_out_limits(results)
    assert limits == {"fold0": {"fragments": Limit(6.0, 6.5, 7.0)}, "fold1": {"fragments": Limit(0.0, 0.5, 1.0)}}
    assert learn_quality.level(results[1], limits["fold1"]) == "red"
    assert learn_quality.level(results[0], limits["fold0"]) == "green"


def test_table_by_hand():
    results = [result(fold, 0.9, fragments=value) for fold in ("fold0", "fold1") for value in (0.0, 2.0)]
    results += [result("fold0", 0.5, "blur", fragments=9.0), result("fold1", 0.6, "blur", fragments=0.0)]
    results += [result("fold1", None, "wrong body part", missing_femurs=2.0)]
    table = learn_quality.format_table(results, ["$ command"])
    assert "7 segmentations of 5 patients, each by a network that has not seen the patient: 4 good, 2 bad" in table
    rows = {line[:24].strip(): line[24:].split() for line in table.splitlines()}
    # The bad 9 is above all four good ones, the bad 0 ties with two of them.
    assert rows["fragments"][:4] == ["0.625", "1", "2.5", "3"]
    assert rows["all together"] == ["0.625"]
    assert rows["green"] == ["4", "1"]
    assert rows["red"] == ["0", "1"]
    assert [line.split() for line in table.splitlines() if line.startswith("blur")] == [
        ["blur", "0.1", "2", "0.550", "2", "0", "1"]
    ]


def test_cache_passes_over_a_line_that_was_cut_off(tmp_path):
    path, one = tmp_path / "quality.jsonl", result("fold0", 0.9, fragments=1.0)
    assert learn_quality.read_results(path) == {}
    old = dataclasses.replace(one, measures={"fragments": 1.0, "beauty": 2.0})  # of another version
    path.write_text(json.dumps(dataclasses.asdict(old)) + '\n{"weights": "sha", "fo')
    assert learn_quality.read_results(path) == {one.key: one}


def cross_validation(folder, dataset_names):
    """Two folds of the threshold network; each saw all cases but one."""
    config, network = threshold_network()
    for number, name in enumerate(dataset_names):
        seen = [other for other in dataset_names if other != name]
        provenance = {"training_cases": seen, "fold": number}
        network.get_layer("upper_cls").bias.assign([0.0, -0.5 - number / 100])  # another network: other weights
        save_model(folder / f"fold{number}" / "model", network, config, PREPROCESSING, provenance)
    return folder


def test_held_out_is_what_the_model_does_not_name(dataset_dir, tmp_path):
    cases = learn_quality.find_cases(dataset_dir)
    names = [case.name for case in cases]
    cv = cross_validation(tmp_path, names)
    assert [c.name for c in learn_quality.held_out(cases, cv / "fold1" / "model")] == [names[1]]
    config, network = threshold_network()
    for seen in ([], names):
        save_model(tmp_path / "model", network, config, PREPROCESSING, {"training_cases": seen})
        with pytest.raises(UsageError, match="held out"):
            learn_quality.held_out(cases, tmp_path / "model")


def test_nothing_is_learnt_from_bad_results_alone(monkeypatch, tmp_path):
    cross_validation(tmp_path, ["case_0", "case_1"])
    monkeypatch.setattr(learn_quality, "run_folds", lambda *_: [result("fold0", 0.5, fragments=1.0)])
    monkeypatch.setattr(learn_quality, "find_cases", lambda _: [])
    words = {"dataset": "", "cv": tmp_path, "output": None, "quality": None, "rounds": 1}
    monkeypatch.setattr(learn_quality, "FLAGS", types.SimpleNamespace(**words))
    with pytest.raises(UsageError, match="0 good segmentations in 1 fold"):
        learn_quality.main(["learn_quality"])


@pytest.mark.slow
def test_whole_run_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(learn_quality, "STRENGTHS", {"noise": (0.1, 1.0)})
    monkeypatch.setattr(learn_quality, "ONCE", ("upside down",))
    dataset = write_dataset(tmp_path / "data", cases=2)
    for case in learn_quality.find_cases(dataset):
        for volume, path in zip(scan_and_label(), (case.image, case.label), strict=True):
            write_volume(volume, path)
    cv = cross_validation(tmp_path / "cv", ["case_0", "case_1"])
    words = {"dataset": dataset, "cv": cv, "output": tmp_path / "table.txt", "quality": tmp_path / "model", "rounds": 1}
    monkeypatch.setattr(learn_quality, "FLAGS", types.SimpleNamespace(**words))
    assert learn_quality.main(["learn_quality"]) == 0
    table = (tmp_path / "table.txt").read_text()
    assert "6 segmentations of 2 patients" in table
    assert "all together" in capsys.readouterr().out
    assert len((cv / "quality.jsonl").read_text().splitlines()) == 6
    assert "patch_disagreement" in read_limits(tmp_path / "model")
    monkeypatch.setattr(learn_quality, "examine", None)  # nothing is left to do
    assert learn_quality.main(["learn_quality"]) == 0
    assert (tmp_path / "table.txt").read_text() == table
