"""The recipe of `hip_mr`, for hip MR of any contrast, slice direction and voxel size; trains on two CPU cores.

    python -m tools.ct_to_mr --ct ct_hip_01.nii.gz --heads=-92,-168,-454,92,-159,-453 -o data/mr --cases 10 \\
        --patients hips --validate hip_07,hip_19
    python -m femur3d.train --experiment experiments/hip_mr.py --dataset data/mr --run runs/hip_mr

The first command puts MR-like scans of a CT beside ten patients. Starts from the weights of `hip_t1` and differs from
`hip_t1.py` in what stands below, each with its reason. The weights that are shipped are of an earlier form of it, see
`femur3d/models/hip_mr/README.md`.
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
            steps=1_500,  # half an hour on two idle cores
            schedule="halving",  # what was learnt by any update does not depend on how many follow
            halve_every=300,  # the network knows femurs already: the first updates teach it most
            warm_restarts=0,
            precision="float32",  # an update takes 1.2 s; in bfloat16 20 s where the processor has none
            validate_every=500,
        ),
        transforms=Transforms(
            patches=0.8,  # the others show T1 as it is
            remap=0.6,
            regions=0.5,
            femur=0.4,  # marrow and fat are alike in T1 alone
            fat_suppression=0.3,
            bright_air=0.05,
            bias=0.5,
            resolution=0.3,
            ringing=0.1,
            noise=0.4,
            narrow_view=0.05,
        ),
    )
