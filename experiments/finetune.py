"""A trained model goes on learning on your own scans: a quarter of an hour on two CPU cores.

    make finetune DATASET=DIR RUN=runs/finetune
    python -m femur3d.train --experiment experiments/finetune.py --dataset DIR --run runs/finetune
        [--initial_weights MODEL]

Starts from the shipped hip_t1, or from any model of the same network and preprocessing. Every difference from
`hip_t1.py` stands below with its reason.
"""

import dataclasses

from femur3d.cli import load_experiment
from femur3d.config import Experiment


def get_config() -> Experiment:
    """Short and at a low rate: what the model knows is to be bent towards the new scans, not learnt anew."""
    recipe = load_experiment("hip_t1")
    training = dataclasses.replace(
        recipe.training,
        steps=600,  # a sixth of the first training
        rate=2e-4,  # a fifth: at the full rate a few odd batches undo what many patients taught
        warm_restarts=0,
        checkpoint_every=100,
        validate_every=100,  # whether it still gets better on your validation cases
    )
    network = dataclasses.replace(recipe.network, bn_momentum=0.95)  # moving statistics follow within 600 updates
    return dataclasses.replace(recipe, name="finetune", network=network, training=training, initial_weights="hip_t1")
