"""The loss, equations (1) and (2) of section 2.1: deeply supervised cross-entropy plus an L2 penalty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keras import ops

from femur3d.config import HEADS, IGNORED, Loss

CERTAINLY_NOT = -1e4  # softplus and sigmoid of it are 0


def softmax_cross_entropy(labels: Any, logits: Any) -> Any:
    """Equation (1) as it is written, -log p(y = t) with p the softmax, averaged over voxels **(ours: the paper sums)**.

    `voxel_cross_entropy` is the same, computed with less; tests hold them together. Arguments as there, all known.
    """
    log_p = ops.take_along_axis(ops.log_softmax(logits, axis=-1), ops.cast(labels, "int32")[..., None], axis=-1)
    return ops.mean(-log_p)


def voxel_cross_entropy(labels: Any, logits: Any, over: Any = ops) -> Any:
    """Equation (1), averaged over the voxels with a label **(ours)**: `softmax_cross_entropy` in one pass over memory.

    Of two classes the softmax is the sigmoid of the margin m by which the femur's logit exceeds the background's, and
    -log p(t) is softplus(m) - t·m.

    Args:
        labels: (batch, z, y, x), 0 background, 1 femur, IGNORED: counts for nothing; any dtype.
        logits: (batch, z, y, x, 2), float.
        over: what has `mean` and `sum` over all voxels of the batch; not Keras's, where replicas share a batch.

    Returns:
        Scalar, float32.
    """
    femur, margin, known = _known(labels, logits)
    mean = over.mean(ops.softplus(margin) - femur * margin)
    return mean / ops.maximum(over.mean(known), 1e-6)  # the mean over the known voxels: the others have added nothing


def soft_dice_loss(labels: Any, logits: Any, over: Any = ops) -> Any:
    """1 - soft Dice of the femur, over the batch as one; not in the paper. Arguments as `voxel_cross_entropy`."""
    femur, margin, _ = _known(labels, logits)
    probability = ops.sigmoid(margin)
    both = over.sum(probability * femur)
    return 1.0 - (2.0 * both + 1.0) / (over.sum(probability) + over.sum(femur) + 1.0)


def _known(labels: Any, logits: Any) -> tuple[Any, Any, Any]:
    """1 where the femur is, the margin of the logits, 1 where the label is known; float32 (batch, z, y, x).

    Where it is IGNORED, the margin says background with certainty and no gradient: neither loss counts the voxel.
    """
    labels = ops.cast(labels, "float32")
    known = ops.cast(ops.not_equal(labels, IGNORED), "float32")
    return ops.where(known > 0, labels, 0.0), ops.where(known > 0, _margin(logits), CERTAINLY_NOT), known


def _margin(logits: Any) -> Any:
    """By how much the femur's logit exceeds the background's; its sigmoid is the softmax over these two classes."""
    background, femur = ops.unstack(logits, axis=-1)  # slices would each have a gradient of the logits' size
    return femur - background


def l2_penalty(weights: Iterable[Any]) -> Any:
    """ψ of equation (2): ½‖w‖² over convolution kernels (weights of rank 5), not over biases, γ and β **(ours)**."""
    return 0.5 * sum(ops.sum(ops.square(w)) for w in weights if len(w.shape) == 5)


def total_loss(
    labels: Any, logits: Mapping[str, Any], weights: Iterable[Any], config: Loss, over: Any = ops
) -> dict[str, Any]:
    """Equation (2): Σ_c α_c·CE_c + λ·ψ, and its parts.

    Args:
        labels: (batch, z, y, x).
        logits: `lower`, `mid`, `upper`, each (batch, z, y, x, 2).
        weights: the network's trainable weights; the penalty takes the kernels among them.
        config: α, λ, and the weight of `soft_dice_loss` beside each head's cross-entropy, 0 in the paper.
        over: see `voxel_cross_entropy`.

    Returns:
        `loss`, `ce_lower`, `ce_mid`, `ce_upper`, `l2_penalty` (λ·ψ), and `dice_upper` where it has a weight; scalars.
    """
    alpha = dict(zip(HEADS, config.head_weights, strict=True))
    terms = {f"ce_{head}": voxel_cross_entropy(labels, logits[head], over) for head in HEADS}
    terms["l2_penalty"] = config.l2 * l2_penalty(weights)
    loss = terms["l2_penalty"] + sum(alpha[head] * terms[f"ce_{head}"] for head in HEADS)
    if config.dice_weight:
        dice = {head: soft_dice_loss(labels, logits[head], over) for head in HEADS}
        loss = loss + config.dice_weight * sum(alpha[head] * dice[head] for head in HEADS)
        terms["dice_upper"] = 1.0 - dice["upper"]
    return {"loss": loss, **terms}
