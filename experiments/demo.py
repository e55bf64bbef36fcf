"""The paper's network at an eighth of its width on phantoms (synthetic scans): about two minutes on two CPU cores.

    make demo

A short recipe of its own: SGD with Nesterov's momentum, a Dice loss beside the cross-entropy, few filters and coarse
voxels; good for synthetic scans only.
"""

from femur3d.config import Experiment, Loss, Network, Preprocessing, Training


def get_config() -> Experiment:
    """The differences from the paper serve speed alone."""
    return Experiment(
        name="demo",
        preprocessing=Preprocessing(spacing_mm=(2.5, 2.5, 2.5), margin_mm=250.0, patch_size=(48, 48, 48)),
        network=Network(
            encoder_filters=(8, 16, 32, 64), decoder_filters=(32, 16, 8), initialisation="he", bn_momentum=0.9
        ),
        loss=Loss(dice_weight=1.0, l2=0.0005),
        training=Training(
            steps=400,
            rate=2e-2,
            schedule="polynomial",
            momentum=0.95,
            nesterov=True,
            batches_per_volume=1,
            foreground_probability=0.5,
            variants=(0, 6),
            validate_every=200,
        ),
    )
