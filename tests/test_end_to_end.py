"""The commands of the README, one after the other, as a newcomer types them: phantom to table."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from femur3d.config import Experiment
from femur3d.io.images import read_volume

PYTHON = [sys.executable]


def run(*words, code=0):
    """Runs a command in a process of its own; returns its output once its exit code is seen to be right."""
    done = subprocess.run(
        [*PYTHON, *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        timeout=600,
        check=False,
    )
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A phantom dataset and a short training on it, by the command lines."""
    folder = tmp_path_factory.mktemp("whole_path")
    phantoms = ["tools/make_phantom.py", "--size", "74,57,60"]
    run(*phantoms, "-o", folder / "data", "--cases", 5, "--val_cases", 1)
    run(*phantoms, "-o", folder / "unseen", "--cases", 2, "--val_cases", 0, "--seed", 1000)
    experiment = ["--experiment", "experiments/demo.py"]
    settings = [
        "--set", "preprocessing.spacing_mm=(4, 4, 4)", "--set", "preprocessing.patch_size=(32, 32, 32)",
        "--set", "training.steps=200", "--set", "training.validate_every=200", "--set", "training.schedule=halving",
    ]  # fmt: skip
    run("-m", "femur3d.pack", "--dataset", folder / "data", "-o", folder / "packed.h5", *experiment, *settings)
    train = ["-m", "femur3d.train", "--dataset", folder / "data", "--run", folder / "run", *experiment, *settings]
    done = run(*train)
    (shared,) = (folder / ".packed").glob("*.h5")  # beside the run, for all runs there
    assert shared.read_bytes() == (folder / "packed.h5").read_bytes()
    return folder, train, done


@pytest.mark.slow
def test_whole_path(trained):
    folder, _, _ = trained
    scans, references = folder / "unseen" / "imagesTr", folder / "unseen" / "labelsTr"
    run("-m", "femur3d.infer", "-i", scans, "-o", folder / "out", "--model", folder / "run" / "model",
        "--labels", "sides", "--preview")  # fmt: skip
    evaluated = run("-m", "femur3d.evaluate", "--predictions", folder / "out", "--references", references,
                    "-o", folder / "evaluation", "--images", scans)  # fmt: skip
    with (folder / "evaluation" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert min(float(r["dice"]) for r in rows) > 0.75
    assert "Average" in evaluated.stdout
    assert (folder / "evaluation" / "phantom_000.png").stat().st_size > 10_000
    for case in ("phantom_000", "phantom_001"):
        scan, label = read_volume(scans / f"{case}_0000.nii.gz"), read_volume(folder / "out" / f"{case}.nii.gz")
        assert label.geometry_difference(scan) is None
        assert len(np.unique(label.array)) == 2


@pytest.mark.slow
def test_training_says_what_it_will_do_and_goes_on(trained, tmp_path):
    folder, train, done = trained
    assert "makes 200 updates" in done.stdout
    assert done.stdout.index("on this machine") < done.stdout.index("validation Dice")
    config = json.loads((folder / "run" / "config.json").read_text())
    assert config["name"] == "demo"
    shutil.copytree(folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    again = run(*train, "--run", tmp_path / "run", "--packed_cache", folder / ".packed", "--set", "training.steps=205")
    assert "goes on after step 200 to 205 updates" in again.stdout
    # What stands on standard error is the progress bar and nothing of TensorFlow's start.
    assert "WARNING" not in again.stderr
    assert "cuda" not in again.stderr.lower()


@pytest.mark.slow
def test_a_copied_dataset_is_packed_again_and_another_one_is_refused(trained, tmp_path):
    """The run goes on where the voxels are those that it was begun with, whatever the times of the files."""
    folder, train, _ = trained
    shutil.copytree(folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns(".lock"))
    command = [*train, "--run", tmp_path / "run", "--packed_cache", folder / ".packed"]
    assert "Packing" not in run(*command).stdout
    shutil.copytree(folder / "data", tmp_path / "data", copy_function=shutil.copyfile)
    command += ["--dataset", tmp_path / "data", "--packed_cache", tmp_path / "cache"]
    assert "Packing" in run(*command).stdout
    (packed,) = (tmp_path / "cache").glob("*.h5")
    os.truncate(packed, packed.stat().st_size // 2)
    mended = run(*command, "--nokeep_packed").stdout
    assert f"{packed}: " in mended
    assert "Packing" in mended
    assert [path.name for path in packed.parent.iterdir()] == [".lock"]
    image, label = (sorted((tmp_path / "data" / part).iterdir()) for part in ("imagesTr", "labelsTr"))
    shutil.copyfile(image[1], image[0])
    shutil.copyfile(label[1], label[0])
    told = run(*command, code=3).stderr.splitlines()
    assert len(told) == 2
    assert "begun with data" in told[0]


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True])
def test_a_run_of_an_earlier_version_goes_on_with_its_own_packed_file(trained, tmp_path, cut):
    """Cut off, it is made again where the dataset is at hand."""
    folder, train, _ = trained
    shutil.copytree(folder / "run", tmp_path / "runs" / "run", ignore=shutil.ignore_patterns(".lock"))
    own = tmp_path / "runs" / "run" / "packed.h5"
    own.write_bytes((folder / "packed.h5").read_bytes()[: 5000 if cut else None])
    said = run(*train, "--run", own.parent, "--set", "training.steps=201").stdout
    assert "goes on after step 200 to 201" in said
    assert ("Packing" in said) == cut
    assert own.exists() != cut
    assert (tmp_path / "runs" / ".packed").exists() == cut


@pytest.mark.slow
def test_what_is_refused_leaves_no_run_directory(trained, tmp_path):
    """For want of C3D, of another preprocessing, of other labels, or damaged."""
    folder, train, _ = trained
    (tmp_path / "cut.h5").write_bytes((folder / "packed.h5").read_bytes()[:-1000])
    for words, found in (
        (["--set", f"encoder_weights={tmp_path / 'no.h5'}"], "C3D"),
        (["--dataset", folder / "packed.h5", "--set", "preprocessing.spacing_mm=(4, 4, 5)"], "spacing_mm"),
        (["--dataset", folder / "packed.h5", "--femur_labels", "pelvis"], "The packed dataset's femurs are femur"),
        (["--dataset", tmp_path / "cut.h5"], "cut.h5"),
    ):
        told = run(*train, "--run", tmp_path / "runs" / "new", *words, code=3).stderr.splitlines()
        assert found in told[0]
        assert len(told) == 2
        assert not (tmp_path / "runs" / "new").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_training_loses_no_work(trained, tmp_path, signum):
    """Ctrl-C and SIGTERM save and end with code 130; after SIGKILL the last checkpoint is there; both go on."""
    _, train, _ = trained
    command = [*train, "--run", tmp_path / "run", "--set", "training.steps=2000", "--set", "training.log_every=5",
               "--set", "training.checkpoint_every=5"]  # fmt: skip
    process = subprocess.Popen(
        [*PYTHON, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    )
    for line in process.stdout:
        if line.startswith("Step 10:"):
            process.send_signal(signum)
            break
    rest = process.communicate(timeout=120)[0]
    saved = sorted((tmp_path / "run" / "checkpoints").glob("step_*.npz"))
    step = int(saved[-1].stem.partition("_")[2])
    assert 5 <= step < 2000
    if signum == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert f"Stopped after step {step}" in rest
    again = run(*command, "--set", f"training.steps={step + 3}")
    assert f"goes on after step {step:,} to" in again.stdout


@pytest.mark.parametrize("module", ["pack", "train", "infer", "evaluate"])
def test_help(module):
    text = run("-m", f"femur3d.{module}", "--help").stdout
    assert f"python -m femur3d.{module}" in text
    assert "--" in text


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (
            ["train", "--experiment", "experiments/scratch.py", "--dataset", "{}/no", "--run", "{}/r"],
            3,
            "no such dataset",
        ),
        (["train", "--experiment", "experiments/transfer.py", "--dataset", "{}", "--run", "{}/r"], 3, "C3D"),
        (["train", "--experiment", "{}/e.py", "--dataset", "x", "--run", "{}/r"], 2, "no such experiment"),
        (["train", "--dataset", "x", "--run", "{}/r"], 2, "experiment"),
        (["pack", "--dataset", "{}/no", "-o", "{}/p.h5"], 3, "{}/no"),
        (["pack", "--dataset", "{}", "-o", "{}/p.h5", "--set", "training.pace=3"], 2, "no such setting"),
        (["pack", "--dataset", "{}", "-o", "{}/p.h5", "more"], 2, "more"),
        (["infer", "-i", "{}/no.nii.gz", "-o", "{}/o", "--model", "{}"], 3, "no model"),
        (["infer", "-o", "{}/o", "--model", "{}", "--labels", "both"], 2, "labels"),
        (["evaluate", "--predictions", "{}/no", "--references", "{}/no", "-o", "{}/o"], 3, "{}/no"),
    ],
)
def test_mistakes_end_in_two_lines(tmp_path, words, code, found):
    module, *rest = [w.format(tmp_path) for w in words]
    lines = run("-m", f"femur3d.{module}", *rest, code=code).stderr.strip().splitlines()
    assert 1 <= len(lines) <= 2, lines
    assert found.format(tmp_path) in " ".join(lines)


def test_importing_the_package_imports_no_tensorflow():
    code = "import sys, femur3d; print(any(m.startswith(('tensorflow', 'keras')) for m in sys.modules))"
    assert run("-c", code).stdout.strip() == "False"


@pytest.mark.slow
def test_real_hips_can_be_packed(hips_dir, tmp_path):
    done = run("-m", "femur3d.pack", "--dataset", hips_dir, "-o", tmp_path / "hips.h5",
               "--experiment", "experiments/hip_t1.py")  # fmt: skip
    assert "40 volumes" in done.stdout
    assert os.listdir(tmp_path) == ["hips.h5"]


def test_experiment_name_is_the_files(request):
    from femur3d.cli import load_experiment

    for path in (request.config.rootpath / "experiments").glob("*.py"):
        experiment = load_experiment(path)
        assert isinstance(experiment, Experiment)
        assert experiment.name == path.stem
