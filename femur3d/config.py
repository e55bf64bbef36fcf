"""The experiment configuration: every number of the paper stands here once, as a default, with its source.

`experiments/*.py` return an `Experiment`; `--set section.field=value` changes single fields; the whole is written to
`config.json` and read back. "Section n" is a section of Zeng et al. (MLMI 2017); **(ours)** marks what it leaves open.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from femur3d.errors import InputError, UsageError

OVERLAP = 0.5  # of neighbouring patches at inference, section 3.4; half: a stride of 32 voxels for 64³ **(ours)**
THRESHOLD = 0.5  # of the averaged P(femur), section 3.4; a voxel above it is femur **(ours)**
POOLINGS = 3
DOWNSAMPLING = 2**POOLINGS
HEADS = ("lower", "mid", "upper")
IGNORED = 255  # label of packed voxels that count for nothing, neither in the loss nor in the Dice: nnU-Net's "ignore"
MIN_BFLOAT16_SLICES = 24  # with 16 z is 2 voxels at the bottom, where oneDNN (TensorFlow 2.21) loses the gradient
MAX_FILTERS = 1024  # a network from a file takes 2 GB at most

Section = TypeVar("Section")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a scan becomes the network's input; travels with the model.

    Attributes:
        orientation: code of the array's index axes (i, j, k), as in DICOM: L(eft) P(osterior) S(uperior) **(ours)**.
        spacing_mm: voxel size along (x, y, z) after resampling **(ours)**.
        margin_mm: what is kept around a femur's bounding box when training volumes are cut **(ours)**.
        patch_size: (z, y, x) voxels; section 3.2: 64×64×64.
        normalisation: of intensities to zero mean and unit variance: 'patch', each patch by itself (section 3.2);
            'body', the scan by its voxels that are not air.
    """

    orientation: str = "LPS"
    spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)
    margin_mm: float = 30.0
    patch_size: tuple[int, ...] = (64, 64, 64)
    normalisation: str = "patch"

    def __post_init__(self) -> None:
        letters = sorted(
            {"L": "x", "R": "x", "P": "y", "A": "y", "S": "z", "I": "z"}.get(c, "?") for c in self.orientation
        )
        _check(letters == ["x", "y", "z"], f"orientation: expected a code such as LPS. Received: {self.orientation!r}")
        positive = len(self.spacing_mm) == 3 and all(0.1 <= s <= 20 for s in self.spacing_mm)
        _check(positive, f"spacing_mm: expected three values of 0.1 to 20 mm (x, y, z). Received: {self.spacing_mm}")
        _check(0 <= self.margin_mm <= 1000, f"margin_mm: expected 0 to 1000. Received: {self.margin_mm}")
        fits = len(self.patch_size) == 3 and all(8 <= n <= 512 and n % DOWNSAMPLING == 0 for n in self.patch_size)
        known = self.normalisation in ("patch", "body")
        _check(known, f"normalisation: expected 'patch' or 'body'. Received: {self.normalisation!r}")
        _check(fits, f"patch_size: expected three multiples of {DOWNSAMPLING}, 8 to 512. Received: {self.patch_size}")


@dataclasses.dataclass(frozen=True)
class Network:
    """Section 2.1 and Fig. 1.

    Attributes:
        encoder_filters: conv1a, conv2a, conv3a-b, conv4a-b: C3D's first four widths, so that its weights fit.
        decoder_filters: the lower, middle and upper level **(ours)**.
        initialisation: 'normal' (section 3.3), or 'he', He's normal for ReLU.
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
        known = self.initialisation in ("normal", "he")
        _check(known, f"initialisation: expected 'normal' or 'he'. Received: {self.initialisation!r}")
        deviation = self.initial_deviation
        _check(0 < deviation <= 1, f"initial_deviation: expected more than 0, at most 1. Received: {deviation}")
        _check(0 < self.bn_momentum < 1, f"bn_momentum: expected 0 < m < 1. Received: {self.bn_momentum}")
        _check(
            0 < self.bn_epsilon <= 0.1, f"bn_epsilon: expected more than 0, at most 0.1. Received: {self.bn_epsilon}"
        )


@dataclasses.dataclass(frozen=True)
class Loss:
    """Equations (1) and (2): Σ_c α_c·CE_c + λ·ψ(weights).

    Attributes:
        head_weights: α of LowerCls, MidCls, UpperCls; section 3.3: 0.33, 0.67, 1.0.
        l2: λ = 0.005, section 3.3; ψ = ½‖w‖² over convolution kernels **(ours)**.
        dice_weight: weight of a soft Dice loss added to each head's cross-entropy; 0 in the paper.
    """

    head_weights: tuple[float, ...] = (0.33, 0.67, 1.0)
    l2: float = 0.005
    dice_weight: float = 0.0

    def __post_init__(self) -> None:
        good = len(self.head_weights) == len(HEADS) and all(0 <= a <= 100 for a in self.head_weights)
        _check(good, f"head_weights: expected three values of 0 to 100 {HEADS}. Received: {self.head_weights}")
        _check(0 <= self.l2 <= 1, f"l2: expected 0 to 1. Received: {self.l2}")
        _check(0 <= self.dice_weight <= 100, f"dice_weight: expected 0 to 100. Received: {self.dice_weight}")


@dataclasses.dataclass(frozen=True)
class Training:
    """Section 3, "Implementation details" and "Data augmentation".

    Attributes:
        steps: updates; 14,000.
        rate: initial learning rate; 1e-3.
        schedule: 'halving' (the paper's) or 'polynomial', rate·(1 - step/steps)^0.9.
        halve_every: updates between two halvings; 3,000.
        warm_restarts: how often the polynomial rate starts again from the full rate; 0, falls to zero once.
        optimizer: 'sgd' (the paper's) or 'adam'.
        momentum, nesterov: of SGD; 0.9, plain. Adam takes the momentum as β₁.
        clip_norm: largest norm of the whole gradient; 0, the paper's, is no clipping.
        batch_size: patches a batch; 2.
        batches_per_volume: n = 5 batches from each volume of an epoch.
        multi_volume_batches: whether each patch of a batch comes from another volume; the paper's come from one.
        foreground_probability: share of the patches that are centred on a random femur voxel; 0 in the paper.
        augmentation_probability: share of the patches that `augment.random_distortion` changes; 0 in the paper.
        precision: Keras's dtype policy: 'float32', or 'mixed_bfloat16', which computes in bfloat16 and keeps weights,
            loss and update in float32; faster where the processor has bfloat16 **(ours)**.
        variants: which of the eight augmented variants are packed (`femur3d.data.augmentation`); all.
        seed: of initialisation, shuffling and crops **(ours)**.
        checkpoint_every, validate_every, log_every: updates **(ours)**.
    """

    steps: int = 14_000
    rate: float = 1e-3
    schedule: str = "halving"
    halve_every: int = 3_000
    warm_restarts: int = 0
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    clip_norm: float = 0.0
    batch_size: int = 2
    batches_per_volume: int = 5
    multi_volume_batches: bool = False
    foreground_probability: float = 0.0
    augmentation_probability: float = 0.0
    precision: str = "float32"
    variants: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    seed: int = 0
    checkpoint_every: int = 200
    validate_every: int = 1_000
    log_every: int = 20

    def __post_init__(self) -> None:
        intervals = ("checkpoint_every", "validate_every", "log_every")
        for name in ("steps", "halve_every", "batch_size", "batches_per_volume", *intervals):
            value = getattr(self, name)
            _check(1 <= value <= 10**8, f"{name}: expected at least 1. Received: {value}")
        _check(0 <= self.warm_restarts <= 1000, f"warm_restarts: expected 0 or more. Received: {self.warm_restarts}")
        _check(0 < self.rate <= 10, f"rate: expected more than 0, at most 10. Received: {self.rate}")
        known = self.schedule in ("halving", "polynomial")
        _check(known, f"schedule: expected 'halving' or 'polynomial'. Received: {self.schedule!r}")
        known = self.optimizer == "sgd" or (self.optimizer == "adam" and not self.nesterov)
        _check(known, f"optimizer: expected 'sgd', or 'adam' without nesterov. Received: {self.optimizer!r}")
        _check(0 <= self.momentum < 1, f"momentum: expected 0 <= m < 1. Received: {self.momentum}")
        _check(0 <= self.clip_norm <= 1e6, f"clip_norm: expected 0 (none) or more. Received: {self.clip_norm}")
        _check(
            0 <= self.foreground_probability <= 1,
            f"foreground_probability: expected 0 to 1. Received: {self.foreground_probability}",
        )
        _check(
            0 <= self.augmentation_probability <= 1,
            f"augmentation_probability: expected 0 to 1. Received: {self.augmentation_probability}",
        )
        known = self.precision in ("float32", "mixed_bfloat16")
        _check(known, f"precision: expected 'float32' or 'mixed_bfloat16'. Received: {self.precision!r}")
        good = set(self.variants) <= set(range(8)) and len(set(self.variants)) == len(self.variants) > 0
        _check(good, f"variants: expected different numbers of 0 to 7, at least one. Received: {self.variants}")
        _check(0 <= self.seed < 2**32, f"seed: expected 0 to 2^32 - 1. Received: {self.seed}")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        encoder_weights: HDF5 file with C3D's ported weights for the encoder; empty: from scratch.
        initial_weights: folder or name of a trained model to start from, whole; empty in the paper.
    """

    name: str
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    network: Network = dataclasses.field(default_factory=Network)
    loss: Loss = dataclasses.field(default_factory=Loss)
    training: Training = dataclasses.field(default_factory=Training)
    encoder_weights: str = ""
    initial_weights: str = ""

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


# What files and commands of earlier versions call a field.
RENAMED = {
    "preparation": "preprocessing",
    "mixed_batches": "multi_volume_batches",
    "femur_share": "foreground_probability",
    "distort_share": "augmentation_probability",
}


def current_name(name: str, value: Any) -> tuple[str, Any]:
    """A field by its name of today, and its value; other names are returned as they are."""
    if name == "cycles":  # which counted the first one too
        return "warm_restarts", value - 1 if type(value) is int else value
    return RENAMED.get(name, name), value


def to_dict(section: Any) -> dict[str, Any]:
    """A configuration as plain JSON types; tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(section)))


def from_dict(kind: type[Section], values: Any, where: str = "config") -> Section:
    """The inverse of `to_dict`. Raises InputError for unknown names, missing required names and wrong types."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected an object. Received: {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    values = dict(current_name(name, value) for name, value in values.items())
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise InputError(f"{where}: unknown {', '.join(map(repr, unknown))}. Known are: {', '.join(hints)}")
    try:
        return kind(**{name: _typed(hints[name], value, f"{where}.{name}") for name, value in values.items()})
    except TypeError as error:
        raise InputError(f"{where}: {error}") from error


def _typed(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` (a dataclass, a tuple of numbers, or a plain type), or an InputError."""
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where}: expected a list. Received: {value!r}")
        return tuple(_typed(typing.get_args(hint)[0], item, where) for item in value)
    if hint is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise InputError(f"{where}: expected {hint.__name__}. Received: {value!r}")
    return value


def with_settings(experiment: Experiment, settings: Iterable[str]) -> Experiment:
    """The experiment with `section.field=value` (or `field=value`) settings applied, as `--set` gives them.

    All settings are applied before the result is validated. Raises UsageError.
    """
    values = dataclasses.asdict(experiment)
    for setting in settings:
        path, equals, text = setting.partition("=")
        *sections, name = path.strip().split(".")
        field, value = current_name(name, _literal(text))
        target: Any = values
        for section in sections:
            target = target.get(RENAMED.get(section, section), {}) if isinstance(target, dict) else {}
        if not equals or not isinstance(target, dict) or field not in target or isinstance(target[field], dict):
            raise UsageError(
                f"--set: no such setting. Received: {setting!r}\nExpected e.g. training.steps=500; known: {_names()}"
            )
        target[field] = value
    try:
        return from_dict(Experiment, values, "--set")
    except InputError as error:
        raise UsageError(str(error)) from error


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text.strip()


def _names() -> str:
    names = []
    for name, hint in typing.get_type_hints(Experiment).items():
        inner = [f.name for f in dataclasses.fields(hint)] if dataclasses.is_dataclass(hint) else []
        names += [f"{name}.{field}" for field in inner] or [name]
    return ", ".join(names)
