"""The network of femur3d in PyTorch, layer by layer: the peer of network.py (`pip install '.[bench]'`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from femur3d.config import HEADS, Experiment, Network

Weights = dict[str, list[np.ndarray]]  # Keras's layout, by layer
FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last_3d}

STAGES = (("conv1a",), ("conv2a",), ("conv3a", "conv3b"), ("conv4a", "conv4b"))
HEAD_DECONVS = {"lower": ("lower_cls_deconv1", "lower_cls_deconv2"), "mid": ("mid_cls_deconv1",), "upper": ()}


def build_layers(config: Network) -> Any:
    """The layers, a ModuleDict by the names that they have in femur3d."""
    a, b, c, d = config.encoder_filters
    lower, mid, upper = config.decoder_filters
    convs = {"conv1a": (1, a), "conv2a": (a, b), "conv3a": (b, c), "conv3b": (c, c), "conv4a": (c, d), "conv4b": (d, d)}
    for level, skip, width in (("lower", c, lower), ("mid", b, mid), ("upper", a, upper)):
        convs |= {f"{level}_conv_a": (width + skip, width), f"{level}_conv_b": (width, width)}
    deconvs = {"lower_deconv": (d, lower), "mid_deconv": (lower, mid), "upper_deconv": (mid, upper)}
    deconvs |= {"lower_cls_deconv1": (lower, mid), "lower_cls_deconv2": (mid, upper), "mid_cls_deconv1": (mid, upper)}
    heads = {f"{head}_cls": (upper, 2) for head in HEADS}
    layers = nn.ModuleDict({name: nn.Conv3d(*io, 3, padding=1) for name, io in {**convs, **heads}.items()})
    layers.update({name: nn.ConvTranspose3d(*io, 2, stride=2) for name, io in deconvs.items()})
    for name, (_, width) in {**convs, **deconvs}.items():
        layers[f"{name}_bn"] = nn.BatchNorm3d(width, eps=config.bn_epsilon, momentum=1 - config.bn_momentum)
    return layers


def load_weights(layers: Any, weights: Weights) -> int:
    """Copies femur3d's weights: kernels (z, y, x, i, j) → (j, i, z, y, x), which fits both kinds of convolution.

    Returns:
        The number of layers.

    Raises:
        ValueError: one side has a layer that the other has not.
    """
    if set(weights) != set(layers):
        raise ValueError(f"Only one side has the layers {sorted(set(weights) ^ set(layers))}.")
    for name, arrays in weights.items():
        arrays = [np.transpose(a, (4, 3, 0, 1, 2)) if a.ndim == 5 else a for a in arrays]
        targets = [t for key, t in layers[name].state_dict().items() if key != "num_batches_tracked"]
        for target, array in zip(targets, arrays, strict=True):  # in BN: γ, β, mean, variance on both sides
            target.copy_(torch.tensor(array))
    return len(weights)


def compute_logits(layers: Any, x: Any, heads: Sequence[str]) -> dict[str, Any]:
    """Logits (batch, 2, z, y, x) of some heads; heads that are not named are not computed."""
    skips: list[Any] = []
    for names in STAGES:
        x = nn.functional.max_pool3d(x, 2) if skips else x
        for name in names:
            x = _block(layers, name, x)
        skips.append(x)
    skips.pop()
    logits = {}
    for level in HEADS:
        x = torch.cat([_block(layers, f"{level}_deconv", x), skips.pop()], dim=1)
        x = _block(layers, f"{level}_conv_b", _block(layers, f"{level}_conv_a", x))
        if level in heads:
            logits[level] = _head(layers, level, x)
    return logits


def _block(layers: Any, name: str, x: Any) -> Any:
    return layers[f"{name}_bn"](layers[name](x)).relu_()


def _head(layers: Any, level: str, x: Any) -> Any:
    for name in HEAD_DECONVS[level]:
        x = _block(layers, name, x)
    return layers[f"{level}_cls"](x)


def all_logits(layers: Any, patch: np.ndarray) -> dict[str, np.ndarray]:
    """As the task "logits" of femur3d: channels last."""
    with torch.no_grad():
        logits = compute_logits(layers, torch.from_numpy(patch)[:, None], HEADS)
    return {head: np.moveaxis(y.numpy(), 1, -1) for head, y in logits.items()}


def _as_tensor(images: np.ndarray, layout: str) -> Any:
    return torch.from_numpy(images)[:, None].to(memory_format=FORMATS[layout])


def make_optimizer(layers: Any, experiment: Experiment) -> Any:
    """SGD; λ stands as weight decay of the kernels: the same gradient, and the cheaper way here."""
    kernels = [p for p in layers.parameters() if p.ndim == 5]
    others = [p for p in layers.parameters() if p.ndim != 5]
    groups = [{"params": kernels, "weight_decay": experiment.loss.l2}, {"params": others}]
    return torch.optim.SGD(groups, experiment.training.rate, experiment.training.momentum)


def cross_entropy(logits: dict[str, Any], femur: Any, head_weights: Sequence[float]) -> Any:
    """Weighted sum of the heads' mean cross-entropies; `femur` is 0 or 1, uint8 (batch, z, y, x)."""
    margins = {head: (y[:, 1] - y[:, 0]).float() for head, y in logits.items()}
    terms = {h: (nn.functional.softplus(m) - femur.float() * m).mean() for h, m in margins.items()}
    return sum(alpha * terms[head] for head, alpha in zip(HEADS, head_weights, strict=True))


def training_step(
    layers: Any, experiment: Experiment, images: np.ndarray, labels: np.ndarray, layout: str
) -> Callable[[], float]:
    """One update of SGD on the same loss."""
    optimizer = make_optimizer(layers, experiment)
    x, femur = _as_tensor(images, layout), torch.from_numpy(labels)

    def step() -> float:
        layers.train()
        optimizer.zero_grad()
        logits = compute_logits(layers, x, HEADS)
        total = cross_entropy(logits, femur, experiment.loss.head_weights)
        total.backward()
        optimizer.step()
        return float(total.detach())

    return step


def forward_pass(layers: Any, images: np.ndarray, layout: str) -> Callable[[], Sequence[int]]:
    """P(femur) by UpperCls of one patch, NumPy in and out, as femur3d's engines compute it."""

    def forward() -> Sequence[int]:
        layers.eval()
        with torch.inference_mode():
            logits = compute_logits(layers, _as_tensor(images, layout), ("upper",))["upper"]
            return (logits[:, 1] - logits[:, 0]).sigmoid().numpy().shape

    return forward
