"""Procedural video clips: a textured shape that moves in one of ten ways before a textured background.

They stand in for Sports-1M where C3D's weights cannot be had: what a network learns from them is to tell kinds of
motion, as C3D learnt to tell kinds of sport. Every clip is a pure function of (seed, number).
"""

from __future__ import annotations

import numpy as np

KINDS = (
    "still", "left", "right", "up", "down", "clockwise", "counterclockwise", "growing", "shrinking", "swinging",
)  # fmt: skip
SHAPES = ("disc", "square", "triangle", "ring")
COLOURS = 3
WAVES = 4  # plane waves of a texture
NOISE = 0.1


def make_clip(seed: int, number: int, frames: int, size: int) -> tuple[np.ndarray, int]:
    """One clip and its kind of motion.

    Args:
        seed: of the whole set of clips.
        number: of the clip in the set, from 0.
        frames: of the clip.
        size: height and width in pixels.

    Returns:
        float32 (frames, y, x, 3) of zero mean and unit variance, and the index in KINDS.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    kind = int(rng.integers(len(KINDS)))
    x0, y0, angle, scale = motion(KINDS[kind], np.linspace(-1, 1, frames), rng)
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    dx, dy = x - x0[:, None, None], y - y0[:, None, None]
    cos, sin = (f(angle)[:, None, None] / scale[:, None, None] for f in (np.cos, np.sin))
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    inside = np.clip((1 - distance(SHAPES[rng.integers(len(SHAPES))], u, v)) * 4 + 0.5, 0, 1)[..., None]
    clip = inside * texture(u, v, rng) + (1 - inside) * texture(x, y, rng)
    clip += NOISE * rng.standard_normal(clip.shape)
    return ((clip - clip.mean()) / clip.std()).astype(np.float32), kind


def motion(kind: str, t: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Path of a shape: centre x and y (the picture is -1…1, y down), angle in radians and radius, one value a frame.

    Args:
        kind: of KINDS.
        t: time of each frame, -1…1.
        rng: draws place, size, speed and phase.
    """
    x, y, angle = rng.uniform(-0.25, 0.25) + 0 * t, rng.uniform(-0.25, 0.25) + 0 * t, rng.uniform(-3.14, 3.14) + 0 * t
    scale, speed, direction, phase = rng.uniform(0.35, 0.6), rng.uniform(0.3, 0.6), *rng.uniform(-3.14, 3.14, 2)
    step = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(kind, (0, 0))
    turn = {"clockwise": 1, "counterclockwise": -1}.get(kind, 0)
    grow = {"growing": 1, "shrinking": -1}.get(kind, 0)
    swing = 0.4 * np.sin(2 * np.pi * t + phase) if kind == "swinging" else 0 * t
    x = x + speed * step[0] * t + swing * np.cos(direction)
    y = y + speed * step[1] * t + swing * np.sin(direction)
    return x, y, angle + 2 * turn * speed * t, scale * np.exp(grow * speed * t)


def distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """How far (u, v) is from the middle of a shape (of a ring: from its line), where the boundary is at 1."""
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) / 0.85
    if shape == "triangle":
        return np.maximum(2 * v, np.sqrt(3) * np.abs(u) - v)
    radius = np.hypot(u, v)
    return radius if shape == "disc" else 1 + np.abs(radius - 0.75) / 0.3 - 0.75


def texture(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour and some plane waves of random direction, at the places (u, v): (…, 3)."""
    waves = np.zeros((*np.shape(u), COLOURS))
    for _ in range(WAVES):
        wavelength, direction, phase = rng.uniform(0.3, 1.5), *rng.uniform(-np.pi, np.pi, 2)
        along = u * np.cos(direction) + v * np.sin(direction)
        waves += np.sin(2 * np.pi * along / wavelength + phase)[..., None] * rng.uniform(-0.5, 0.5, COLOURS)
    return rng.uniform(-1, 1, COLOURS) + waves
