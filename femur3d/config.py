"""The experiment configuration: every number of the paper stands here once, as a default, with its source.

`experiments/*.py` return an `Experiment`; `--set section.field=value` changes single fields; the whole is written to
`config.json` and read back. "Section n" is a section of Zeng et al. (MLMI 2017); **(ours)** marks what it leaves open.
In each group the paper's fields come first, then ours.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from femur3d.errors import UsageError

OVERLAP = 0.5  # of neighbouring patches at inference, section 3.4; half: a stride of 32 voxels for 64³ **(ours)**
THRESHOLD = 0.5  # of the averaged P(femur), section 3.4; a voxel above it is femur **(ours)**
HEADS = ("lower", "mid", "upper")  # LowerCls, MidCls and UpperCls, section 2.1
POOLINGS = 3  # of 2×2×2, section 2; their number **(ours)**
DOWNSAMPLING = 2**POOLINGS
IGNORED = 255  # label of packed voxels that count for nothing, in loss and Dice: nnU-Net's "ignore" **(ours)**
MIN_BFLOAT16_SLICES = 24  # with 16 z is 2 voxels at the bottom, where oneDNN (TensorFlow 2.21) loses the gradient
MAX_FILTERS = 1024  # a network from a file takes 2 GB at most


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


def _check_range(section: Any, names: str, low: float, high: float, above: bool = False) -> None:
    """UsageError where one of the fields is not from `low` to `high`, or, with `above`, is `low` itself."""
    for name in names.split():
        value = getattr(section, name)
        good = low <= value <= high and not (above and value == low)
        wanted = f"more than {low:,}, at most {high:,}" if above else f"{low:,} to {high:,}"
        _check(good, f"{name}: expected {wanted}. Received: {value}")


def _check_choice(section: Any, name: str, *choices: str) -> None:
    value = getattr(section, name)
    _check(value in choices, f"{name}: expected {' or '.join(map(repr, choices))}. Received: {value!r}")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a scan becomes the network's input; travels with the model.

    Attributes:
        patch_size: (z, y, x) voxels; section 3.2: 64×64×64.
        normalisation: of intensities to zero mean and unit variance: 'patch', each patch by itself (section 3.2);
            'body', the scan by its voxels that are not air **(ours)**.
        orientation: code of the array's index axes (i, j, k), as in DICOM: L(eft) P(osterior) S(uperior) **(ours)**.
        spacing_mm: voxel size along (x, y, z) after resampling **(ours)**.
        margin_mm: what is kept around a femur's bounding box when training volumes are cut **(ours)**.
    """

    patch_size: tuple[int, ...] = (64, 64, 64)
    normalisation: str = "patch"
    orientation: str = "LPS"
    spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)
    margin_mm: float = 30.0

    def __post_init__(self) -> None:
        fits = len(self.patch_size) == 3 and all(8 <= n <= 512 and n % DOWNSAMPLING == 0 for n in self.patch_size)
        _check(fits, f"patch_size: expected three multiples of {DOWNSAMPLING}, 8 to 512. Received: {self.patch_size}")
        _check_choice(self, "normalisation", "patch", "body")
        axes = {"L": "x", "R": "x", "P": "y", "A": "y", "S": "z", "I": "z"}
        known = sorted(axes.get(letter, "?") for letter in self.orientation) == ["x", "y", "z"]
        _check(known, f"orientation: expected a code such as LPS. Received: {self.orientation!r}")
        positive = len(self.spacing_mm) == 3 and all(0.1 <= s <= 20 for s in self.spacing_mm)
        _check(positive, f"spacing_mm: expected three values of 0.1 to 20 mm (x, y, z). Received: {self.spacing_mm}")
        _check_range(self, "margin_mm", 0, 1000)


@dataclasses.dataclass(frozen=True)
class Network:
    """Section 2 and Fig. 1.

    Attributes:
        encoder_filters: conv1a, conv2a, conv3a-b, conv4a-b: C3D's first four widths, so that its weights fit
            (section 2.2).
        decoder_filters: the lower, middle and upper level (section 2.1); their widths **(ours)**.
        initialisation: 'normal' (section 3.3); 'he', He's normal for ReLU **(ours)**.
        initial_deviation: σ of 'normal', N(0, 0.01); section 3.3.
        bn_momentum: decay of batch normalisation's moving mean and variance (Keras's default) **(ours)**.
        bn_epsilon: what batch normalisation adds to the variance (Keras's default) **(ours)**.
    """

    encoder_filters: tuple[int, ...] = (64, 128, 256, 512)
    decoder_filters: tuple[int, ...] = (256, 128, 64)
    initialisation: str = "normal"
    initial_deviation: float = 0.01
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3

    def __post_init__(self) -> None:
        for name, count in (("encoder_filters", POOLINGS + 1), ("decoder_filters", POOLINGS)):
            filters = getattr(self, name)
            good = len(filters) == count and all(1 <= f <= MAX_FILTERS for f in filters)
            _check(good, f"{name}: expected {count} numbers of 1 to {MAX_FILTERS}. Received: {filters}")
        _check_choice(self, "initialisation", "normal", "he")
        _check_range(self, "initial_deviation", 0, 1, above=True)
        _check(0 < self.bn_momentum < 1, f"bn_momentum: expected 0 < m < 1. Received: {self.bn_momentum}")
        _check_range(self, "bn_epsilon", 0, 0.1, above=True)


@dataclasses.dataclass(frozen=True)
class Loss:
    """Equations (1) and (2) of section 2.1: Σ_c α_c·CE_c + λ·ψ(weights).

    Attributes:
        head_weights: α of LowerCls, MidCls, UpperCls; section 3.3: 0.33, 0.67, 1.0.
        l2: λ = 0.005, section 3.3; ψ = ½‖w‖² over convolution kernels **(ours)**.
        dice_weight: weight of a soft Dice loss added to each head's cross-entropy; 0, none, in the paper **(ours)**.
    """

    head_weights: tuple[float, ...] = (0.33, 0.67, 1.0)
    l2: float = 0.005
    dice_weight: float = 0.0

    def __post_init__(self) -> None:
        good = len(self.head_weights) == len(HEADS) and all(0 <= a <= 100 for a in self.head_weights)
        _check(good, f"head_weights: expected three values of 0 to 100 {HEADS}. Received: {self.head_weights}")
        _check_range(self, "l2", 0, 1)
        _check_range(self, "dice_weight", 0, 100)


@dataclasses.dataclass(frozen=True)
class Training:
    """Sections 3.1 to 3.3.

    Attributes:
        steps: updates ("iterations", section 3.3); 14,000.
        optimizer: 'sgd' (section 3.3); 'adam' **(ours)**.
        rate: initial learning rate, section 3.3; 1e-3.
        schedule: 'halving' (section 3.3); 'polynomial', rate·(1 - step/steps)^0.9 **(ours)**.
        halve_every: updates between two halvings, section 3.3; 3,000.
        momentum: of SGD, section 3.3; 0.9. Adam takes it as β₁.
        batch_size: patches a batch, section 3.2; 2.
        batches_per_volume: n = 5 batches from each volume of an epoch, section 3.2.
        variants: which of the eight augmented variants of section 3.1 are packed (`femur3d.data.augmentation`); all.
        nesterov: whether SGD's momentum is Nesterov's **(ours)**.
        warm_restarts: how often the polynomial rate starts again from the full rate; 0, falls to zero once **(ours)**.
        clip_norm: largest norm of the whole gradient; 0 is no clipping **(ours)**.
        multi_volume_batches: whether each patch of a batch comes from another volume; the paper's come from one
            **(ours)**.
        foreground_probability: share of the patches that are centred on a random femur voxel **(ours)**.
        augmentation_probability: share of the patches that are transformed at random **(ours)**.
        precision: Keras's dtype policy: 'float32', or 'mixed_bfloat16', which computes in bfloat16 and keeps weights,
            loss and update in float32; faster where the processor has bfloat16 **(ours)**.
        seed: of initialisation, shuffling and crops **(ours)**.
        checkpoint_every, validate_every, log_every: updates **(ours)**.
    """

    steps: int = 14_000
    optimizer: str = "sgd"
    rate: float = 1e-3
    schedule: str = "halving"
    halve_every: int = 3_000
    momentum: float = 0.9
    batch_size: int = 2
    batches_per_volume: int = 5
    variants: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    nesterov: bool = False
    warm_restarts: int = 0
    clip_norm: float = 0.0
    multi_volume_batches: bool = False
    foreground_probability: float = 0.0
    augmentation_probability: float = 0.0
    precision: str = "float32"
    seed: int = 0
    checkpoint_every: int = 200
    validate_every: int = 1_000
    log_every: int = 20

    def __post_init__(self) -> None:
        counts = "steps halve_every batch_size batches_per_volume checkpoint_every validate_every log_every"
        _check_range(self, counts, 1, 10**8)
        known = self.optimizer == "sgd" or (self.optimizer == "adam" and not self.nesterov)
        _check(known, f"optimizer: expected 'sgd', or 'adam' without nesterov. Received: {self.optimizer!r}")
        _check_range(self, "rate", 0, 10, above=True)
        _check_choice(self, "schedule", "halving", "polynomial")
        _check(0 <= self.momentum < 1, f"momentum: expected 0 <= m < 1. Received: {self.momentum}")
        good = set(self.variants) <= set(range(8)) and len(set(self.variants)) == len(self.variants) > 0
        _check(good, f"variants: expected different numbers of 0 to 7, at least one. Received: {self.variants}")
        _check_range(self, "warm_restarts", 0, 1000)
        _check_range(self, "clip_norm", 0, 10**6)
        _check_range(self, "foreground_probability augmentation_probability", 0, 1)
        _check_choice(self, "precision", "float32", "mixed_bfloat16")
        _check_range(self, "seed", 0, 2**32 - 1)


@dataclasses.dataclass(frozen=True)
class Transforms:
    """How often, from 0 to 1, a training patch passes each of `data.random_transforms`; never in the paper **(ours)**.

    Attributes:
        patches: the share of the patches that any of the others may change.
        remap: one random curve of intensities for the whole volume.
        regions: of those, with another curve in some regions.
        femur: the femur's inside gets a mean and a texture of its own.
        fat_suppression: the bright mode is pressed down.
        bright_air: air is bright: an image turned inside out.
        bias: shading over centimetres.
        resolution: slices of 1 to 6 mm across one of the axes.
        ringing, noise: what else scanners do.
        narrow_view: nothing beyond a plane.
    """

    patches: float = 0.0
    remap: float = 0.0
    regions: float = 0.0
    femur: float = 0.0
    fat_suppression: float = 0.0
    bright_air: float = 0.0
    bias: float = 0.0
    resolution: float = 0.0
    ringing: float = 0.0
    noise: float = 0.0
    narrow_view: float = 0.0

    def __post_init__(self) -> None:
        _check_range(self, " ".join(dataclasses.asdict(self)), 0, 1)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment. It starts from `encoder_weights`, an HDF5 file with C3D's ported weights for the encoder, or from
    `initial_weights`, a trained model by its folder or name; both empty: from scratch."""

    name: str
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    network: Network = dataclasses.field(default_factory=Network)
    loss: Loss = dataclasses.field(default_factory=Loss)
    training: Training = dataclasses.field(default_factory=Training)
    encoder_weights: str = ""
    initial_weights: str = ""
    transforms: Transforms = dataclasses.field(default_factory=Transforms)

    def __post_init__(self) -> None:
        _check(
            not (self.encoder_weights and self.initial_weights),
            "initial_weights: a model has an encoder of its own: expected no encoder_weights beside it. "
            f"Received: {self.encoder_weights!r}",
        )
        x, y, _ = self.preprocessing.spacing_mm
        turned = any(v % 2 for v in self.training.variants)
        slices = self.preprocessing.patch_size[0]
        _check(
            self.training.precision == "float32" or slices >= MIN_BFLOAT16_SLICES,
            f"precision: in bfloat16 patches must have at least {MIN_BFLOAT16_SLICES} slices (z). Received: {slices}",
        )
        _check(x == y or not turned, f"variants: quarter turns need equal spacing in x and y. Received: {x} and {y} mm")
