"""Makes a synthetic T1-weighted hip scan whose femur is known exactly.

`anatomy` describes the hip by signed distances and `tissue` gives them grey values; here they pass through a scanner:
partial volume, a smooth bias field, Rician noise. Numbers measured on phantoms say that the code works; only real
scans say how good a model is.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from femur3d.phantom.anatomy import femur_distance
from femur3d.phantom.patient import Anatomy, BodyShape, FemurShape, sample_anatomy
from femur3d.phantom.shapes import Grid, crop
from femur3d.phantom.tissue import T1, Contrast, Textures, femur_window, render
from femur3d.volume import Volume, triple

SIDES = ("left", "right", "both")
LABELS = {"left": 1, "right": 2}
FIELD_OF_VIEW_MM = {"left": (220.0, 170.0, 180.0), "right": (220.0, 170.0, 180.0), "both": (400.0, 170.0, 180.0)}
CENTRE_MM = (92.0, 8.0, -27.0)  # of the field of view about a left hip; the femoral heads lie about y = z = 0
FULL_SCALE = 600.0  # intensity of subcutaneous fat
_ANATOMY, _TEXTURE, _BIAS, _NOISE = range(4)  # random streams: more noise leaves the anatomy as it is
_SLAB_VOXELS = 200_000  # voxels worked on at a time: a few arrays of them fit into the processor's cache


def make_phantom(
    seed: int,
    size: tuple[int, int, int] = (300, 200, 100),
    side: str = "left",
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    noise: float = 0.03,
    bias: float = 0.15,
    texture: float = 1.0,
    contrast: Contrast = T1,
) -> tuple[Volume, Volume]:
    """A synthetic hip scan and its true label map, a pure function of the arguments.

    Args:
        seed: names the patient; other streams of it draw texture, bias and noise.
        size: voxels along (x, y, z); the arrays have the shape (z, y, x).
        side: "left" or "right" hip, or "both". The right hip of a seed is the left one, mirrored voxel by voxel. What
            a wide spacing brings into view beyond the midline is there and labelled, too.
        spacing_mm: voxel size along (x, y, z). By default the field of view is 220×170×180 mm, 400 mm wide for both.
        noise: standard deviation of the noise in each channel, as a part of the intensity of fat.
        bias: standard deviation of the logarithm of the bias field.
        texture: 1 for fibres, septa and trabeculae as in a patient, 0 for uniform tissues.
        contrast: grey values of the tissues.

    Returns:
        The image, int16, never negative, and the label map, uint8 on the same grid: 1 left femur, 2 right femur,
        cortex included, where the centre of the voxel lies inside. Direction is the identity: x to the patient's left,
        y backwards, z upwards.

    Raises:
        ValueError: an unknown side, a size or spacing that is not positive, a negative noise, bias or texture.
    """
    _check(size, side, spacing_mm, float(np.min([noise, bias, texture])))
    fitted = tuple(extent / n for extent, n in zip(FIELD_OF_VIEW_MM[side], size, strict=True))
    spacing = np.asarray(spacing_mm or fitted, np.float64)
    centre = np.asarray(CENTRE_MM) * (side != "both", 1, 1)
    origin = centre - spacing * (np.asarray(size) - 1) / 2
    axes = [o + s * np.arange(n) for o, s, n in zip(origin, spacing, size, strict=True)]
    signal, label = _scan(patient_anatomy(seed), axes, spacing, smooth_textures(seed, axes, texture), contrast)
    image = _acquire(signal, seed, axes, noise, bias)
    geometry = Volume(image, triple(spacing), triple(origin))
    if side == "right":
        geometry, label = _mirrored(geometry), np.array([0, 2, 1], np.uint8)[label[:, :, ::-1]]
    return geometry, geometry.with_array(label)


def patient_anatomy(seed: int) -> Anatomy:
    """The true shapes behind `make_phantom(seed, …)`; a single right hip is the mirror image of `left`."""
    return sample_anatomy(_generator(seed, _ANATOMY))


def _check(size: tuple[int, ...], side: str, spacing: tuple[float, ...] | None, weakest: float) -> None:
    if side not in SIDES:
        raise ValueError(f"Expected a side of {', '.join(SIDES)}. Received: {side!r}")
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"Expected a size of three positive numbers of voxels (x, y, z). Received: {size}")
    if spacing is not None and (len(spacing) != 3 or not min(spacing) > 0):
        raise ValueError(f"Expected a spacing of three positive lengths (x, y, z) in mm. Received: {spacing}")
    if not weakest >= 0:
        raise ValueError(f"Expected noise, bias and texture of at least 0. Received: {weakest}")


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, stream))))


def _mirrored(volume: Volume) -> Volume:
    """The volume reflected at world x = 0."""
    x, y, z = volume.origin_mm
    last = x + (volume.array.shape[2] - 1) * volume.spacing_mm[0]
    return Volume(np.ascontiguousarray(volume.array[:, :, ::-1]), volume.spacing_mm, (-last, y, z))


def smooth_noise(
    rng: np.random.Generator, axes: list[np.ndarray], scale_mm: tuple[float, float, float], slant: float = 0.0
) -> np.ndarray:
    """Gaussian noise of unit variance, correlated over `scale_mm` along (x, y, z), at the axes' positions (mm).

    Coarse white noise is spread by one Gaussian weight matrix an axis, so the field depends on millimetres, not voxels.
    With a `slant` the field moves by that many millimetres along x for each along z.

    Returns:
        Array (nz, ny, nx), float32.
    """
    x, y, z = axes
    sheared = x - slant * z[:, None] if slant else x[None]
    weights = [_spread(positions, scale) for positions, scale in zip((sheared, y, z), scale_mm, strict=True)]
    coarse = rng.standard_normal([w.shape[-1] for w in weights[::-1]], dtype=np.float32)
    return np.matmul(np.matmul(weights[1], np.tensordot(weights[2], coarse, axes=1)), weights[0].swapaxes(-1, -2))


def _spread(positions: np.ndarray, scale: float) -> np.ndarray:
    """Gaussian weights (…, positions, knots) of unit length from knots every `scale` millimetres."""
    knots = np.arange(np.floor(positions.min() / scale) - 3, np.ceil(positions.max() / scale) + 4) * scale
    weights = np.exp(-np.square((positions[..., None] - knots) / scale))
    return (weights / np.linalg.norm(weights, axis=-1, keepdims=True)).astype(np.float32)


def smooth_textures(seed: int, axes: list[np.ndarray], strength: float) -> Textures:
    """The textures of a patient at the axes' world positions (mm); both halves of the body are mirror images."""
    rng = _generator(seed, _TEXTURE)
    folded = [np.abs(axes[0]), axes[1], axes[2]]
    recipes = (
        ((1.2, 2.0, 22.0), 0.0),
        ((5.0, 3.0, 2.2), -1.1),
        ((1.2, 1.2, 1.2), 0.0),
        ((9.0, 9.0, 9.0), 0.0),
        ((25.0, 25.0, 25.0), 0.0),
    )
    return Textures(*(np.float32(strength) * smooth_noise(rng, folded, scale, slant) for scale, slant in recipes))


def _scan(
    patient: Anatomy, axes: list[np.ndarray], spacing: np.ndarray, textures: Textures, contrast: Contrast
) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free signal (float32, fat = 1) and label map (uint8), both (z, y, x)."""
    nx, ny, nz = (len(a) for a in axes)
    signal, label = np.empty((nz, ny, nx), np.float32), np.zeros((nz, ny, nx), np.uint8)
    divisions = np.where(spacing > 2.5 * spacing.min(), 3, 1)  # thick slices: a soft edge alone would not do
    samples = [s * (np.arange(d) - d // 2) / d for s, d in zip(spacing, divisions, strict=True)]
    offsets = np.stack(np.meshgrid(*samples), axis=-1).reshape(-1, 3)
    edge = float(np.prod(spacing / divisions)) ** (1 / 3)
    for part, side in _parts(axes):
        shape = patient.left if side == "left" else patient.right
        points = [axis[slices] for axis, slices in zip(axes, part[::-1], strict=True)]
        grids = (_hip_grid(points, offset, patient.body) for offset in offsets)
        signal[part] = sum(render(grid, shape, patient.body, textures[part], edge, contrast) for grid in grids) / len(
            offsets
        )
        label[part] = LABELS[side] * _inside(_hip_grid(points, np.zeros(3), patient.body), shape)
    return signal, label


def _parts(axes: list[np.ndarray]) -> Iterator[tuple[tuple[slice, slice, slice], str]]:
    """Array slices (z, y, x) of slabs that fit the cache and lie in one half of the body, and the half's side."""
    nx, ny, nz = (len(a) for a in axes)
    midline = int(np.searchsorted(axes[0], 0.0))
    thickness = max(1, _SLAB_VOXELS // (nx * ny))
    for low in range(0, nz, thickness):
        z = slice(low, min(low + thickness, nz))
        for x, side in ((slice(0, midline), "right"), (slice(midline, nx), "left")):
            if x.stop > x.start:
                yield (z, slice(0, ny), x), side


def _hip_grid(points: list[np.ndarray], offset: np.ndarray, body: BodyShape) -> Grid:
    """The hip frame's coordinates of world points; left and right look the same in it."""
    x, y, z = (p + o for p, o in zip(points, offset, strict=True))
    lateral = np.abs(x) - body.head_distance_mm
    posterior, superior = y - body.centre_mm[0], z - body.centre_mm[1]
    return (
        lateral.astype(np.float32)[None, None, :],
        posterior.astype(np.float32)[None, :, None],
        superior.astype(np.float32)[:, None, None],
    )


def _inside(grid: Grid, shape: FemurShape) -> np.ndarray:
    inside = np.zeros(np.broadcast_shapes(*(g.shape for g in grid)), bool)
    part = femur_window(grid, shape)
    if part is not None:
        inside[part] = femur_distance(crop(grid, part), shape) < 0
    return inside


def _acquire(signal: np.ndarray, seed: int, axes: list[np.ndarray], noise: float, bias: float) -> np.ndarray:
    """Bias field and Rician noise on `signal`, then whole numbers: int16, at least 0, (z, y, x)."""
    if bias > 0:
        shading = smooth_noise(_generator(seed, _BIAS), axes, (110.0, 110.0, 110.0))
        signal = signal * np.exp(np.float32(bias) * shading)
    if noise > 0:
        rng = _generator(seed, _NOISE)
        real = rng.standard_normal(signal.shape, dtype=np.float32)
        real = np.float32(noise) * real + signal
        imaginary = np.float32(noise) * rng.standard_normal(signal.shape, dtype=np.float32)
        signal = np.hypot(real, imaginary)
    return np.rint(np.clip(signal * np.float32(FULL_SCALE), 0, 32767)).astype(np.int16)
