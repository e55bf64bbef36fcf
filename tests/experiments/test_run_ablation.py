"""The ablation's jobs and command lines, what happens when it is stopped, and one whole ablation of tiny networks."""

import contextlib
import csv
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import types

import h5py
import numpy as np
import pytest

from experiments.studies import run_ablation
from experiments.studies import training_runs as trainings
from femur3d.cli import load_experiment
from femur3d.data.packed_dataset import PackedDataset
from femur3d.engines.backend import ENGINE
from femur3d.errors import FemurError, InputError, UsageError
from femur3d.io.settings import to_dict, with_settings
from femur3d.network.encoder import STAGES
from femur3d.training.run_directory import open_run_directory
from femur3d.training.trainer import Trainer
from tests.support.caffe_writer import random_weights, write_net
from tests.support.ellipsoids import write_dataset
from tools.c3d import port as port_c3d

is_trained = trainings.is_trained

ARMS = ("transfer", "scratch", "no_deep_supervision")


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory, tiny_experiment):
    """Ported weights of a surrogate with the widths of `tiny_experiment`."""
    folder = tmp_path_factory.mktemp("weights")
    weights = random_weights(tiny_experiment.network.encoder_filters)
    source = write_net(folder / "surrogate_weights", weights, "surrogate-test")
    port_c3d.port(source, folder / "surrogate_encoder.h5")
    return folder / "surrogate_encoder.h5"


# What is trained


def flat(experiment):
    """Every field of an experiment by `section.field`."""
    found = {}
    for name, value in dataclasses.asdict(experiment).items():
        found.update({f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value})
    return found


def differences(a, b):
    """Names of the fields in which two jobs differ."""
    first, second = flat(a.experiment), flat(b.experiment)
    return {name for name in first if first[name] != second[name]}


def test_jobs_go_seed_by_seed(tiny_experiment, tmp_path):
    made = run_ablation.jobs(tiny_experiment, [], "w.h5", 3, tmp_path)
    expected = [(arm, seed) for seed in range(3) for arm in ARMS]
    assert [(job.arm, job.seed) for job in made] == expected
    assert [job.folder for job in made] == [tmp_path / f"{arm}_seed{seed}" for arm, seed in expected]
    assert [job.experiment.training.seed for job in made] == [seed for _, seed in expected]


def test_arms_are_trained_once_and_in_their_order(tiny_experiment, tmp_path):
    given = ["no_deep_supervision", "scratch", "scratch"]
    made = run_ablation.jobs(tiny_experiment, [], "w.h5", 2, tmp_path, given)
    assert [(job.arm, job.seed) for job in made] == [(arm, seed) for seed in (0, 1) for arm in ARMS[1:]]


def test_ablation_begun_with_the_old_name_of_an_arm_keeps_its_folder(tiny_experiment, tmp_path):
    (tmp_path / "plain_seed1").mkdir()
    made = run_ablation.jobs(tiny_experiment, [], "w.h5", 2, tmp_path)
    assert [job.folder.name for job in made if job.arm == "no_deep_supervision"] == [
        "no_deep_supervision_seed0",
        "plain_seed1",
    ]


@pytest.mark.parametrize("begun_with", ["", "other.h5"])
def test_arms_differ_in_one_thing(tiny_experiment, tmp_path, begun_with):
    experiment = dataclasses.replace(tiny_experiment, encoder_weights=begun_with)
    made = run_ablation.jobs(experiment, [], "data/w.h5", 2, tmp_path)
    for transfer, scratch, unsupervised in (made[:3], made[3:]):
        assert differences(transfer, scratch) == {"encoder_weights"}
        assert (transfer.experiment.encoder_weights, scratch.experiment.encoder_weights) == ("data/w.h5", "")
        assert differences(scratch, unsupervised) == {"loss.head_weights"}
        assert unsupervised.experiment.loss.head_weights == (0.0, 0.0, 1.0)
        assert scratch.experiment.loss.head_weights == (0.33, 0.67, 1.0)
    assert [differences(a, b) for a, b in zip(made[:3], made[3:], strict=True)] == [{"training.seed"}] * 3
    assert differences(made[1], types.SimpleNamespace(experiment=tiny_experiment)) == set()  # seed 0 from scratch


def test_settings_of_the_user_are_in_all_arms(tiny_experiment, tmp_path):
    settings = ["training.steps=7", "network.initialisation=normal"]
    made = run_ablation.jobs(tiny_experiment, settings, "w.h5", 2, tmp_path)
    for job, before in zip(made, run_ablation.jobs(tiny_experiment, [], "w.h5", 2, tmp_path), strict=True):
        assert differences(job, before) == {"training.steps", "network.initialisation"}
        assert (job.experiment.training.steps, job.experiment.network.initialisation) == (7, "normal")
        assert with_settings(tiny_experiment, job.settings) == job.experiment


def test_arms_begin_alike_and_see_the_same_patches(tiny_experiment, packed_file, surrogate, tmp_path, capsys):
    trainers = {}
    with PackedDataset(packed_file) as packed:
        for job in run_ablation.jobs(tiny_experiment, [], str(surrogate), 1, tmp_path):
            run = open_run_directory(job.folder)
            trainers[job.arm] = Trainer(job.experiment, packed, run, ENGINE)
            run.close()
        batches = [[trainer.sampler.batch(step) for step in range(6)] for trainer in trainers.values()]
    for first, *others in zip(*batches, strict=True):
        for other in others:
            np.testing.assert_array_equal(other[0], first[0])
            np.testing.assert_array_equal(other[1], first[1])
    assert not np.array_equal(batches[0][0][0], batches[0][1][0])
    transferred = {f"{name}/{part}" for stage in STAGES for name in stage for part in ("kernel", "bias")}
    starts = {arm: {v.path: np.asarray(v) for v in trainer.network.variables} for arm, trainer in trainers.items()}
    with h5py.File(surrogate) as file:
        for path, scratch in starts["scratch"].items():
            np.testing.assert_array_equal(starts["no_deep_supervision"][path], scratch)
            np.testing.assert_array_equal(starts["transfer"][path], file[path] if path in transferred else scratch)
    assert not np.array_equal(starts["transfer"]["conv3b/kernel"], starts["scratch"]["conv3b/kernel"])
    assert "source: surrogate" in capsys.readouterr().out


# What is left to do


def finish(job, steps=None, **changed):
    """Leaves behind what `is_trained` looks at after a training of `steps` updates."""
    (job.folder / "model").mkdir(parents=True, exist_ok=True)
    config = {**to_dict(job.experiment), "encoder_source": {}, "data": "00", **changed}
    (job.folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    provenance = {"step": job.experiment.training.steps if steps is None else steps}
    (job.folder / "model" / "config.json").write_text(json.dumps({"provenance": provenance}), encoding="utf-8")


def evaluate(job, name="evaluation"):
    (job.folder / name).mkdir(parents=True, exist_ok=True)
    (job.folder / name / "metrics.csv").write_text("case,label,mean_mm,vertex_mean_mm\n")


def test_evaluation_with_distances_averaged_over_vertices_is_made_again(job):
    finish(job)
    evaluate(job)
    assert run_ablation.is_evaluated(job)
    (job.folder / "evaluation" / "metrics.csv").write_text("case,label,mean_mm\n")  # as femur3d 0.1 wrote it
    assert not run_ablation.is_evaluated(job)


@pytest.fixture
def job(tiny_experiment, tmp_path):
    return run_ablation.jobs(tiny_experiment, ["training.rate=0.02"], "w.h5", 1, tmp_path)[0]


def test_finished_run_is_trained(job):
    assert not is_trained(job.folder, job.experiment)
    finish(job)
    assert is_trained(job.folder, job.experiment)


def test_run_with_too_few_steps_is_not_trained(job):
    finish(job, steps=5)
    assert not is_trained(job.folder, job.experiment)


@pytest.mark.parametrize("changed", [{"encoder_weights": ""}, {"name": "other"}, {"momentum": 0.5}])
def test_run_of_another_experiment_is_not_trained(job, changed):
    finish(job, **changed)
    assert not is_trained(job.folder, job.experiment)


def test_run_with_another_rate_is_not_trained(job, tiny_experiment, tmp_path):
    finish(run_ablation.jobs(tiny_experiment, ["training.rate=0.03"], "w.h5", 1, tmp_path)[0])
    assert not is_trained(job.folder, job.experiment)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", ""),
        ("config.json", '{"name": "ti'),
        ("config.json", "[]"),
        ("model/config.json", '{"provenance"'),
        ("model/config.json", "[]"),
        ("model/config.json", "{}"),
        ("model/config.json", '{"provenance": {}}'),
        ("model/config.json", '{"provenance": null}'),
    ],
)
def test_damaged_run_is_not_trained(job, name, content):
    finish(job)
    (job.folder / name).write_text(content, encoding="utf-8")
    assert not is_trained(job.folder, job.experiment)


@pytest.fixture
def four_cases(tmp_path):
    """A dataset with two cases for validation."""
    return write_dataset(tmp_path / "four", cases=4, validation=2)


def commands(job, dataset):
    return run_ablation.commands(job, "e.py", pathlib.Path("p.h5"), dataset)


def modules(found):
    """What the command lines run, in order."""
    assert all(command[:2] == [sys.executable, "-m"] for command in found)
    return [command[2].removeprefix("femur3d.") for command in found]


def values(command, flag):
    """What follows each occurrence of a flag."""
    return [value for name, value in itertools.pairwise(command) if name == flag]


def test_everything_is_left_of_a_new_run(job, four_cases, tiny_experiment):
    train, infer, evaluation = found = commands(job, four_cases)
    assert modules(found) == ["train", "infer", "evaluate"]
    flags = [values(train, flag) for flag in ("--experiment", "--dataset", "--run")]
    assert flags == [["e.py"], ["p.h5"], [str(job.folder)]]
    assert with_settings(tiny_experiment, values(train, "--set")) == job.experiment
    assert values(infer, "--model") == [str(job.folder / "model")]
    assert "--continue" in infer
    scans = [str(four_cases / "imagesTr" / f"case_{i}_0000.nii.gz") for i in (2, 3)]  # those for validation
    assert infer[infer.index("-i") + 1 :] == scans
    assert values(evaluation, "--predictions") == values(infer, "-o")
    assert values(evaluation, "--references") == [str(four_cases / "labelsTr")]
    assert values(evaluation, "--split") == ["val"]
    assert values(evaluation, "--fold") == ["0"]
    assert values(evaluation, "-o") == [str(job.folder / "evaluation")]


def test_results_of_another_dataset_have_folders_of_their_own(job, four_cases):
    finish(job)
    evaluate(job)
    infer, evaluation = run_ablation.commands(job, "e.py", pathlib.Path("p.h5"), four_cases, of="_four")
    assert values(infer, "-o") == values(evaluation, "--predictions") == [str(job.folder / "segmented_four")]
    assert values(evaluation, "-o") == [str(job.folder / "evaluation_four")]
    evaluate(job, "evaluation_four")
    assert run_ablation.is_evaluated(job, "_four")


@pytest.mark.parametrize(
    ("steps", "is_evaluated", "left"),
    [
        (6, True, []),
        (6, False, ["infer", "evaluate"]),
        (3, False, ["train", "infer", "evaluate"]),
        (3, True, ["train", "infer", "evaluate"]),
    ],
)
def test_only_what_is_left_is_done(job, four_cases, steps, is_evaluated, left):
    finish(job, steps)
    if is_evaluated:
        evaluate(job)
    assert modules(commands(job, four_cases)) == left


def test_dataset_is_packed_once(tiny_experiment, dataset_dir, tmp_path, capsys):
    path = run_ablation.packed_file(dataset_dir, tmp_path / "out", tiny_experiment)
    assert path.parent == tmp_path / "out"
    with PackedDataset(path) as packed:
        assert sorted({entry.case for entry in packed.entries}) == ["case_0", "case_1", "case_2"]
    before = path.stat().st_ino
    assert "case_2" in capsys.readouterr().out
    assert run_ablation.packed_file(dataset_dir, tmp_path / "out", tiny_experiment) == path
    assert path.stat().st_ino == before
    assert not capsys.readouterr().out


def test_packed_file_of_something_else_is_refused(tiny_experiment, dataset_dir, packed_file, four_cases, tmp_path):
    shutil.copy(packed_file, tmp_path / "packed.h5")
    assert run_ablation.packed_file(dataset_dir, tmp_path, tiny_experiment) == tmp_path / "packed.h5"
    other = with_settings(tiny_experiment, ["preprocessing.margin_mm=8"])
    for dataset, experiment in ((four_cases, tiny_experiment), (dataset_dir, other)):
        with pytest.raises(InputError, match="another dataset or with another preprocessing") as caught:
            run_ablation.packed_file(dataset, tmp_path, experiment)
        assert str(caught.value).count("\n") == 1
    assert sorted(path.name for path in tmp_path.glob("*.h5")) == ["packed.h5"]


def test_another_fold_or_other_labels_are_another_dataset(tiny_experiment, dataset_dir, tmp_path):
    copied = shutil.copytree(dataset_dir, tmp_path / "copied")
    split = json.loads((copied / "splits_final.json").read_text())[0]
    (copied / "splits_final.json").write_text(json.dumps([split, {"train": split["val"], "val": split["train"]}]))
    path = run_ablation.packed_file(copied, tmp_path / "out", tiny_experiment, 1, ["femur_left"])
    assert run_ablation.packed_file(copied, tmp_path / "out", tiny_experiment, 1, ["femur_left"]) == path
    with PackedDataset(path) as packed:
        assert (packed.fold, packed.femur_labels) == (1, ("femur_left",))
    for fold, labels in ((0, ["femur_left"]), (1, ["femur_left", "femur_right"])):
        with pytest.raises(InputError, match="another dataset"):
            run_ablation.packed_file(copied, tmp_path / "out", tiny_experiment, fold, labels)


def test_a_dataset_whose_files_have_another_time_is_packed_again(tiny_experiment, dataset_dir, tmp_path, capsys):
    """Copied by hand, say; a case that moves to the other side of the split is another dataset."""
    path = run_ablation.packed_file(dataset_dir, tmp_path / "out", tiny_experiment)
    with PackedDataset(path) as packed:
        first = packed.source, packed.content
    copied = shutil.copytree(dataset_dir, tmp_path / "copied", copy_function=shutil.copyfile)
    capsys.readouterr()
    assert run_ablation.packed_file(copied, tmp_path / "out", tiny_experiment) == path
    assert "Packing" in capsys.readouterr().out
    with PackedDataset(path) as packed:
        assert packed.source != first[0]
        assert packed.content == first[1]
    assert [file.name for file in path.parent.iterdir()] == ["packed.h5"]
    split = json.loads((copied / "splits_final.json").read_text())[0]
    moved = {"train": split["train"][1:], "val": [split["train"][0], *split["val"]]}
    (copied / "splits_final.json").write_text(json.dumps([moved]))
    with pytest.raises(InputError, match="another dataset"):
        run_ablation.packed_file(copied, tmp_path / "out", tiny_experiment)


# Commands and signals


def python(code):
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sys; sys.exit(7)", 7),
        ("raise RuntimeError", 1),
        pytest.param(
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            137,
            marks=pytest.mark.skipif(os.name == "nt", reason="signals of POSIX"),
        ),
    ],
)
def test_failing_command_ends_the_ablation_with_its_code(code, expected):
    with pytest.raises(SystemExit) as caught:
        trainings.call(python(code))
    assert caught.value.code == expected


def test_a_scan_without_a_femur_does_not_end_the_ablation():
    trainings.call([*python("import sys; sys.exit(4)"), "femur3d.infer"])
    with pytest.raises(SystemExit):
        trainings.call([*python("import sys; sys.exit(4)"), "femur3d.train"])


@pytest.mark.parametrize(("code", "ends"), [("pass", contextlib.nullcontext()), ("1 / 0", pytest.raises(SystemExit))])
def test_handlers_are_put_back_after_a_command(code, ends, capfd):
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with ends:
        trainings.call(python(f"print('done'); {code}"))
    assert [signal.getsignal(number) for number in numbers] == before
    assert capfd.readouterr().out.splitlines()[-1] == "done"


CHILD = """
import pathlib, signal, sys, time
path, code = pathlib.Path(sys.argv[1]), int(sys.argv[2])
received = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: received.append(signal.Signals(number).name))
time.sleep(0.3)  # until the parent has its handlers too
print("ready", flush=True)
for _ in range(600):
    time.sleep(0.1)
    if received:
        break
time.sleep(0.5)  # saving; a second signal would come by now
path.write_text(" ".join(received))
sys.exit(code)
"""
PARENT = """
import sys, types
light = types.SimpleNamespace(check_encoder_weights=None)  # spares TensorFlow's start
sys.modules["femur3d.network.encoder_weights"] = light
from experiments.studies.training_runs import call
folder, child = sys.argv[1:]
for name, code in (("int", "130"), ("term", "130"), ("swallowed", "0")):
    try:
        call([sys.executable, "-c", child, f"{folder}/{name}", code])
        print(name, "went on", flush=True)
    except SystemExit as stopped:
        print(name, stopped.code, flush=True)
"""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """What the commands received when the ablation was stopped, and what the ablation did, by name."""
    folder = tmp_path_factory.mktemp("stopped")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder), CHILD],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        start_new_session=True,  # a terminal's Ctrl-C reaches a whole process group: this one, not ours
    )
    sends = iter(
        [
            lambda: os.killpg(parent.pid, signal.SIGINT),
            lambda: os.kill(parent.pid, signal.SIGTERM),
            lambda: os.kill(parent.pid, signal.SIGTERM),
        ]
    )
    found = {}
    for line in parent.stdout:
        name, _, rest = line.strip().partition(" ")
        if name == "ready":
            next(sends)()
        elif (folder / name).is_file():
            found[name] = (folder / name).read_text(), rest
    assert parent.wait(timeout=60) == 0
    return found


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "received"), [("int", "SIGINT"), ("term", "SIGTERM")])
def test_signal_reaches_the_command_once_and_it_can_save(stopped, name, received):
    assert stopped[name] == (received, "130")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_signal_stops_the_ablation_even_where_the_command_was_just_done(stopped):
    """As a training that was asked to stop in its last update."""
    received, what = stopped["swallowed"]
    assert received == "SIGTERM"
    assert what != "went on"


# The whole command

EXPERIMENT = """
from femur3d.config import Experiment, Network, Preprocessing, Training

def get_config():
    return Experiment(
        "tiny",
        preprocessing=Preprocessing(spacing_mm=(6.0, 6.0, 6.0), patch_size=(16, 16, 16)),
        network=Network((2, 3, 4, 4), (4, 3, 2), initialisation="he"),
        training=Training(steps=2, rate=1e-2, variants=(0,), foreground_probability=1.0, log_every=1, validate_every=2),
    )
"""


@pytest.fixture
def words(tmp_path, dataset_dir):
    """The flags of an ablation with one seed, as absl would hold them."""
    (tmp_path / "tiny.py").write_text(EXPERIMENT, encoding="utf-8")
    (tmp_path / "w.h5").touch()
    return types.SimpleNamespace(
        dataset=str(dataset_dir),
        output=str(tmp_path / "out"),
        weights=str(tmp_path / "w.h5"),
        experiment=str(tmp_path / "tiny.py"),
        seeds=1,
        arm=list(ARMS),
        set=[],
        fold=0,
        femur_labels=[],
        published=None,
        test=None,
        report=None,
    )


@pytest.fixture
def ablation(monkeypatch, words):
    """Runs `main` with commands that only leave their traces; returns which ran, the one that is stopped included."""
    monkeypatch.setattr(run_ablation, "FLAGS", words)
    monkeypatch.setattr(run_ablation, "packed_file", lambda dataset, output, *_: output / "packed.h5")
    monkeypatch.setattr(run_ablation, "load_run", lambda arm, seed, folder, _: (arm, seed, folder.name))
    ran, stop_at, reported = [], [], []
    monkeypatch.setattr(run_ablation, "write_reports", lambda runs, *_: reported.append(runs) or [])

    def call(command):
        (module,) = modules([command])
        ran.append(module)
        if module in stop_at:
            raise SystemExit(130)
        if module == "train":
            experiment = with_settings(load_experiment(words.experiment), values(command, "--set"))
            (folder,) = values(command, "--run")
            finish(types.SimpleNamespace(experiment=experiment, folder=pathlib.Path(folder)))
        if module == "evaluate":
            folder = pathlib.Path(*values(command, "-o"))
            evaluate(types.SimpleNamespace(folder=folder.parent), folder.name)
            trained = (folder.parent / "model" / "config.json").stat().st_mtime_ns
            os.utime(folder / "metrics.csv", ns=(trained, trained))  # whatever is trained later is newer

    monkeypatch.setattr(run_ablation, "call", call)

    def run(stop=None):
        ran.clear(), reported.clear()
        stop_at[:] = [stop] if stop else []
        with pytest.raises(SystemExit) if stop else contextlib.nullcontext():
            assert run_ablation.main(["run_ablation"]) == 0
        assert reported == ([] if stop else [[(arm, 0, f"{arm}_seed0") for arm in words.arm]])
        return list(ran)

    return run


def test_stopped_ablation_goes_on(ablation):
    assert ablation(stop="infer") == ["train", "infer"]
    assert ablation() == ["infer", "evaluate", *["train", "infer", "evaluate"] * 2]
    assert ablation() == []


def test_arms_may_come_one_after_another(ablation, words):
    """And without the arm that needs them, nobody asks for its weights."""
    words.weights, words.arm = "none.h5", ["scratch"]
    assert ablation() == ["train", "infer", "evaluate"]
    words.arm = ["scratch", "no_deep_supervision"]
    assert ablation() == ["train", "infer", "evaluate"]


@pytest.mark.parametrize(("tested", "is_seen"), [("hip_01", True), ("hip_01_femur_left", True), ("hip_011", False)])
def test_nothing_is_tested_that_was_trained_on(tested, is_seen):
    with pytest.raises(UsageError, match=tested) if is_seen else contextlib.nullcontext():
        run_ablation._check_unseen(["hip_00", "hip_01"], [tested])


def test_another_datasets_scans_are_segmented_beside_the_first_ones(ablation, words, four_cases, monkeypatch):
    words.arm = ["scratch"]
    assert ablation() == ["train", "infer", "evaluate"]
    words.test = str(four_cases)
    given = []
    monkeypatch.setattr(
        run_ablation, "load_run", lambda arm, seed, folder, name: given.append(name) or (arm, seed, folder.name)
    )
    assert ablation() == ["infer", "evaluate"]
    assert given == ["evaluation_four"]
    assert ablation() == []
    words.test = None
    assert ablation() == []


def test_evaluation_of_an_earlier_training_does_not_count(ablation, words):
    """A finished ablation is made longer, and stopped once the first run has made its new steps."""
    assert len(ablation()) == 9
    words.set = ["training.steps=3"]
    assert ablation(stop="infer") == ["train", "infer"]
    assert ablation() == ["infer", "evaluate", *["train", "infer", "evaluate"] * 2]


@pytest.mark.parametrize("mistake", ["published", "dataset"])
def test_what_can_be_checked_is_checked_before_the_first_command(ablation, words, monkeypatch, tmp_path, mistake):
    """A file that is not there, and a dataset without cases for validation."""
    words.published = str(tmp_path / "none.json") if mistake == "published" else None
    words.dataset = str(write_dataset(tmp_path / "data", cases=2, validation=0 if mistake == "dataset" else 1))
    monkeypatch.setattr(run_ablation, "call", lambda command: pytest.fail(f"too late: {command[2]}"))
    with pytest.raises(FemurError, match=r"none\.json|valid"):
        ablation()


@pytest.mark.parametrize(
    "setting", ["training.seed=1", "loss.head_weights=(1, 1, 1)", " encoder_weights = w.h5", "loss.head_weights"]
)
def test_settings_that_tell_arms_or_seeds_apart_are_refused(ablation, words, setting):
    words.set = ["training.steps=3", setting]
    words.weights = "none.h5"  # nothing is looked at before
    with pytest.raises(UsageError, match=r"^--set: received ") as caught:
        ablation()
    assert repr(setting) in str(caught.value)
    assert str(caught.value).count("\n") == 1
    assert not pathlib.Path(words.output).exists()


def test_stray_words_are_refused(monkeypatch, words):
    monkeypatch.setattr(run_ablation, "FLAGS", words)
    with pytest.raises(UsageError, match="Unexpected arguments: more"):
        run_ablation.main(["run_ablation", "more"])


def tool(name, *flags):
    """A tool of ours as a user types it."""
    command = [sys.executable, "-m", name, *map(str, flags)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL, check=False)


@pytest.fixture(scope="module")
def without_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("without")
    words = ["--dataset", folder / "none", "-o", folder / "out", "--weights", folder / "none.h5"]
    done = tool("experiments.studies.run_ablation", *words)
    assert not list(folder.iterdir())
    return done


def test_missing_weights_say_the_way_out(without_weights):
    assert without_weights.returncode == 3, without_weights.stderr
    assert "none.h5: no C3D encoder weights" in without_weights.stderr
    assert "`make c3d`" in without_weights.stderr
    assert "Traceback" not in without_weights.stderr


def test_missing_weights_are_two_lines(without_weights):
    assert len(without_weights.stderr.splitlines()) == 2


def read_rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, surrogate):
    """An ablation of tiny networks on tiny phantoms, by the command lines: its flags, its folder and what it said."""
    folder = tmp_path_factory.mktemp("ablation")
    made = tool("tools.make_phantom", "-o", folder / "data", "--cases", 3, "--val_cases", 1, "--size", "48,40,40")
    assert made.returncode == 0, made.stderr
    (folder / "tiny.py").write_text(EXPERIMENT, encoding="utf-8")
    (folder / "published.json").write_text('{"transfer": {"dice": 0.9712}}', encoding="utf-8")
    flags = {
        "dataset": folder / "data",
        "output": folder / "out",
        "weights": surrogate,
        "experiment": folder / "tiny.py",
        "seeds": 1,
        "published": folder / "published.json",
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    done = tool("experiments.studies.run_ablation", *words)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return flags, words, done


@pytest.mark.slow
def test_whole_ablation(whole):
    flags, _, done = whole
    out = flags["output"]
    configs = [json.loads((out / f"{arm}_seed0" / "config.json").read_text(encoding="utf-8")) for arm in ARMS]
    transfer, scratch, unsupervised = configs
    assert transfer["encoder_source"]["source_kind"] == "surrogate"
    assert scratch["encoder_source"] == unsupervised["encoder_source"] == {}
    for config in configs:
        assert config["data"] == scratch["data"]
        differing = {name for name in config if config[name] != scratch[name]} - {"config_sha256"}
        assert differing <= {"encoder_weights", "encoder_source", "loss"}
    # One seed and one dataset: the first patches go through equal weights, whatever each head counts for.
    first = [read_rows(out / f"{arm}_seed0" / "metrics.csv")[0] for arm in ARMS]
    for column in ("ce_lower", "ce_mid", "ce_upper", "l2_penalty"):
        assert first[1][column] == first[2][column] != first[0][column]
    assert first[1]["loss"] != first[2]["loss"]

    lines = (out / "report" / "table.txt").read_text(encoding="utf-8").splitlines()
    assert "\n".join(lines) in done.stdout
    measured = []
    for arm, label in zip(ARMS, ("transfer (surrogate)", "scratch", "no deep supervision"), strict=True):
        rows = read_rows(out / f"{arm}_seed0" / "evaluation" / "metrics.csv")
        assert {row["case"] for row in rows} == {"phantom_002"}
        measured += [(label, row["label"]) for row in rows]
        (ours,) = [line for line in lines if line.startswith(f"{label}, seed 0 ")]
        expected = [np.mean([float(row[name]) for row in rows]) for name in ("mean_mm", "dice", "recall")]
        shown = ours.removeprefix(f"{label}, seed 0").split()
        assert [shown[0], shown[3], shown[6]] == [f"{expected[0]:.3f}", f"{expected[1]:.4f}", f"{expected[2]:.4f}"]
    (published,) = [line for line in lines if line.startswith("transfer, published")]
    assert published.split()[-1] == "0.9712"
    assert [line for line in lines if "surrogate_weights, SHA-256" in line]
    femurs = read_rows(out / "report" / "femurs.csv")
    assert [(row["arm"], row["label"]) for row in femurs] == measured
    assert (out / "report" / "curves.png").stat().st_size > 10_000


@pytest.mark.slow
def test_finished_ablation_only_reports_again(whole, monkeypatch, tmp_path):
    flags, words, _ = whole
    again = types.SimpleNamespace(
        **{name: str(value) for name, value in flags.items()},
        arm=list(ARMS),
        set=[],
        report=str(tmp_path),
        fold=0,
        femur_labels=[],
        test=None,
    )
    again.seeds = 1
    monkeypatch.setattr(run_ablation, "FLAGS", again)
    monkeypatch.setattr(sys, "argv", ["experiments.studies.run_ablation", *words])
    monkeypatch.setattr(run_ablation, "call", lambda command: pytest.fail(f"called again: {command}"))
    assert run_ablation.main(["experiments.studies.run_ablation"]) == 0
    for name in ("table.txt", "femurs.csv"):
        assert (tmp_path / name).read_bytes() == (flags["output"] / "report" / name).read_bytes()
