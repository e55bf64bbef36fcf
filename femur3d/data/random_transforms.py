"""Random contrasts, faults of scanners and fields of view, so that a network learns shapes, not a contrast **(ours)**.

Not in the paper. Each transform is a pure function of arrays and a generator; `config.Transforms` says how often each
is done. Intensities come and go as zero mean and unit variance over the body ('body' normalisation). In between they
are *shares*: 0 is the darkest percentile of the volume, 1 the brightest. What is dark stays dark: air and cortical bone
give no signal in any contrast.

The ideas: remapping by random curves (Zhou et al. 2019, Models Genesis), by one curve for each class (Su et al. 2023,
SLAug), contrasts and resolutions at random (Billot et al. 2023, SynthSeg), low resolution (Isensee et al. 2021,
nnU-Net).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

from femur3d.config import Transforms
from femur3d.data.cleaning import AIR

KNOTS = (3, 7)  # of a random curve, from and below
DARK = (0.06, 0.2)  # shares: below the first everything stays as dark as it is, above the second the curve alone counts
MARROW_DARK = (0.15, 0.35)  # the same for the femur's inside: its cortex stays dark
FAT = (0.25, 0.60)  # where the bright mode begins, from and to: dark marrow is fat, too
FAT_RAMP = (0.01, 0.30)  # over how much it is pressed down
FAT_GRAIN = 0.1  # noise of what is pressed down, at most: marrow half as bright as fat comes out speckled
WAVES_MM = (80.0, 300.0)  # lengths of the waves that regions and bias fields consist of
MAX_BIAS = 0.8  # standard deviation of the bias field's logarithm, at most
SLICES_MM = (1.0, 6.0)
MAX_NOISE = 0.3  # standard deviations of the body
RINGING = (0.5, 0.9)  # parts of the frequencies that are kept along an axis
REFERENCE_VOXELS = 16_384
INSIDE_MM = 2.0  # standard deviation of the smoothing that tells how far inside the femur a voxel is


@dataclasses.dataclass(frozen=True, eq=False)
class Voxels:
    """Some voxels of a volume in any order.

    Attributes:
        values: float32 (n,), intensities: normalised ones, or shares, see above.
        femur: float32 (n,), 0 outside the femur to 1 well inside.
        position_mm: float32 (3, n), (z, y, x) from the volume's centre.
    """

    values: np.ndarray
    femur: np.ndarray
    position_mm: np.ndarray


def reference_of(image: np.ndarray, label: np.ndarray, spacing_mm: np.ndarray) -> Voxels:
    """Random voxels of a volume (z, y, x), the same each time: they tell its normalisation in another contrast."""
    places = np.random.Generator(np.random.PCG64(0)).integers(0, image.shape, (REFERENCE_VOXELS, 3))
    at = tuple(places.T)
    position = (places - (np.asarray(image.shape) - 1) / 2) * spacing_mm
    return Voxels(image[at].astype(np.float32), (label[at] == 1).astype(np.float32), position.T.astype(np.float32))


def change_contrast(
    patch: np.ndarray,
    label: np.ndarray,
    centre_mm: np.ndarray,
    spacing_mm: np.ndarray,
    reference: Voxels,
    transforms: Transforms,
    rng: np.random.Generator,
) -> np.ndarray:
    """The patch as another scanner might have seen it, float32, normalised as its whole volume would be then.

    Args:
        patch: (z, y, x), normalised by the body.
        label: (z, y, x), 1 is femur.
        centre_mm: of the patch from the volume's centre, (z, y, x).
        spacing_mm: (z, y, x).
        reference: of the volume, by `reference_of`.
        transforms: how often what is done.
        rng: where the random numbers come from.
    """
    voxels = _together(patch, label, centre_mm, spacing_mm, reference)
    shares = remap(voxels, transforms, rng)
    if rng.random() < transforms.fat_suppression:
        shares = suppress_fat(shares, rng)
    if rng.random() < transforms.bias:
        shares = shares * bias_field(voxels.position_mm, rng)
    if rng.random() < transforms.bright_air:
        shares = lift_air(shares, voxels.values, rng)
    noise = 0.0
    mean, deviation = body_statistics(shares[patch.size :])
    image = ((shares[: patch.size] - mean) / deviation).reshape(patch.shape)
    if rng.random() < transforms.resolution:
        image = thick_slices(image, spacing_mm, rng)
    if rng.random() < transforms.ringing:
        image = ring(image, rng)
    if rng.random() < transforms.noise:
        noise = rng.uniform(0, MAX_NOISE)
        image = image + np.float32(noise) * rng.standard_normal(image.shape, np.float32)
    return (image / np.float32(np.hypot(1, noise))).astype(np.float32)


def _together(
    patch: np.ndarray, label: np.ndarray, centre_mm: np.ndarray, spacing_mm: np.ndarray, reference: Voxels
) -> Voxels:
    """The patch's voxels, then the reference's; their values are shares."""
    mask = (label == 1).astype(np.float32)
    inside = np.clip(2 * ndimage.gaussian_filter(mask, INSIDE_MM / spacing_mm, mode="nearest") - 1, 0, 1)
    axes = [c + s * (np.arange(n) - (n - 1) / 2) for c, s, n in zip(centre_mm, spacing_mm, patch.shape, strict=True)]
    places = np.stack(np.broadcast_arrays(*np.ix_(*axes))).reshape(3, -1)
    values = np.concatenate([patch.ravel().astype(np.float32), reference.values])
    low, high = np.percentile(reference.values, (0.5, 99.5))
    return Voxels(
        (values - np.float32(low)) / np.float32(max(float(high - low), 1e-6)),
        np.concatenate([inside.ravel(), reference.femur]),
        np.concatenate([places.astype(np.float32), reference.position_mm], axis=1),
    )


def remap(voxels: Voxels, transforms: Transforms, rng: np.random.Generator) -> np.ndarray:
    """Shares after one random curve for all, another for some regions and one for the femur's inside, as drawn."""
    shares = voxels.values
    femur_too = rng.random() < transforms.femur
    marrow = new_marrow(shares, voxels.femur, rng) if femur_too else shares
    if rng.random() < transforms.remap:
        curves = [random_curve(rng) for _ in range(3)]
        changed = remapped(shares, curves[0])
        if rng.random() < transforms.regions:
            field = np.clip(0.5 + 1.5 * smooth_field(voxels.position_mm, rng), 0, 1)
            changed = changed + field * (remapped(shares, curves[1]) - changed)
        if not femur_too:
            return changed
        kept = remapped(marrow, curves[2]) if rng.random() < 0.3 else marrow
        return changed + voxels.femur * (kept - changed)
    return shares + voxels.femur * (marrow - shares) if femur_too else shares


def random_curve(rng: np.random.Generator) -> np.ndarray:
    """Values (65,), 0 to 1, of a curve at shares from 0 to 1: rising, falling (one in five each) or neither."""
    values = rng.uniform(0, 1, rng.integers(*KNOTS))
    kind = rng.random()
    if kind < 0.4:
        values = np.sort(values)[:: 1 if kind < 0.2 else -1]
    places = np.sort(rng.uniform(0, 1, len(values)))
    places[[0, -1]] = 0, 1
    curve = ndimage.gaussian_filter1d(np.interp(np.linspace(0, 1, 65), places, values), 5, mode="nearest")
    spread = np.ptp(curve)
    return (curve - curve.min()) / spread if spread > 0.2 else curve


def remapped(shares: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Shares through a curve of `random_curve`; what is dark stays dark."""
    grid = np.linspace(0, 1, len(curve))
    return np.minimum(shares, 1) + smooth_step(shares, *DARK) * (
        np.interp(shares, grid, curve).astype(np.float32) - np.minimum(shares, 1)
    )


def new_marrow(shares: np.ndarray, femur: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shares in which what is bright in the femur has another mean and another, possibly reversed, texture."""
    inside = shares[(femur > 0.5) & (shares > MARROW_DARK[1])]
    middle = inside.mean() if inside.size else np.float32(0.7)
    mean, factor = rng.uniform(0.05, 1.0), rng.uniform(0.2, 1.2) * rng.choice([1, 1, -1])
    changed = np.float32(mean) + np.float32(factor) * (shares - middle)
    return shares + smooth_step(shares, *MARROW_DARK) * (np.maximum(changed, 0) - shares)


def suppress_fat(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shares in which the bright mode is pressed down, voxel by voxel a little earlier or later."""
    start, ramp, strength = rng.uniform(*FAT), rng.uniform(*FAT_RAMP), rng.uniform(0.6, 0.97)
    grainy = shares + np.float32(rng.uniform(0, FAT_GRAIN)) * rng.standard_normal(shares.shape, np.float32)
    return shares * (1 - np.float32(strength) * smooth_step(grainy, start, start + ramp))


def smooth_field(position_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random field (n,), float32, that changes over centimetres: the sum of three waves, deviation about 1."""
    field = np.zeros(position_mm.shape[1], np.float32)
    for _ in range(3):
        direction = rng.standard_normal(3)
        wave = 2 * np.pi * direction / (np.linalg.norm(direction) * rng.uniform(*WAVES_MM))
        field += np.sin(wave.astype(np.float32) @ position_mm + np.float32(rng.uniform(0, 2 * np.pi)))
    return field * np.float32(np.sqrt(2 / 3))


def bias_field(position_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Factors (n,), float32: shading over centimetres, and darker the farther from the middle, as coils give it."""
    field = np.float32(rng.uniform(0, 0.75 * MAX_BIAS)) * smooth_field(position_mm / 2, rng)
    fall = rng.uniform(-0.3, MAX_BIAS, 3).astype(np.float32) / np.float32(150.0**2)
    return np.exp(np.clip(field - fall @ np.square(position_mm), -2, 1))


def lift_air(shares: np.ndarray, before: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shares in which what was air is as bright as it may be: an image turned inside out."""
    return shares + np.float32(rng.uniform(0.3, 1)) * (1 - smooth_step(before, *DARK))


def body_statistics(shares: np.ndarray) -> tuple[np.float32, np.float32]:
    """Mean and deviation that 'body' normalisation would use for these voxels."""
    darkest, bright = np.percentile(shares, (1, 99))
    body = shares[shares > darkest + AIR * (bright - darkest)]
    return (np.float32(body.mean()), np.float32(max(body.std(), 1e-3))) if body.size else (np.float32(0), np.float32(1))


def thick_slices(image: np.ndarray, spacing_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image as if acquired in slices across one axis and interpolated again; none thinner than a voxel."""
    axis, thickness = int(rng.integers(3)), rng.uniform(*SLICES_MM)
    voxels, n = thickness / float(spacing_mm[axis]), image.shape[axis]
    if voxels <= 1:
        return image
    matrix = slice_matrix(n, voxels, rng.uniform(0, 1))
    return np.moveaxis(np.tensordot(matrix, image, axes=(1, axis)), 0, axis)


def slice_matrix(n: int, thickness: float, phase: float) -> np.ndarray:
    """Matrix (n, n), float32: averages over slices of `thickness` voxels, then interpolates linearly between them.

    Args:
        n: voxels.
        thickness: of a slice, more than 1 voxel.
        phase: 0 to 1, where the first slice lies.
    """
    centres = np.arange(phase * thickness - thickness, n - 1 + thickness, thickness)
    edges = np.abs(np.arange(n) - centres[:, None])
    weights = np.clip(thickness / 2 + 0.5 - edges, 0, 1)
    known = weights.sum(axis=1) > 0.5
    centres, weights = centres[known], weights[known] / weights[known].sum(axis=1, keepdims=True)
    hats = np.stack([np.interp(np.arange(n), centres, unit) for unit in np.eye(len(centres))], axis=1)
    return (hats @ weights).astype(np.float32)


def ring(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image without its highest frequencies along one axis: Gibbs's ringing at edges."""
    axis = int(rng.integers(3))
    spectrum = np.fft.rfft(image, axis=axis)
    kept = int(np.ceil(spectrum.shape[axis] * rng.uniform(*RINGING)))
    np.moveaxis(spectrum, axis, 0)[kept:] = 0
    return np.fft.irfft(spectrum, image.shape[axis], axis=axis).astype(np.float32)


def smooth_step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between; float32."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def narrow_view(image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image and label with nothing beyond a plane across one axis: up to half of it is dark."""
    axis, share, end = int(rng.integers(3)), rng.uniform(0, 0.5), bool(rng.integers(2))
    image, label = image.copy(), label.copy()
    n = round(share * image.shape[axis])
    part = (slice(None),) * axis + (slice(image.shape[axis] - n, None) if end else slice(0, n),)
    darkest = image.min()
    image[part], label[part] = darkest, 0
    return image, label
