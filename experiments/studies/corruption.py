"""Corruptions of a scan, to see whether the quality flags notice them: pure functions of a volume.

Every function gives the same result for the same arguments. Call `corrupt`; KINDS holds the kinds, whose functions say
what the strength means.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from femur3d.data.preprocessing import cut
from femur3d.volume import Volume

PERIODS = 6  # of the patient's motion during the acquisition


def corrupt(volume: Volume, kind: str, strength: float, seed: int = 0) -> Volume:
    """The corrupted scan.

    Args:
        volume: any orientation and spacing; real numbers.
        kind: a name of `KINDS`.
        strength: see `KINDS`.
        seed: of what is random.

    Returns:
        float32 for changes of the intensities, on the same grid; changes of the field of view keep the dtype, and turn
        a label map just like its scan.

    Raises:
        ValueError: an unknown kind, or a strength that leaves no volume.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected one of {', '.join(KINDS)}. Received: {kind!r}")
    return KINDS[kind](volume, strength, np.random.Generator(np.random.Philox(seed)))


def add_noise(volume: Volume, strength: float, generator: np.random.Generator) -> Volume:
    """Rician noise, as in magnitude images; `strength` is sigma in parts of the 99th percentile."""
    array = volume.array.astype(np.float32)
    sigma = np.float32(strength * np.percentile(array, 99))
    real, imaginary = (sigma * generator.standard_normal(array.shape, np.float32) for _ in range(2))
    return volume.with_array(np.hypot(array + real, imaginary))


def add_motion(volume: Volume, strength: float, generator: np.random.Generator) -> Volume:
    """Ghosts along the array's last axis of a patient who moved `strength` mm to and fro along it.

    The lines of k-space along that axis were taken one after the other, each at another position: each has the phase
    of its own shift.
    """
    count, spacing_mm = volume.array.shape[2], volume.spacing_mm[0]
    frequency = np.fft.fftfreq(count)  # cycles a voxel
    time = np.fft.ifftshift(np.arange(count) / count)
    phase = generator.uniform(0, 2 * np.pi)
    shift = strength / spacing_mm * np.sin(2 * np.pi * PERIODS * time + phase)
    lines = np.fft.fft(volume.array.astype(np.float32), axis=2) * np.exp(-2j * np.pi * frequency * shift)
    return volume.with_array(np.abs(np.fft.ifft(lines, axis=2)).astype(np.float32))


def add_bias(volume: Volume, strength: float, generator: np.random.Generator) -> Volume:
    """A smooth field between exp(-strength) and exp(strength) over the scan, multiplied in."""
    coarse = generator.standard_normal((4, 4, 4)).astype(np.float32)
    zooms = np.divide(volume.array.shape, coarse.shape)
    field = ndimage.zoom(coarse, zooms, order=3, mode="nearest", grid_mode=True)
    low, high = field.min(), field.max()
    exponent = strength * (2 * (field - low) / (high - low) - 1)
    return volume.with_array(volume.array.astype(np.float32) * np.exp(exponent))


def blur(volume: Volume, strength: float, _: np.random.Generator) -> Volume:
    """Low resolution: a Gaussian of `strength` mm standard deviation in all directions."""
    sigma = [strength / mm for mm in volume.spacing_mm[::-1]]
    return volume.with_array(ndimage.gaussian_filter(volume.array.astype(np.float32), sigma, mode="nearest"))


def crop_top(volume: Volume, strength: float, _: np.random.Generator) -> Volume:
    """A field of view whose superior `strength` mm are cut off."""
    return cut(volume, top_box(volume, strength, keep=False))


def keep_top(volume: Volume, strength: float, _: np.random.Generator) -> Volume:
    """Another part of the body: only the superior `strength` mm of the field of view."""
    return cut(volume, top_box(volume, strength, keep=True))


def turn_over(volume: Volume, strength: float, _: np.random.Generator) -> Volume:
    """The patient upside down in world coordinates, turned by 180° around the front-back axis; of any strength."""
    superior, left = (_axis_towards(volume, world) for world in (2, 0))
    return volume.with_array(np.ascontiguousarray(np.flip(volume.array, (superior, left))))


Change = Callable[[Volume, float, np.random.Generator], Volume]
KINDS: dict[str, Change] = {
    "noise": add_noise,
    "motion": add_motion,
    "bias": add_bias,
    "blur": blur,
    "cropped head": crop_top,
    "wrong body part": keep_top,
    "upside down": turn_over,
}


def top_box(volume: Volume, depth_mm: float, keep: bool) -> tuple[slice, ...]:
    """Slices (z, y, x) of the superior `depth_mm` of a volume, or of all but these.

    Raises:
        ValueError: nothing or all would be left.
    """
    axis = _axis_towards(volume, 2)
    size, up = volume.array.shape[axis], np.reshape(volume.direction, (3, 3))[2, 2 - axis] > 0
    count = round(depth_mm / volume.spacing_mm[2 - axis])
    if not 0 < count < size:
        raise ValueError(f"Expected between 1 and {size - 1} slices. Received: {count} ({depth_mm} mm)")
    border = size - count if up else count
    top, rest = (slice(border, size), slice(0, border)) if up else (slice(0, border), slice(border, size))
    box = [slice(0, n) for n in volume.array.shape]
    box[axis] = top if keep else rest
    return tuple(box)


def _axis_towards(volume: Volume, world: int) -> int:
    """The array axis nearest to world axis 0 (left), 1 (posterior) or 2 (superior)."""
    return 2 - int(np.argmax(np.abs(np.reshape(volume.direction, (3, 3))[world])))
