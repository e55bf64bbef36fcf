"""The paper's network and schedule, every weight from N(0, 0.01): the ablation of Table 2.

    make train-scratch DATASET=DIR RUN=runs/scratch

Score: not measured at full width, where 14,000 updates take 26 to 45 hours on two CPU cores. At a quarter of it: mean
Dice 0.898 on scans of one hip, see docs/results.md.
"""

from femur3d.config import Experiment


def get_config() -> Experiment:
    """Every field has the paper's value: the defaults of `femur3d.config`."""
    return Experiment(name="scratch")
