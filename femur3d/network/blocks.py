"""What the network is made of, whoever computes it: `keras_blocks`, the engine of OpenVINO, the list of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Blocks(Protocol):
    """The network's two blocks and what joins them (section 2, Fig. 1); tensors are (batch, z, y, x, channels)."""

    def conv(self, x: Any, filters: int, name: str) -> Any:
        """3×3×3 convolution (stride 1, same padding **(ours)**), batch normalisation, ReLU."""

    def deconv(self, x: Any, filters: int, name: str) -> Any:
        """2×2×2 transposed convolution of stride 2 **(ours)**, batch normalisation, ReLU: doubles z, y and x."""

    def pool(self, x: Any, name: str) -> Any:
        """2×2×2 max pooling of stride 2: halves z, y and x."""

    def concatenate(self, parts: Sequence[Any], name: str) -> Any:
        """The channels of all parts, in order."""

    def classifier(self, x: Any, classes: int, name: str) -> Any:
        """3×3×3 convolution without normalisation: logits, float32."""
