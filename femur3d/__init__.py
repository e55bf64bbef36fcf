"""femur3d: proximal femur segmentation in 3D MR images (Zeng et al., MLMI 2017) in TensorFlow 2 and Keras 3.

    from femur3d import segment
    result = segment("scan.nii.gz")

Importing the package imports no TensorFlow or JAX; `segment` and the modules that need one do so themselves.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "segment"]


def __getattr__(name: str) -> Any:
    if name != "segment":
        raise AttributeError(f"module 'femur3d' has no attribute {name!r}")
    from femur3d import cli

    with cli.quiet_imports():
        import femur3d.engines.backend  # noqa: F401  first: it says what is wrong with KERAS_BACKEND
        from femur3d.api import segment
    return segment
