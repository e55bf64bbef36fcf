"""What the engines have in common: how a trained network is made ready for scans, whichever of them computes."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import keras
import numpy as np

from femur3d.config import Loss
from femur3d.data.sampler import PatchSampler
from femur3d.engines import coarse_to_fine
from femur3d.engines.fused_for_inference import fuse_for_inference
from femur3d.engines.hardware import cpu_has_bfloat16
from femur3d.engines.layers.matmul_deconv import with_matmul_deconv
from femur3d.engines.layers.winograd import with_winograd
from femur3d.inference.mode import Mode, Prepared
from femur3d.inference.saved_model import TrainedModel
from femur3d.network.unet import LOWER_FEATURES, head_probabilities


class KerasEngine(abc.ABC):
    """An engine of training (`training.trainer.Engine`) and of inference (`inference.mode.Engine`).

    Attributes:
        name: of `engines.selection.NAMES`.
        errors: what an update or a forward pass may raise that is neither a user's mistake nor ours.
        versions: of the engine, for the provenance of what it made.
        takes_any_shape: whether functions of `make_function` meet a new shape without being compiled anew.
    """

    name: str
    errors: tuple[type[Exception], ...]
    versions: ClassVar[dict[str, str]]
    takes_any_shape: bool

    @abc.abstractmethod
    def make_repeatable(self, training: bool = True) -> None:
        """Has the engine give the same bits every time; to be called before anything is computed."""

    @abc.abstractmethod
    def patch_stream(self, sampler: PatchSampler, first_step: int, steps: int) -> Iterable:
        """The batches of steps `first_step` … `steps - 1`, in order, read ahead of the network.

        They are the same in every run, see `PatchSampler.batch`: images float32 (batch, z, y, x, 1), labels uint8
        (batch, z, y, x).
        """

    @abc.abstractmethod
    def make_train_step(
        self, network: keras.Model, optimizer: keras.optimizers.Optimizer, loss: Loss
    ) -> Callable[[Any, Any], dict[str, Any]]:
        """See `training.train_step.make_train_step`."""

    @abc.abstractmethod
    def make_predict(self, network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
        """P(femur) by UpperCls: float32 (batch, z, y, x) normalised patches → float32 (batch, z, y, x).

        The function sees the network's weights as they are at each call, and raises MemoryError where memory runs out.
        """

    @abc.abstractmethod
    def make_function(self, inputs: list[Any], outputs: list[Any]) -> Callable[..., list[np.ndarray]]:
        """A part of a network: a function of one array for each input, float32 (batch, z, y, x, channels).

        Args:
            inputs: symbolic tensors of the network to start from.
            outputs: tensors of it that depend on no others than those; the function returns a list of an array for
                each, float32. It keeps the weights of now; memory as in `make_predict`.
        """

    @abc.abstractmethod
    def device_name(self) -> str:
        """What the engine computes on, for people: 'CPU, 2 cores', 'GPU: NVIDIA H100'."""

    def on_cpu(self) -> bool:
        """Whether there is no GPU or TPU that the engine would compute on."""
        return all(device.startswith("cpu") for device in keras.distribution.list_devices())

    def prepare(self, model: TrainedModel, mode: Mode) -> Prepared:
        """A trained network ready for scans, as fast as the mode allows. Raises InputError for unsound weights."""
        dtype = mode.dtype if not self.on_cpu() or cpu_has_bfloat16() else "float32"
        fused = fuse_for_inference(model.network, dtype)
        faster = with_winograd(fused)
        if mode.coarse_to_fine and self.on_cpu() and self.takes_any_shape:
            features, logits = fused.get_layer(LOWER_FEATURES).output, fused.output
            look = self.make_function([fused.input], [logits["lower"], features])
            refine = self.make_function([fused.input, features], [logits["upper"]])
            predict = coarse_to_fine.make_predict(look, refine)
        else:
            predict = self.make_predict(faster)
        predict_heads = functools.partial(head_probabilities, with_matmul_deconv(faster))
        return Prepared(predict, predict_heads, {**self.versions, "keras": keras.__version__}, self.errors)
