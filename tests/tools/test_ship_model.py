import json
import shutil

import numpy as np
import pytest

from femur3d.inference.choice import find_models
from femur3d.inference.quality_limits import Limit, write_limits
from femur3d.inference.saved_model import load_model
from tools import ship_model


def test_shipped_model_is_the_trained_one_in_half_precision_and_keeps_its_card(threshold_model, tmp_path):
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "README.md").write_text("card")
    assert ship_model.ship(threshold_model, folder) < 1e-3
    assert (folder / "README.md").read_text() == "card"
    trained, shipped = load_model(threshold_model), load_model(folder)
    assert (shipped.network_config, shipped.preprocessing, shipped.provenance) == (
        trained.network_config, trained.preprocessing, trained.provenance,
    )  # fmt: skip
    for a, b in zip(trained.network.get_weights(), shipped.network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7)


def test_limits_of_the_quality_flags_are_shipped_too(threshold_model, tmp_path):
    model = shutil.copytree(threshold_model, tmp_path / "trained")
    write_limits(model, {"fragments": Limit(0.0, 1.0, 2.0)}, "nothing")
    ship_model.ship(model, tmp_path / "shipped")
    assert load_model(tmp_path / "shipped").quality == {"fragments": Limit(0.0, 1.0, 2.0)}


@pytest.mark.parametrize("folder", find_models("auto"), ids=lambda folder: folder.name)
def test_models_of_this_version_are_sound_and_small(folder):
    """Those in femur3d/models: what everybody uses who names no other."""
    model = load_model(folder)
    assert model.quality
    assert model.provenance["step"] > 0
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("research", "CC BY 3.0", "Dice", "not seen"):
        assert word in card
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert model.weights_sha256 == config["weights_sha256"]
