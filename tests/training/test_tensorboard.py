"""Event files as TensorBoard reads them."""

import io

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from femur3d.training.tensorboard import contour_picture, open_tensorboard_log
from femur3d.training.validation import Validated
from femur3d.volume import Volume

GREEN, RED = (0, 208, 0), (255, 32, 32)  # reference, prediction


def close_to(picture, colour):
    return (np.abs(picture[..., :3].astype(int) - colour) < 40).all(-1)


def accumulated(folder):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def validated(dice=0.75):
    """Two boxes: the reference low on the patient's right, the prediction high on the left."""
    image = Volume(np.random.default_rng(0).normal(size=(12, 10, 14)))
    reference, prediction = np.zeros((2, *image.array.shape), bool)
    reference[2:6, 4, 2:6] = True
    prediction[7:11, 4, 8:12] = True
    return Validated("hip_07/1", image, reference, prediction, dice)


def test_curves_stand_in_groups(tmp_path):
    with open_tensorboard_log(tmp_path, 0) as log:
        log.scalars(20, {"loss": 0.5, "ce_upper": 0.25, "learning_rate": 1e-3, "steps_per_s": 2.0, "dice_upper": 0.125})
        log.validated(20, validated())
    found = accumulated(tmp_path)
    values = {tag: found.Scalars(tag)[0].value for tag in found.Tags()["scalars"]}
    assert values == {
        "loss/total": 0.5,
        "loss/ce_upper": 0.25,
        "optimizer/learning_rate": pytest.approx(1e-3),
        "speed/steps_per_s": 2.0,
        "metrics/dice_upper": 0.125,
        "metrics/dice/hip_07/1": 0.75,
    }
    image = found.Images("validation/hip_07/1")[0]
    picture = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert picture.shape[:2] == (image.height, image.width)
    assert close_to(picture, GREEN).any()


@pytest.mark.parametrize("goes_on_after", [4, 6])
def test_a_resumed_run_shows_every_step_once(tmp_path, goes_on_after):
    """Killed after step 6, gone on from its last checkpoint: what was logged beyond it does not count."""
    killed = open_tensorboard_log(tmp_path, 0)
    for step in (2, 4, 6):
        killed.scalars(step, {"loss": 1.0})
    with open_tensorboard_log(tmp_path, goes_on_after) as log:
        for step in range(goes_on_after + 2, 10, 2):
            log.scalars(step, {"loss": 2.0})
    found = [(event.step, event.value) for event in accumulated(tmp_path).Scalars("loss/total")]
    assert found == [(step, 1.0 if step <= goes_on_after else 2.0) for step in (2, 4, 6, 8)]


def test_files_of_earlier_versions_are_taken_up(tmp_path):
    open_tensorboard_log(tmp_path / "tensorboard", 0).scalars(2, {"loss": 1.0})
    with open_tensorboard_log(tmp_path, 2) as log:
        log.scalars(4, {"loss": 2.0})
    assert not (tmp_path / "tensorboard").exists()
    assert [event.step for event in accumulated(tmp_path).Scalars("loss/total")] == [2, 4]


def test_hyperparameters_are_those_of_the_experiment(tmp_path, tiny_experiment):
    with open_tensorboard_log(tmp_path, 0) as log:
        log.hyperparameters(tiny_experiment)
    metadata = accumulated(tmp_path).SummaryMetadata("_hparams_/session_start_info")
    content = metadata.plugin_data.content
    assert metadata.plugin_data.plugin_name == "hparams"
    assert b"training.rate" in content
    assert b"network.encoder_filters" in content


def test_contour_picture_shows_reference_and_prediction():
    png, width, height = contour_picture(validated())
    picture = np.asarray(Image.open(io.BytesIO(png)))
    assert picture.shape[:2] == (height, width)
    first = picture[: int(0.8 * height), : width // 2]  # one coronal and one axial slice hold both; then the legend
    green, red = (np.argwhere(close_to(first, colour)).mean(0) for colour in (GREEN, RED))
    assert green[0] > red[0]
    assert green[1] < red[1]
