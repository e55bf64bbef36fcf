"""A fused network as a plain function of NumPy arrays, computed by OpenVINO: on CPUs the faster way in bfloat16.

Optional (`pip install '.[openvino]'`). The network is built anew from OpenVINO's operators and the Keras layers'
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

from femur3d.network.heads import probability


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
    """P(femur) by UpperCls, as `TensorFlowEngine.make_predict`: float32 (batch, z, y, x) → float32 (batch, z, y, x).

    Args:
        network: of `fused_for_inference` in bfloat16, or another without batch normalisation and Winograd.
    """
    function = make_function([network.input], [network.output["upper"]])

    return lambda patches: probability(function(patches[..., np.newaxis])[0])


def make_function(inputs: list[Any], outputs: list[Any]) -> Callable[..., list[np.ndarray]]:
    """A part of a network, as `TensorFlowEngine.make_function`.

    Computes in bfloat16 where the processor has it, otherwise in float32. The function keeps the weights of now. It
    raises MemoryError where OpenVINO runs out of memory, and takes one call at a time.

    Raises:
        TypeError: a layer is of a kind that a fused network does not have.
    """
    core = _openvino().Core()
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    options = {"INFERENCE_PRECISION_HINT": "bf16" if has_bfloat16 else "f32", "PERFORMANCE_HINT": "LATENCY"}
    model = _converted(inputs, outputs)
    request = functools.cache(lambda: core.compile_model(model, "CPU", options).create_infer_request())
    lock = threading.Lock()  # a request does not bear a second call before the first has ended

    def function(*arrays: np.ndarray) -> list[np.ndarray]:
        try:
            with lock:
                found = request().infer(list(arrays))
                return [found[i] for i in range(len(outputs))]
        except RuntimeError as error:  # OpenVINO has no kind of its own for it
            if not any(word in str(error).lower() for word in ("alloc", "memory")):
                raise
            raise MemoryError(f"not enough for patches of {arrays[0].shape[1:4]} voxels") from error

    return function


def _converted(inputs: list[Any], outputs: list[Any]) -> Any:
    """The part of the network between the tensors, for arrays of any batch and size. Channels come second inside."""
    ops = _openvino().opset13
    parameters = [ops.parameter([-1, -1, -1, -1, tensor.shape[-1]], np.float32) for tensor in inputs]
    found = {id(t): ops.transpose(p, [0, 4, 1, 2, 3]) for t, p in zip(inputs, parameters, strict=True)}
    for layer in _between(inputs, outputs):
        taken = layer.input if isinstance(layer.input, list) else [layer.input]
        found[id(layer.output)] = _node(layer, [found[id(tensor)] for tensor in taken])
    results = [ops.transpose(found[id(tensor)], [0, 2, 3, 4, 1]) for tensor in outputs]
    return _openvino().Model(results, parameters, "femur3d")


def _between(inputs: list[Any], outputs: list[Any]) -> list[keras.layers.Layer]:
    """The layers that compute `outputs` from `inputs`, each after those that it takes from."""
    layers = keras.Model(inputs, outputs).layers
    return [layer for layer in layers if not isinstance(layer, keras.layers.InputLayer)]


def _node(layer: keras.layers.Layer, inputs: list[Any]) -> Any:
    """One Keras layer as OpenVINO's operators. Raises TypeError for a kind that a fused network does not have."""
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
    if isinstance(layer, keras.layers.Conv3DTranspose):
        product = ops.convolution_backprop_data(*inputs, kernel, [2, 2, 2])
    else:
        product = ops.convolution(*inputs, kernel, [1, 1, 1], *same)
    return ops.add(product, bias.reshape(1, -1, 1, 1, 1))
