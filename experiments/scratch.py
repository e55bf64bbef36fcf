"""The paper's network and schedule, every weight from N(0, 0.01): the ablation of Table 2.

    make train-scratch DATASET=DIR RUN=runs/scratch

Score: not measured here. 14,000 updates at full width take 26 hours on two CPU cores; see the README.
"""

from femur3d.config import Experiment


def get_config() -> Experiment:
    """Every field has the paper's value: the defaults of `femur3d.config`."""
    return Experiment(name="scratch")
