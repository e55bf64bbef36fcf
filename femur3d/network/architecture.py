"""The whole network of Fig. 1 in one expression, of whatever blocks; `network.unet` builds it of Keras's layers."""

from __future__ import annotations

from typing import Any

from femur3d.config import Network
from femur3d.network.blocks import Blocks
from femur3d.network.decoder import decode
from femur3d.network.encoder import encode
from femur3d.network.heads import classify


def logits_of(image: Any, config: Network, blocks: Blocks) -> dict[str, Any]:
    """Encoder, decoder, heads: an image (batch, z, y, x, 1) → logits 'lower', 'mid', 'upper' (batch, z, y, x, 2)."""
    levels = decode(encode(image, config.encoder_filters, blocks), config.decoder_filters, blocks)
    return classify(levels, config.decoder_filters, blocks)
