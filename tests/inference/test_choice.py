"""The choice between models: no second one without need, and the one with fewer red flags."""

from pathlib import Path

import numpy as np
import pytest

from femur3d.errors import InputError
from femur3d.inference.choice import Chooser, find_models
from femur3d.inference.quality_limits import Flag
from femur3d.inference.saved_model import SHIPPED
from femur3d.inference.segmenter import STAGES, Segmentation
from femur3d.volume import Volume

SCAN = Volume(np.zeros((2, 2, 2), np.float32))


def found(levels: str, femur: int = 1) -> Segmentation:
    """A segmentation with a flag a letter: g(reen), y(ellow), r(ed)."""
    names = {"g": "green", "y": "yellow", "r": "red"}
    quality = {str(number): Flag(0.0, names[letter], "") for number, letter in enumerate(levels)}
    quality["missing_femurs"] = Flag(1.0 - femur, "unknown", "")
    labels = SCAN.with_array(np.full((2, 2, 2), femur, np.uint8))
    return Segmentation(labels, SCAN, dict.fromkeys(STAGES, 1.0), quality, model={"weights_sha256": levels})


class Models:
    """Segmenters that give what is wanted, and count."""

    def __init__(self, **results: Segmentation | Exception) -> None:
        self.results, self.loaded = results, []

    def load(self, folder: Path):
        self.loaded.append(folder.name)

        def segmenter(*_: object) -> Segmentation:
            if isinstance(result := self.results[folder.name], Exception):
                raise result
            return result

        return segmenter

    def choose(self) -> Segmentation:
        return Chooser([Path(name) for name in self.results], self.load)(SCAN)


def test_auto_names_both_models_and_a_folder_itself(tmp_path, monkeypatch):
    assert [folder.name for folder in find_models("auto")] == ["hip_t1", "hip_mr"]
    assert find_models("hip_mr") == [SHIPPED.parent / "hip_mr"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "auto").mkdir()
    assert find_models("auto") == [Path("auto")]


@pytest.mark.parametrize("levels", ["ggg", "yyy"])
def test_without_a_red_flag_no_other_model_is_loaded(levels):
    models = Models(first=found(levels), second=found("g"))
    result = models.choose()
    assert (models.loaded, result.model["weights_sha256"]) == (["first"], levels)
    why = f"first has 0 red and {levels.count('y')} yellow flags"
    assert result.choice == {"taken": "first", "why": why, "tried": [levels]}
    assert result.seconds["network"] == 1.0


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        (found("rg"), found("yg"), "second"),
        (found("rr"), found("rg"), "second"),
        (found("rg"), found("ry"), "first"),
        (found("r"), found("r"), "first"),
        (found("g", femur=0), found("r"), "second"),
        (found("r"), found("g", femur=0), "first"),
        (found("r"), InputError("too few voxels\nmore"), "first"),
    ],
)
def test_the_better_flags_win_and_the_first_one_a_draw(first, second, taken):
    result = Models(first=first, second=second).choose()
    assert result.choice["taken"] == taken
    segmented = [one for one in (first, second) if not isinstance(one, Exception)]
    assert result.choice["tried"] == [one.model["weights_sha256"] for one in segmented]
    expected = {"first": first, "second": second}[taken]
    assert result.labels is expected.labels
    assert result.model == expected.model
    if not isinstance(second, Exception):
        assert result.seconds["network"] == 2.0


def test_it_is_said_what_each_model_found():
    why = Models(first=found("g", femur=0), second=found("ry")).choose().choice["why"]
    assert why == "first found no femur; second has 1 red and 1 yellow flags"
    assert (
        Models(first=found("r"), second=InputError("too few\nmore"))
        .choose()
        .choice["why"]
        .endswith("second failed (too few)")
    )


def test_a_single_model_is_no_choice():
    models = Models(only=found("r"))
    assert models.choose() is models.results["only"]
