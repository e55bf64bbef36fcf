"""The recipe of `hip_mr`, for hip MR of any contrast, slice direction and voxel size; trains on two CPU cores.

    python -m tools.ct_to_mr --ct ct_hip_01.nii.gz --heads=-92,-168,-454,92,-159,-453 -o data/mr --cases 6 \\
        --seed 300 --all_contrasts --patients hips
    python -m femur3d.train --experiment experiments/hip_mr.py --dataset data/mr --run runs/hip_mr

The first command puts MR-like scans of a CT beside the patients. Where the processor has bfloat16, as that of the
shipped weights had, `--set training.precision=mixed_bfloat16` is faster. Starts from the weights of `hip_t1` and
differs from `hip_t1.py` in what stands below, each with its reason. Score: `femur3d/models/hip_mr/README.md`.
"""

import dataclasses

from femur3d.cli import load_experiment
from femur3d.config import Experiment, Transforms


def get_config() -> Experiment:
    """The differences, each with its reason."""
    base = load_experiment("hip_t1")
    return dataclasses.replace(
        base,
        name="hip_mr",
        initial_weights="hip_t1",
        training=dataclasses.replace(
            base.training,
            steps=3_600,  # 25 minutes on two cores in bfloat16 where the processor has it, 70 minutes in float32
            warm_restarts=0,
            precision="float32",  # an update takes 1.2 s; in bfloat16 0.4 s with AMX, 20 s where the processor has none
            validate_every=1_200,
        ),
        transforms=Transforms(
            patches=0.8,  # the others show T1 as it is
            remap=0.65,
            regions=0.15,  # 0.5 was worse on unseen patients, with other differences
            femur=0.25,  # marrow and fat are alike in T1 alone
            fat_suppression=0.45,
            bright_air=0.03,
            bias=0.3,
            resolution=0.25,
            ringing=0.05,
            noise=0.25,
            narrow_view=0.05,
        ),
    )
