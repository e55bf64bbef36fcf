"""Batch normalisation multiplied into the convolution before it, for inference.

There a batch normalisation is y = s·x + t with constants s and t for each channel: the same numbers in fewer passes
over memory, and in bfloat16 nothing is left that would want float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from femur3d.errors import InputError

_EXPECTED = "Expected the model of a sound training."


def folded(
    name: str, weights: Sequence[np.ndarray], normalisation: Sequence[np.ndarray], epsilon: float, transposed: bool
) -> list[np.ndarray]:
    """Kernel and bias of a convolution with the normalisation behind it.

    Args:
        name: of the convolution, for errors.
        weights: kernel (z, y, x, in, out), or (z, y, x, out, in) of a transposed one, and bias (out,).
        normalisation: γ, β, moving mean and moving variance, each (out,).
        epsilon: of the normalisation.
        transposed: whether it is a transposed convolution.

    Raises:
        InputError: weights that give no finite kernel, or a negative variance.
    """
    kernel, bias = weights
    gamma, beta, mean, variance = (w.astype(np.float64) for w in normalisation)
    if variance.min() < 0:
        raise InputError(f"Layer {name}_bn has a negative variance, {variance.min():.3g}.\n{_EXPECTED}")
    scale = gamma / np.sqrt(variance + epsilon)
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        by_channel = (scale[:, None] if transposed else scale).astype(np.float32)
        kernel = kernel * by_channel  # in double precision it would take three times as long
        bias = ((bias - mean) * scale + beta).astype(np.float32)
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise InputError(f"Layer {name} has weights that are beyond float32 at inference.\n{_EXPECTED}")
    return [kernel, bias]


def all_folded(weights: Mapping[str, Sequence[np.ndarray]], epsilon: float) -> dict[str, list[np.ndarray]]:
    """Kernel and bias of every convolution of a `TrainedModel.weights`. Raises InputError as `folded`."""
    return {
        name: folded(name, layer, weights[f"{name}_bn"], epsilon, "deconv" in name)
        if f"{name}_bn" in weights
        else list(layer)
        for name, layer in weights.items()
        if not name.endswith("_bn")
    }
