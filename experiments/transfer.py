"""The paper's experiment: the encoder starts from C3D (Sports-1M) weights, everything else from N(0, 0.01).

    make train-transfer DATASET=DIR RUN=runs/transfer

Needs `data/c3d_encoder.h5`, which `make c3d` makes from C3D's weight file. Score: not measured, C3D's weights could not
be downloaded.
"""

from femur3d.config import Experiment


def get_config() -> Experiment:
    """The paper's values; only the source of the encoder's weights differs from `scratch.py`."""
    return Experiment(name="transfer", encoder_weights="data/c3d_encoder.h5")
