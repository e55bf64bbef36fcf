"""femur3d: proximal femur segmentation in 3D MR images (Zeng et al., MLMI 2017) in TensorFlow 2 and Keras 3.

    from femur3d import segment
    result = segment("scan.nii.gz")

Importing the package imports no TensorFlow or JAX; `segment` does, where one of them computes.
"""

from __future__ import annotations

import os
from typing import Any

__version__ = "0.2.0"
__all__ = ["__version__", "segment", "segment_many"]

# TensorFlow turns oneDNN on by itself only where there is AVX-512; with AVX2 alone its own 3D convolutions take five
# times as long (a step of hip_t1 on an AMD Zen 3: 5.8 s, with oneDNN 1.2 s). It reads this when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def __getattr__(name: str) -> Any:
    if name not in ("segment", "segment_many"):
        raise AttributeError(f"module 'femur3d' has no attribute {name!r}")
    from femur3d import api

    return getattr(api, name)
