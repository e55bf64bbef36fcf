"""The folds of a cross-validation, the dataset of each, and one whole cross-validation of a tiny network."""

import json
import pathlib
import types

import pytest

from experiments.studies import cross_validate
from femur3d.data.nnunet_dataset import find_cases, read_split
from femur3d.errors import UsageError
from tests.support.ellipsoids import write_dataset

CASES = [f"hip_{i:02}" for i in range(12)]


@pytest.mark.parametrize("first", [[], ["hip_03", "hip_07", "hip_08", "hip_11"]])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_case_is_held_out_once_and_trains_otherwise(first, count):
    folds = cross_validate.make_folds(CASES, first, count)
    assert len(folds) == count
    assert sorted(case for fold in folds for case in fold.val) == CASES
    for fold in folds:
        assert sorted(fold.train + fold.val) == CASES
        assert fold.val
        assert fold.train
    if first:
        assert folds[0].val == first


def test_folds_are_of_equal_size():
    assert [len(fold.val) for fold in cross_validate.make_folds(CASES, CASES[:4], 3)] == [4, 4, 4]
    assert [len(fold.val) for fold in cross_validate.make_folds(CASES, [], 5)] == [3, 3, 2, 2, 2]


@pytest.mark.parametrize(("first", "count"), [([], 13), (CASES[:4], 10), (CASES, 2)])
def test_more_folds_than_cases(first, count):
    with pytest.raises(UsageError, match=f"Received: {count}"):
        cross_validate.make_folds(CASES, first, count)


def test_linked_dataset_has_the_files_and_its_own_split(dataset_dir, tmp_path):
    names = [case.name for case in find_cases(dataset_dir)]
    split = cross_validate.Split(names[1:], names[:1])
    linked = cross_validate.link_dataset(dataset_dir, tmp_path / "fold", split)
    before = (linked / "splits_final.json").stat().st_mtime_ns
    assert cross_validate.link_dataset(dataset_dir, tmp_path / "fold", split) == linked
    assert (linked / "splits_final.json").stat().st_mtime_ns == before  # a training that goes on finds the same files
    assert [case.name for case in find_cases(linked)] == names
    assert read_split(linked) == split
    assert read_split(dataset_dir) != split


EXPERIMENT = """from femur3d.config import Experiment, Training


def get_config():
    return Experiment("tiny", training=Training(steps=3))
"""


@pytest.fixture
def called(monkeypatch, tmp_path):
    """Runs the tool on a dataset and returns the modules and words that it called."""
    (tmp_path / "tiny.py").write_text(EXPERIMENT, encoding="utf-8")
    dataset = write_dataset(tmp_path / "data", cases=5, validation=1)
    folds = cross_validate.make_folds([f"case_{i}" for i in range(5)], ["case_4"], 3)

    def run(*trained, **more):
        found = []
        for name in trained:
            model = tmp_path / "out" / name / "model"
            model.mkdir(parents=True, exist_ok=True)
            provenance = {"training_cases": folds[int(name[-1])].train}
            (model / "config.json").write_text(json.dumps({"provenance": provenance}), encoding="utf-8")
        words = {"dataset": dataset, "output": tmp_path / "out", "experiment": tmp_path / "tiny.py", "folds": 3}
        words |= {"set": [], "all": True, "fold": 0, "femur_labels": [], **more}
        monkeypatch.setattr(cross_validate, "FLAGS", types.SimpleNamespace(**words))
        monkeypatch.setattr(cross_validate, "call", lambda command: found.append(command[2:]))
        monkeypatch.setattr(cross_validate, "is_trained", lambda folder, experiment: folder.name in trained)
        assert cross_validate.main(["cross_validate"]) == 0
        return found

    return run


def value(words, flag):
    return words[words.index(flag) + 1]


def test_every_patient_is_segmented_by_a_network_that_has_not_seen_it(called):
    calls = called()
    assert [words[0].removeprefix("femur3d.") for words in calls] == [*["train", "infer"] * 3, "evaluate", "train"]
    segmented = []
    for train, infer in zip(calls[:6:2], calls[1:6:2], strict=True):
        seen = set(read_split(value(train, "--dataset")).train)
        assert value(infer, "--model") == str(pathlib.Path(value(train, "--run")) / "model")
        scans = [pathlib.Path(word).name.removesuffix("_0000.nii.gz") for word in infer[infer.index("-i") + 1 :]]
        assert not seen & set(scans)
        assert len(seen) + len(scans) == 5
        segmented += scans
    assert sorted(segmented) == [f"case_{i}" for i in range(5)]
    assert {value(infer, "-o") for infer in calls[1:6:2]} == {value(calls[6], "--predictions")}
    assert read_split(value(calls[7], "--dataset")).train == sorted(segmented)


def test_goes_on_where_it_was_and_hands_settings_on(called):
    calls = called("fold0", "fold1", set=["training.seed=3"], all=False)
    assert [words[0] for words in calls] == [
        "femur3d.infer", "femur3d.infer", "femur3d.train", "femur3d.infer", "femur3d.evaluate",
    ]  # fmt: skip
    assert value(calls[2], "--set") == "training.seed=3"
    assert "--femur_labels" not in calls[2]
    assert all("--continue" in words for words in calls if words[0] == "femur3d.infer")


def test_a_fold_that_was_trained_on_other_patients_is_refused(called):
    """Of three folds the second one holds out other patients than of four: its network has seen some of those."""
    with pytest.raises(UsageError, match=r"fold1: trained on case_1, case_3, case_4, now on case_1, case_2, case_4"):
        called("fold0", "fold1", folds=4)


def test_labels_and_fold_are_handed_on(called, tmp_path):
    splits = [{"train": [], "val": []}, {"train": ["case_0", "case_1", "case_2"], "val": ["case_3", "case_4"]}]
    write_dataset(tmp_path / "data", cases=5)
    (tmp_path / "data" / "splits_final.json").write_text(json.dumps(splits))
    train, infer, *_ = called(fold=1, femur_labels=["femur_left", "femur_right"], all=False)
    assert value(train, "--femur_labels") == "femur_left,femur_right"
    assert [pathlib.Path(w).name for w in infer[infer.index("-i") + 1 :]] == [f"case_{i}_0000.nii.gz" for i in (3, 4)]
