"""A folded network as a plain function of NumPy arrays, computed by OpenVINO: on CPUs the faster way in bfloat16.

Optional (`pip install femur3d[openvino]`). The network is built anew from OpenVINO's operators and the Keras layers'
weights, so no model file is converted or read. OpenVINO's telemetry, part of its conversion tools, is never loaded.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from femur3d.network.blocks import Deconv3D


@functools.cache
def _openvino() -> Any:
    """The library, imported without its telemetry, for whose absence it has a stub. Raises ImportError."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def is_installed() -> bool:
    """Whether there is an OpenVINO that has the operators that are used here."""
    try:
        return hasattr(_openvino(), "opset13")
    except ImportError:
        return False


def version() -> str:
    """OpenVINO's version."""
    return str(_openvino().__version__).partition("-")[0]


def make_predict(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """P(femur) by UpperCls, as `predictor.make_predict`: float32 (batch, z, y, x) → float32 (batch, z, y, x).

    Computes in bfloat16 where the processor has it, otherwise in float32. The function keeps the weights of now. It
    raises MemoryError where OpenVINO runs out of memory, and takes one call at a time.

    Args:
        network: of `network.folded.fold_network` in bfloat16, or another without batch normalisation and Winograd.
    """
    core = _openvino().Core()
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    lock = threading.Lock()  # a request does not bear a second call before the first has ended
    options = {"INFERENCE_PRECISION_HINT": "bf16" if has_bfloat16 else "f32", "PERFORMANCE_HINT": "LATENCY"}

    @functools.lru_cache(maxsize=2)
    def request(shape: tuple[int, ...]) -> Any:
        return core.compile_model(_upper_probability(network, shape), "CPU", options).create_infer_request()

    def predict(patches: np.ndarray) -> np.ndarray:
        try:
            with lock:
                return request(patches.shape).infer([patches])[0]
        except RuntimeError as error:  # OpenVINO has no kind of its own for it
            if not any(word in str(error).lower() for word in ("alloc", "memory")):
                raise
            raise MemoryError(f"not enough for patches of {patches.shape[1:]} voxels") from error

    return predict


def _upper_probability(network: keras.Model, shape: tuple[int, ...]) -> Any:
    """The part of the network that inference needs, for patches of one shape (batch, z, y, x)."""
    ops = _openvino().opset13
    patches = ops.parameter(shape, np.float32)
    found = {id(network.input): ops.unsqueeze(patches, 1)}  # channels come second here
    logits = network.output["upper"]
    for layer in _ancestors(network, logits):
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        found[id(layer.output)] = _node(layer, [found[id(tensor)] for tensor in inputs])
    background, femur = (ops.gather(found[id(logits)], np.int64(channel), np.int64(1)) for channel in (0, 1))
    return _openvino().Model([ops.sigmoid(ops.subtract(femur, background))], [patches], "femur3d_upper")


def _ancestors(network: keras.Model, output: Any) -> list[keras.layers.Layer]:
    """The layers that `output` depends on, in the network's order."""
    needed, layers = {id(output)}, []
    for layer in reversed(network.layers):
        if id(layer.output) in needed and not isinstance(layer, keras.layers.InputLayer):
            layers.append(layer)
            needed.update(map(id, layer.input if isinstance(layer.input, list) else [layer.input]))
    return layers[::-1]


def _node(layer: keras.layers.Layer, inputs: list[Any]) -> Any:
    """One Keras layer as OpenVINO's operators. Raises TypeError for a kind that a folded network does not have."""
    ops = _openvino().opset13
    same = ([1, 1, 1], [1, 1, 1], [1, 1, 1])
    if isinstance(layer, keras.layers.Concatenate):
        return ops.concat(inputs, 1)
    if isinstance(layer, keras.layers.ReLU):
        return ops.relu(*inputs)
    if isinstance(layer, keras.layers.MaxPooling3D):
        return ops.max_pool(*inputs, [2, 2, 2], [1, 1, 1], [0, 0, 0], [0, 0, 0], [2, 2, 2]).output(0)
    if not isinstance(layer, keras.layers.Conv3D | keras.layers.Conv3DTranspose):
        raise TypeError(f"OpenVINO: no operator for {type(layer).__name__} {layer.name!r}")
    kernel, bias = (np.asarray(w, np.float32) for w in layer.get_weights())
    kernel = np.ascontiguousarray(kernel.transpose(4, 3, 0, 1, 2))  # (out, in, …), or (in, out, …) of a deconvolution
    if isinstance(layer, Deconv3D):
        product = ops.convolution_backprop_data(*inputs, kernel, [2, 2, 2])
    else:
        product = ops.convolution(*inputs, kernel, [1, 1, 1], *same)
    return ops.add(product, bias.reshape(1, -1, 1, 1, 1))
