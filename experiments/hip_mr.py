"""The recipe of `hip_mr`, for hip MR of any contrast, slice direction and voxel size; trains on two CPU cores.

    python -m femur3d.train --experiment experiments/hip_mr.py --dataset DIR --run runs/hip_mr

DIR holds patients and MR-like scans of a CT (`tools/ct_to_mr.py`). Starts from the weights of `hip_t1` and differs from
`hip_t1.py` in what stands below, each with its reason. Score: `femur3d/models/hip_mr/README.md`.
"""

import dataclasses

from experiments import hip_t1
from femur3d.config import Experiment, Transforms


def get_config() -> Experiment:
    """The differences, each with its reason."""
    base = hip_t1.get_config()
    return dataclasses.replace(
        base,
        name="hip_mr",
        initial_weights="hip_t1",
        training=dataclasses.replace(
            base.training,
            steps=2_000,
            rate=5e-4,  # the network knows femurs already
            warm_restarts=0,
            precision="float32",  # an update takes 1.2 s; in bfloat16 20 s where the processor has none
            validate_every=600,
        ),
        transforms=Transforms(
            patches=0.7,  # the others show T1 as it is
            remap=0.6,
            regions=0.5,
            femur=0.4,  # marrow and fat are alike in T1 alone
            fat_suppression=0.15,
            bright_air=0.05,
            bias=0.4,
            resolution=0.3,
            ringing=0.1,
            noise=0.4,
            narrow_view=0.05,
        ),
    )
