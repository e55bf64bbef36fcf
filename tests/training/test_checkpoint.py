import numpy as np
import pytest

from femur3d.config import Network, Training
from femur3d.errors import InputError
from femur3d.network.unet import build_network
from femur3d.training import checkpoint
from femur3d.training.checkpoint import checkpoints, restore_latest, save_checkpoint
from femur3d.training.optimizer import make_optimizer


def pair(seed=0, filters=(2, 2, 2, 2)):
    network = build_network(Network(filters, (2, 2, 2)), seed)
    optimizer = make_optimizer(Training(), network)
    for i, variable in enumerate(optimizer.variables):
        variable.assign(np.full(variable.shape, seed * 1000 + i))
    return network, optimizer


def values(network, optimizer):
    return [np.asarray(v) for v in (*network.variables, *optimizer.variables)]


def test_round_trip_is_exact(tmp_path):
    saved, restored = pair(1), pair(2)
    save_checkpoint(tmp_path, 42, *saved)
    assert restore_latest(tmp_path, *restored) == 42
    for a, b in zip(values(*saved), values(*restored), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_to_restore(tmp_path):
    assert restore_latest(tmp_path, *pair()) == 0


def test_newest_two_are_kept(tmp_path):
    for step in (1, 9, 10, 200):
        save_checkpoint(tmp_path, step, *pair())
    assert [p.name for p in checkpoints(tmp_path)] == ["step_00000010.npz", "step_00000200.npz"]


def test_a_damaged_one_that_was_passed_over_takes_no_sound_ones_place(tmp_path):
    """Gone on from 200, because 400 is damaged, and stopped at 250: two sound ones are kept, 200 and 250."""
    for step in (200, 400):
        newest = save_checkpoint(tmp_path, step, *pair(step))
    newest.write_bytes(b"nothing")
    assert restore_latest(tmp_path, *pair()) == 200
    save_checkpoint(tmp_path, 250, *pair(250))
    assert [p.name for p in checkpoints(tmp_path)] == ["step_00000200.npz", "step_00000250.npz"]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:2000] + b"x" + b[2001:]])
def test_damaged_newest_falls_back_to_the_one_before(tmp_path, damage):
    save_checkpoint(tmp_path, 5, *pair(1))
    newest = save_checkpoint(tmp_path, 6, *pair(2))
    newest.write_bytes(damage(newest.read_bytes()))
    restored = pair(3)
    said = []
    assert restore_latest(tmp_path, *restored, said.append) == 5
    assert said == [f"{newest}: damaged; what came after the checkpoint before is computed again"]
    for a, b in zip(values(*pair(1)), values(*restored), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("error", [PermissionError, MemoryError])
def test_a_newest_one_that_may_be_sound_is_not_passed_over(tmp_path, monkeypatch, error):
    for step in (5, 6):
        save_checkpoint(tmp_path, step, *pair())
    read = checkpoint._read

    def fail(path):
        if path.name == "step_00000006.npz":
            raise error
        return read(path)

    monkeypatch.setattr(checkpoint, "_read", fail)
    with pytest.raises(error):
        restore_latest(tmp_path, *pair())


def test_all_damaged_or_of_another_network(tmp_path):
    path = save_checkpoint(tmp_path, 5, *pair())
    with pytest.raises(InputError, match="does not fit"):
        restore_latest(tmp_path, *pair(filters=(2, 2, 2, 3)))
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged"):
        restore_latest(tmp_path, *pair())


def test_a_checkpoint_with_pickled_objects_is_not_loaded(tmp_path):
    np.savez(tmp_path / "step_00000005.npz", step=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="damaged"):
        restore_latest(tmp_path, *pair())
