"""OpenVINO: the light engine. It segments, on CPUs; neither TensorFlow nor Keras is imported or has to be installed.

The network is built of OpenVINO's operators by the builders of `network/`, so no model file is converted or read.
Channels come second inside. OpenVINO's telemetry, part of its conversion tools, is never loaded.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from femur3d.engines import coarse_to_fine
from femur3d.engines.folding import all_folded
from femur3d.engines.hardware import cpu_name
from femur3d.inference.mode import Mode, Prepared
from femur3d.inference.saved_model import TrainedModel
from femur3d.network.architecture import logits_of
from femur3d.network.heads import probability

Function = Callable[..., list[np.ndarray]]
# By itself OpenVINO keeps up to 5000 operators, each made for one shape: 0.85 GB after the 294 shapes of some scans.
KEEP_NO_SHAPES = {"CPU_RUNTIME_CACHE_CAPACITY": "0"}
IMAGE, LOWER = "image", "lower_conv_b"  # tensors by the layer that they come from


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


class OpenVinoEngine:
    """See `inference.mode.Engine`."""

    name = "openvino"

    def make_repeatable(self, training: bool = False) -> None:
        """OpenVINO gives the same bits every time by itself."""

    def device_name(self) -> str:
        """See `inference.mode.Engine.device_name`."""
        return cpu_name()

    def prepare(self, model: TrainedModel, mode: Mode) -> Prepared:
        """See `inference.mode.Engine.prepare`; in bfloat16 only where the processor has it, otherwise in float32."""
        graph = Graph(model, mode.dtype)
        if mode.coarse_to_fine:
            look = graph.function([IMAGE], ["lower_cls", LOWER])
            predict = coarse_to_fine.make_predict(look, graph.function([IMAGE, LOWER], ["upper_cls"]))
        else:
            upper = graph.function([IMAGE], ["upper_cls"])

            def predict(patches: np.ndarray) -> np.ndarray:
                return probability(upper(patches[..., np.newaxis])[0])

        heads = ("lower", "mid", "upper")
        all_heads = graph.function([IMAGE], [f"{head}_cls" for head in heads])

        def predict_heads(patches: np.ndarray) -> dict[str, np.ndarray]:
            found = [list(map(probability, all_heads(one[np.newaxis, ..., np.newaxis]))) for one in patches]
            return {
                head: np.reshape([some[i] for some in found], patches.shape).astype(np.float32, copy=False)
                for i, head in enumerate(heads)
            }

        version = str(_openvino().__version__).partition("-")[0]
        return Prepared(predict, predict_heads, {"openvino": version}, (RuntimeError,))


class Graph:
    """A trained network, of which any part can become a function."""

    def __init__(self, model: TrainedModel, dtype: str) -> None:
        self._config = model.network_config
        self._weights = all_folded(model.weights, self._config.bn_epsilon)
        self._core = _openvino().Core()
        has_bfloat16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precision = "bf16" if dtype == "bfloat16" and has_bfloat16 else "f32"
        self._options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}

    def function(self, inputs: Sequence[str], outputs: Sequence[str]) -> Function:
        """A function of one array for each input, float32 (batch, z, y, x, channels) of any batch and size.

        It is compiled when it is first called, takes one call at a time, and raises MemoryError where OpenVINO runs
        out of memory.

        Args:
            inputs: names of tensors to start from: IMAGE, and layers whose output is given as well.
            outputs: names of layers; the function returns an array for each, float32.
        """
        request = functools.cache(lambda: self._compiled(inputs, outputs).create_infer_request())
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

    def _compiled(self, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
        ops = _openvino().opset13
        channels = [1 if name == IMAGE else len(self._weights[name][1]) for name in inputs]
        parameters = [ops.parameter([-1, -1, -1, -1, count], np.float32) for count in channels]
        given = {n: ops.transpose(p, [0, 4, 1, 2, 3]) for n, p in zip(inputs, parameters, strict=True)}
        blocks = _Blocks(self._weights, given)
        logits_of(given[IMAGE], self._config, blocks)
        results = [ops.transpose(blocks.made[name], [0, 2, 3, 4, 1]) for name in outputs]
        model = _openvino().Model(results, parameters, "femur3d")  # what no result needs is not part of it
        try:
            return self._core.compile_model(model, "CPU", self._options | KEEP_NO_SHAPES)
        except RuntimeError:  # a version that does not know it
            return self._core.compile_model(model, "CPU", self._options)


class _Blocks:
    """`network.blocks.Blocks` of OpenVINO's operators; tensors are (batch, channels, z, y, x).

    Attributes:
        made: the output of every layer by its name; those that are given are not computed.
    """

    def __init__(self, weights: Mapping[str, Sequence[np.ndarray]], given: Mapping[str, Any]) -> None:
        self._ops, self._weights, self.made = _openvino().opset13, weights, dict(given)

    def conv(self, x: Any, filters: int, name: str) -> Any:
        if name not in self.made:
            self.made[name] = self._ops.relu(self._convolved(x, name))
        return self.made[name]

    def deconv(self, x: Any, filters: int, name: str) -> Any:
        kernel, bias = self._weights[name]
        product = self._ops.convolution_backprop_data(x, _channels_first(kernel), [2, 2, 2])
        return self._ops.relu(self._ops.add(product, bias.reshape(1, -1, 1, 1, 1)))

    def pool(self, x: Any, name: str) -> Any:
        return self._ops.max_pool(x, [2, 2, 2], [1, 1, 1], [0, 0, 0], [0, 0, 0], [2, 2, 2]).output(0)

    def concatenate(self, parts: Sequence[Any], name: str) -> Any:
        return self._ops.concat(list(parts), 1)

    def classifier(self, x: Any, classes: int, name: str) -> Any:
        self.made[name] = self._convolved(x, name)
        return self.made[name]

    def _convolved(self, x: Any, name: str) -> Any:
        kernel, bias = self._weights[name]
        product = self._ops.convolution(x, _channels_first(kernel), [1, 1, 1], *[[1, 1, 1]] * 3)
        return self._ops.add(product, bias.reshape(1, -1, 1, 1, 1))


def _channels_first(kernel: np.ndarray) -> np.ndarray:
    """(z, y, x, a, b) → (b, a, z, y, x): (out, in, …), or (in, out, …) of a transposed convolution."""
    return np.ascontiguousarray(kernel.transpose(4, 3, 0, 1, 2))
