"""The run directory: one process at a time, what may change when a run goes on, what a killed process left."""

import pytest

from femur3d.errors import InputError, UsageError
from femur3d.io.settings import with_settings
from femur3d.training.run_directory import MetricsLog, RunDirectory, open_run_directory


def test_two_trainings_in_one_run_are_refused(tmp_path):
    run = open_run_directory(tmp_path / "r")
    with pytest.raises(UsageError, match="another process"):
        open_run_directory(tmp_path / "r")
    run.close()


@pytest.mark.parametrize(
    ("before", "said"),
    [("aa-1", None), ("aa", None), ("aa-2", "other cases to train on"), ("bb-1", "data bb"), ("bb", "data bb")],
)
def test_a_run_goes_on_with_the_data_that_it_was_begun_with(tiny_experiment, tmp_path, before, said):
    """Of which runs of earlier versions have stored only the volumes, not who validates."""
    with open_run_directory(tmp_path / "r") as run:
        run.write_config(tiny_experiment, {}, before)
        if said is None:
            run.write_config(tiny_experiment, {}, "aa-1")
            assert run.stored()["data"] == "aa-1"
        else:
            with pytest.raises(InputError, match=f"begun with {said}.*\n.*choose another --run"):
                run.write_config(tiny_experiment, {}, "aa-1")
            assert run.stored()["data"] == before


@pytest.mark.parametrize(("schedule", "allowed"), [("halving", True), ("polynomial", False)])
def test_steps_may_change_only_where_the_rate_does_not_depend_on_them(tiny_experiment, tmp_path, schedule, allowed):
    before = with_settings(tiny_experiment, [f"training.schedule={schedule}"])
    run = open_run_directory(tmp_path / "r")
    run.write_config(before, {}, "0" * 64)
    longer = with_settings(before, ["training.steps=9", "training.log_every=1"])
    if allowed:
        run.check_experiment(longer)
    else:
        with pytest.raises(UsageError, match=r"training\.steps=6, now 9"):
            run.check_experiment(longer)
    run.close()


def test_metrics_beyond_the_step_are_dropped(tmp_path):
    log = MetricsLog(tmp_path / "m.csv", ("step", "loss"))
    log.start_after(0)
    for step in (1, 2, 3):
        log.add({"step": step, "loss": step / 2})
    log.start_after(2)
    log.add({"step": 3, "loss": 9.0})
    assert (tmp_path / "m.csv").read_text().split() == ["step,loss", "1,0.5", "2,1", "3,9"]


@pytest.mark.parametrize("left", ["2", "22", "220,0.5"])
def test_a_row_that_a_full_disk_cut_off_is_dropped(tmp_path, left):
    """Of `220,0.5,0.75` after a checkpoint at 200, the first characters alone may be there: they are no update 22."""
    path = tmp_path / "m.csv"
    whole = "step,loss,dice\r\n20,0.5,\r\n200,0.5,0.75\r\n"
    path.write_bytes((whole + left).encode())
    MetricsLog(path, ("step", "loss", "dice")).start_after(200)
    assert path.read_bytes().split() == whole.encode().split()


def test_rows_of_a_version_with_fewer_columns_are_kept(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("step,loss\n1,0.5\n2,0.25\n")
    MetricsLog(path, ("step", "loss", "dice")).start_after(2)
    assert path.read_text().split() == ["step,loss,dice", "1,0.5,", "2,0.25,"]


def test_what_a_row_lacked_is_written_into_it(tmp_path):
    log = MetricsLog(tmp_path / "m.csv", ("step", "loss", "dice"))
    assert log.start_after(0) == {}
    log.add({"step": 1, "loss": 0.5})
    assert log.start_after(1) == {"step": "1", "loss": "0.5", "dice": ""}
    log.complete({"step": 1, "dice": 0.75})
    log.complete({"step": 2, "dice": 0.25})
    assert (tmp_path / "m.csv").read_text().split() == ["step,loss,dice", "1,0.5,0.75", "2,,0.25"]
    assert log.start_after(3) == {}


def test_a_run_directory_that_is_not_opened_writes_nothing(tmp_path, tiny_experiment):
    run = RunDirectory(tmp_path / "r")
    run.check_experiment(tiny_experiment)
    assert run.stored() == {}
    assert not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    checkpoints = tmp_path / "r" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / ".writing-abc-step_1.npz").touch()
    (tmp_path / "r" / ".model-abc").mkdir()  # a model that was being written
    open_run_directory(tmp_path / "r").close()
    assert {path.name for path in (tmp_path / "r").rglob("*")} == {"checkpoints", ".lock"}


def test_a_model_that_was_being_replaced_is_there_again(tmp_path):
    """A kill between the two renames of a system that cannot exchange folders."""
    for name, text in ((".model-abc", "new"), (".model-abc-old", "old")):
        (tmp_path / "r" / name).mkdir(parents=True)
        (tmp_path / "r" / name / "config.json").write_text(text)
    run = open_run_directory(tmp_path / "r")
    run.close()
    assert (run.model / "config.json").read_text() == "new"
    assert not list((tmp_path / "r").glob(".model-*"))


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"data": ' + "9" * 5000 + "}"])
def test_a_damaged_configuration_is_told(tmp_path, tiny_experiment, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match="Choose another --run") as caught:
        RunDirectory(tmp_path).check_experiment(tiny_experiment)
    assert str(caught.value).count("\n") == 1
