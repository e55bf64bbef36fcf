"""The recipe of the shipped model, for coronal T1 hip MR with thick slices; trains on two CPU cores.

    make train-hip DATASET=DIR RUN=runs/hip_t1
    python tools/cross_validate.py --dataset DIR --experiment experiments/hip_t1.py -o runs/cv

The network, its three heads and its loss weights are the paper's; every difference from `scratch.py` and its reason
stands beside it below. Score and what was tried: `femur3d/models/hip_t1/README.md`.
"""

from femur3d.config import Experiment, Loss, Network, Preparation, Training


def get_config() -> Experiment:
    """The differences, each with its reason."""
    return Experiment(
        name="hip_t1",
        preparation=Preparation(
            # Slices stay as they were acquired, and labelled: between two of them there is nothing to learn, and
            # half as many voxels an update let twice as many updates be made. A patch sees 96×166×96 mm of hip.
            spacing_mm=(1.5, 5.2, 1.5),
            patch_size=(64, 32, 64),
            # Whole scans come in at inference, so training volumes keep all that is not the other femur.
            margin_mm=250.0,
        ),
        network=Network(
            encoder_filters=(16, 32, 64, 128),  # a step takes a tenth of the time
            decoder_filters=(64, 32, 16),
            initialisation="he",  # N(0, 0.01) needs thousands of updates to leave "all background"
            bn_momentum=0.98,  # the run is short: moving statistics must keep up with the weights
        ),
        loss=Loss(
            dice_weight=1.0,  # balances 2% femur against 98% background
            l2=0.0005,  # a tenth: the rate is ten times the paper's, and rate · λ sets the decay
        ),
        training=Training(
            steps=2_000,  # half an hour on two cores
            rate=1e-2,  # ten times the paper's: fewer updates
            schedule="polynomial",  # ends at zero, wherever `steps` is
            momentum=0.95,
            nesterov=True,
            clip_norm=1.0,  # at this rate one odd batch can undo hundreds of updates; seen at update 890 without it
            batches_per_volume=1,  # neighbouring updates see different patients
            mixed_batches=True,  # batch normalisation then averages over patients, as its moving statistics do
            femur_share=0.5,  # a random patch of a whole scan seldom shows a femur
            distort_share=0.7,  # a dozen patients are few: without distortions they are learnt by heart
            variants=(0, 6),  # as it is and mirrored left-right: scans come upright, never turned by 90°
            validate_every=800,
        ),
    )
