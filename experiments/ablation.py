"""The ablation of Table 2 at a size that two CPU cores can do: quarter width, 1,000 updates, about ten minutes a run.

    make surrogate
    make ablation EXPERIMENT=experiments/ablation.py DATASET=DIR WEIGHTS=data/surrogate_encoder.h5 SEEDS=2

Score: in `experiments/results/`. `studies/run_ablation.py` makes three arms of it: transfer, scratch, and
scratch without deep supervision. What is not transferred starts from N(0, 0.01), as in the paper; every difference
from `scratch.py` stands beside its reason below.
"""

from femur3d.config import Experiment, Loss, Network, Preprocessing, Training


def get_config() -> Experiment:
    """The differences from `scratch.py`, each with its reason."""
    return Experiment(
        name="ablation",
        preprocessing=Preprocessing(
            spacing_mm=(2.4, 2.6, 2.4),  # so that 40³ voxels see 96×104×96 mm of hip
            margin_mm=250.0,  # whole scans come in at inference: training volumes keep all but the other femur
            patch_size=(40, 40, 40),  # an update takes a quarter of the time
        ),
        network=Network(
            encoder_filters=(16, 32, 64, 128),
            decoder_filters=(64, 32, 16),
            bn_momentum=0.95,  # the run is short: moving statistics must keep up with the weights
        ),
        loss=Loss(
            dice_weight=1.0,  # with cross-entropy alone, 500 updates reached a Dice of 0.27: 2% of the voxels are femur
            l2=0.0005,  # a tenth: rate · λ, which sets the decay, is the paper's
        ),
        training=Training(
            steps=1_000,
            rate=1e-2,  # ten times the paper's: at 1e-3, 1,200 updates of whole scans do not leave "all background"
            schedule="polynomial",  # ends at zero; the paper's halving, scaled to 1,000 updates, decays too early
            momentum=0.95,
            nesterov=True,
            clip_norm=1.0,  # at this rate one odd batch could decide the comparison
            batches_per_volume=1,  # neighbouring updates see different patients
            foreground_probability=0.5,  # a random patch of a whole scan seldom shows a femur
            variants=(0, 6),  # as it is and mirrored left-right: scans come upright, never turned by 90°
            validate_every=100,
        ),
    )
