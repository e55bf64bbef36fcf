"""Updates of a tiny network on the engine that KERAS_BACKEND names, from a checkpoint to a checkpoint.

As a program, `python engine_updates.py START END`, it makes those of every recipe: START/RECIPE and END/RECIPE hold the
checkpoints, and the scalars of all updates are printed as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from femur3d.config import Loss, Network, Training
from femur3d.engines.backend import ENGINE
from femur3d.network.unet import build_network
from femur3d.training.checkpoint import restore_latest, save_checkpoint
from femur3d.training.optimizer import make_optimizer

NETWORK = Network((4, 6, 8, 8), (8, 6, 4), initialisation="he")
IMAGES = np.random.default_rng(0).normal(size=(2, 24, 16, 16, 1)).astype(np.float32)
LABELS = (IMAGES[..., 0] > 0.5).astype(np.uint8)
ROUNDED_BY = 2.0**-9  # bfloat16 keeps 8 digits: half of the last one, relative

# Number of updates, the training's settings, weight of the Dice loss.
RECIPES = {
    "paper": (1, {"rate": 1e-2}, 0.0),
    "clipped": (3, {"rate": 1e-2, "nesterov": True, "clip_norm": 0.5, "halve_every": 2}, 0.5),
    "adam": (2, {"optimizer": "adam"}, 0.0),
    "polynomial": (2, {"rate": 1e-2, "schedule": "polynomial", "steps": 4}, 0.0),
    "float32": (1, {"rate": 1e-2, "clip_norm": 1.0}, 1.0),
    "float32, input rounded": (1, {"rate": 1e-2, "clip_norm": 1.0}, 1.0),
    "bfloat16": (1, {"rate": 1e-2, "clip_norm": 1.0, "precision": "mixed_bfloat16"}, 1.0),
}


def make_updates(start: Path, end: Path, recipe: str) -> list[dict[str, float]]:
    """Makes a recipe's updates from the checkpoint in `start`/recipe, saves one to `end`; returns their scalars."""
    count, settings, dice_weight = RECIPES[recipe]
    training = Training(**settings)
    network = build_network(NETWORK, precision=training.precision)
    optimizer = make_optimizer(training, network)
    restore_latest(start / recipe, network, optimizer)
    train_step = ENGINE.make_train_step(network, optimizer, Loss(dice_weight=dice_weight))
    images = IMAGES
    if "rounded" in recipe:  # each voxel off by as much as bfloat16 may be
        images = IMAGES * np.random.default_rng(1).choice([1 - ROUNDED_BY, 1 + ROUNDED_BY], IMAGES.shape)
        images = images.astype(np.float32)
    scalars = [{n: float(v) for n, v in train_step(images, LABELS).items()} for _ in range(count)]
    end.mkdir(parents=True)
    save_checkpoint(end, count, network, optimizer)
    return scalars


if __name__ == "__main__":
    print(json.dumps({r: make_updates(Path(sys.argv[1]), Path(sys.argv[2]) / r, r) for r in RECIPES}))
