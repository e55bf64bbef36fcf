"""Augmentation: the paper's eight variants of a volume and, for CPU recipes only, random distortions of a patch.

Section 3.1: each image is rotated by 0, 90, 180 and 270° around z, with and without a flip along y: 10 training images
become 80. z is array axis 0, y axis 1, x axis 2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from femur3d.config import IGNORED

# Variant v: rotation by 90°·(v mod 4) in the plane of array axes (1, 2), then for v ≥ 4 a flip along axis 1.
VARIANTS = tuple(range(8))


def variant(array: np.ndarray, number: int) -> np.ndarray:
    """The variant `number` (0 … 7; 0 is the identity) of an array with axes (z, y, x), as a view.

    Raises:
        ValueError: there is no such variant.
    """
    if number not in VARIANTS:
        raise ValueError(f"Expected a variant of 0 to 7. Received: {number}")
    turned = np.rot90(array, k=number % 4, axes=(1, 2))
    return turned[:, ::-1] if number >= 4 else turned


MAX_DEGREES = 12.0  # around each axis
MAX_SCALE = 1.15  # in each direction; and its inverse
MAX_GAMMA = 1.5  # and its inverse
MAX_BIAS = 0.25  # each coefficient of the bias field's exponent
MAX_BLUR_MM = 1.5  # standard deviation
MAX_NOISE = 0.2  # standard deviation, as a part of the patch's
MARROW_CONTRAST = (0.5, 1.2)  # factors of the marrow's intensity: red marrow holds less fat, and is as dark as muscle
MARROW_SLOPE = 0.25  # each coefficient of how the factor's logarithm changes through the patch
MARROW_MM = 2.0  # standard deviation of the mask's smoothing: over so much, the change sets in
MAX_SHIFT = 0.3  # of all intensities, in standard deviations of the patch
MAX_STRETCH = 1.25  # of all intensities; and its inverse


@dataclasses.dataclass(frozen=True, eq=False)
class Distortion:
    """A random change of geometry and contrast; not in the paper.

    Attributes:
        matrix: 3×3, takes voxel offsets (z, y, x) from a patch's centre to offsets in the volume.
        gamma: exponent of the intensities once they lie between 0 and 1.
        bias: of the field exp(Σ bias·term) over the patch, terms z, y, x, zz, yy, xx, zy, zx, yx from -1 to 1.
        blur: standard deviations (z, y, x) of a Gaussian, voxels.
        noise: standard deviation of Gaussian noise, as a part of the patch's.
        noise_seed: of that noise.
        marrow_contrast: (constant, z, y, x) of the field exp(constant + z·… + y·… + x·…) that the femur's inside is
            multiplied by; the outermost millimetres, where the cortex is, by less.
        smoothing: standard deviations (z, y, x) of the Gaussian that tells how far inside a voxel is, voxels.
        stretch, shift: of all intensities in the end: image·stretch + shift·(standard deviation of the patch).
    """

    matrix: np.ndarray
    gamma: float = 1.0
    bias: tuple[float, ...] = (0.0,) * 9
    blur: tuple[float, ...] = (0.0, 0.0, 0.0)
    noise: float = 0.0
    noise_seed: int = 0
    marrow_contrast: tuple[float, ...] = (0.0,) * 4
    smoothing: tuple[float, ...] = (0.0, 0.0, 0.0)
    stretch: float = 1.0
    shift: float = 0.0

    def reach(self, patch_size: tuple[int, ...]) -> tuple[int, ...]:
        """Voxels (z, y, x) that the distorted patch reaches from its centre, at most."""
        return tuple(np.ceil(np.abs(self.matrix) @ (np.asarray(patch_size) / 2)).astype(int) + 1)


def random_distortion(generator: np.random.Generator, spacing_mm: tuple[float, ...]) -> Distortion:
    """Uniform up to the limits above; blur, noise and marrow contrast each for one patch in two.

    Thick slices are turned out of their plane and scaled across it by less, as their voxels are longer: what lies
    between two slices is not known, and interpolating it makes images that no scanner gives.

    Args:
        generator: where the random numbers come from.
        spacing_mm: (x, y, z): the rotation is one in millimetres.
    """
    spacing = np.asarray(spacing_mm[::-1])
    turn = np.eye(3)
    for axis, degrees in enumerate(generator.uniform(-MAX_DEGREES, MAX_DEGREES, 3)):
        plane = np.delete(spacing, axis)
        turn = turn @ _rotation(axis, np.deg2rad(degrees * plane.min() / plane.max()))
    scale = np.diag(MAX_SCALE ** (generator.uniform(-1, 1, 3) * spacing.min() / spacing))
    matrix = np.diag(1 / spacing) @ turn @ scale @ np.diag(spacing)
    gamma = float(MAX_GAMMA ** generator.uniform(-1, 1))
    bias = tuple(generator.uniform(-MAX_BIAS, MAX_BIAS, 9).tolist())
    blur, noise = np.maximum(generator.uniform(-1, 1, 2), 0) * (MAX_BLUR_MM, MAX_NOISE)
    marrow_contrast = (
        generator.uniform(*np.log(MARROW_CONTRAST)),
        *generator.uniform(-MARROW_SLOPE, MARROW_SLOPE, 3).tolist(),
    )
    return Distortion(
        matrix=matrix,
        gamma=gamma,
        bias=bias,
        blur=tuple((blur / spacing).tolist()),
        noise=float(noise),
        noise_seed=int(generator.integers(2**31)),
        marrow_contrast=marrow_contrast if generator.random() < 0.5 else (0.0,) * 4,
        smoothing=tuple((MARROW_MM / spacing).tolist()),
        stretch=float(MAX_STRETCH ** generator.uniform(-1, 1)),
        shift=float(generator.uniform(-MAX_SHIFT, MAX_SHIFT)),
    )


def distort(
    image: np.ndarray, label: np.ndarray, centre: np.ndarray, patch_size: tuple[int, ...], distortion: Distortion
) -> tuple[np.ndarray, np.ndarray]:
    """The distorted patch of an image and its label; voxels outside repeat the border.

    Args:
        image, label: (z, y, x), at least what `Distortion.reach` says around the centre where the volume has it.
        centre: of the patch, (z, y, x) in voxels of these arrays; may be fractional.
        patch_size: (z, y, x).
        distortion: what is done.

    Returns:
        image float32 and label uint8, each of patch_size.
    """
    offset = centre - distortion.matrix @ ((np.asarray(patch_size) - 1) / 2)

    def sample(array: np.ndarray) -> np.ndarray:
        values = array.astype(np.float32)
        return ndimage.affine_transform(
            values, distortion.matrix, offset, output_shape=patch_size, order=1, mode="nearest"
        )

    mask = sample(label == 1)
    changed = (mask > 0.5).astype(np.uint8)
    if (label == IGNORED).any():
        changed[sample(label == IGNORED) > 0.5] = IGNORED
    return _change_contrast(sample(image), mask, distortion), changed


def _rotation(axis: int, radians: float) -> np.ndarray:
    """3×3 rotation in (z, y, x) around one of the axes."""
    matrix = np.eye(3)
    a, b = [other for other in range(3) if other != axis]
    matrix[[a, a, b, b], [a, b, a, b]] = np.cos(radians), -np.sin(radians), np.sin(radians), np.cos(radians)
    return matrix


def _change_contrast(patch: np.ndarray, mask: np.ndarray, distortion: Distortion) -> np.ndarray:
    """The patch with other intensities, float32. What is multiplied is multiplied above the patch's darkest voxel."""
    low, high = patch.min(), patch.max()
    if low == high:
        return patch
    patch = (patch - low) / (high - low)
    if any(distortion.marrow_contrast):
        inside = np.clip(2 * ndimage.gaussian_filter(mask, distortion.smoothing, mode="nearest") - 1, 0, 1)
        constant, *slopes = distortion.marrow_contrast
        patch = patch * (1 + inside * (np.exp(np.float32(constant)) * _bias_field(patch.shape, slopes) - 1))
    if any(distortion.blur):
        patch = ndimage.gaussian_filter(patch, distortion.blur, mode="nearest")
    patch = patch ** np.float32(distortion.gamma)
    if any(distortion.bias):
        patch = patch * _bias_field(patch.shape, distortion.bias)
    patch = low + (high - low) * patch
    deviation = patch.std()
    if distortion.noise:
        noise = np.random.Generator(np.random.Philox(distortion.noise_seed)).standard_normal(patch.shape, np.float32)
        patch = patch + np.float32(distortion.noise * deviation) * noise
    return np.float32(distortion.stretch) * patch + np.float32(distortion.shift * deviation)


def _bias_field(shape: tuple[int, ...], coefficients: Sequence[float]) -> np.ndarray:
    """The smooth positive field of the first terms of `Distortion.bias`, float32."""
    z, y, x = np.ix_(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape))
    terms = (z, y, x, z * z, y * y, x * x, z * y, z * x, y * x)
    return np.exp(sum(np.float32(c) * term for c, term in zip(coefficients, terms, strict=False)))
