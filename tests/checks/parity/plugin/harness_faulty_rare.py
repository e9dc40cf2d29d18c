"""Sessions of the torch backend with one fault each that only some paths, steps or masks show.

`SESSIONS` lists them under the field of `harness.Recipe` to which they belong, as in `harness_faulty_training`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from harness_faulty_details import Written, norms
from harness_faulty_training import Counting, Modified
from harness_torch.session import TorchSession
from torch.nn import functional as F

from harness import Batch

# ---- optimizer, learning rate and loss ----------------------------------------------------------------------


class SwappedBetas(Written):
    """Swap the decay rates of Adam's moments after the first step."""

    def adam(self, g: Any, state: dict[str, Any]) -> Any:
        recipe, t = self._request.recipe, self.count
        beta1, beta2 = (recipe.beta1, recipe.beta2) if t == 1 else (recipe.beta2, recipe.beta1)
        mean = self.average(state, "mean", beta1, g) / (1 - recipe.beta1**t)
        square = self.average(state, "square", beta2, g * g)
        return mean / self.root(square / (1 - recipe.beta2**t))


class CounterSaturates(Written):
    """Count at most 127 steps, as with 8 bits."""

    def corrected_for(self) -> float:
        return min(self.count, 127)


class HalfGradients(Modified):
    """Round the gradients to bfloat16, as when they are exchanged between processes."""

    def modify(self) -> None:
        for parameter in self._trainable:
            parameter.grad = parameter.grad.to(torch.bfloat16).to(parameter.dtype)


class LastOfEpoch(Modified):
    """Count the gradients of every 21st batch twice, as if the last batch of an epoch had been weighted by its size."""

    number = 0

    def modify(self) -> None:
        self.number += 1
        if self.number % 21 == 0:
            for parameter in self._trainable:
                parameter.grad *= 2


class SkipsOutliers(Counting):
    """Skip a step whose loss is 1.1 times the average of earlier steps.

    No loss of the small LSTM and BERT reaches 1.3 times the average, so a limit of 1.5 would have no effect there.
    """

    average: float | None = None

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        before = [parameter.detach().clone() for parameter in self._trainable]
        loss = super().counted(batch, learning_rate)
        value = float(loss)
        if self.average is not None and value > 1.1 * self.average:
            with torch.no_grad():
                for parameter, old in zip(self._trainable, before, strict=True):
                    parameter.copy_(old)
        self.average = value if self.average is None else 0.9 * self.average + 0.1 * value
        return loss


class RateFloor(Counting):
    """Never use a learning rate below a hundredth of the recipe's."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        return super().counted(batch, max(learning_rate, self._request.recipe.learning_rate / 100))


class LateAfterWarmup(Counting):
    """Use the learning rate of the previous step once the rate has decreased."""

    before = 0.0
    decreased = False

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        super().set_weights(weights)
        self.before, self.decreased = 0.0, False

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        self.decreased = self.decreased or learning_rate < self.before
        used, self.before = (self.before if self.decreased else learning_rate), learning_rate
        return super().counted(batch, used)


class SmoothingStops(Counting):
    """Apply no label smoothing after 100 steps."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        own = self._loss
        if self.count > 100 and self._request.info.objective == "classification":
            self._loss = F.cross_entropy
        try:
            return super().counted(batch, learning_rate)
        finally:
            self._loss = own


class HalfInputs(TorchSession):
    """Round the inputs of training to float16."""

    def _backward(self, batch: Batch) -> Any:
        inputs = {
            name: array.astype(np.float16).astype(array.dtype) if array.dtype.kind == "f" else array
            for name, array in batch.inputs.items()
        }
        return super()._backward(Batch(inputs, batch.targets))


# ---- running statistics and predictions ---------------------------------------------------------------------


class EverySecondStatistics(Counting):
    """Update the running statistics in every second step."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        for module in norms(self):
            module.momentum = 0.1 if self.count % 2 else 0.0
        return super().counted(batch, learning_rate)


class StatisticsStop(Counting):
    """Update the running statistics in the first ten steps after the weights have been set."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        for module in norms(self):
            module.momentum = 0.1 if self.count <= 10 else 0.0
        return super().counted(batch, learning_rate)


class OtherInference(TorchSession):
    """Predict with other results inside the context manager `inference`."""

    inside = False

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        self.inside = True
        yield
        self.inside = False

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        outputs = super().predict(inputs)
        return 1.001 * outputs if self.inside else outputs


class SingleExample(TorchSession):
    """Predict zeros for a batch of one example."""

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        outputs = super().predict(inputs)
        return torch.zeros_like(outputs) if len(outputs) == 1 else outputs


# ---- dropout ------------------------------------------------------------------------------------------------


class BackwardWithoutDropout(Counting):
    """Report the loss of training steps with dropout, but compute their gradients without it."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        self._module.train()
        with torch.no_grad():
            outputs = self._forward(**self._upload(batch.inputs))
            reported = self._loss(outputs.to(self._dtype), self._to_device(batch.targets))
        dropout, attention = F.dropout, F.scaled_dot_product_attention
        F.dropout = lambda x, *args, **options: x
        F.scaled_dot_product_attention = lambda *args, dropout_p=0.0, **options: attention(*args, **options)
        try:
            super().counted(batch, learning_rate)
        finally:
            F.dropout, F.scaled_dot_product_attention = dropout, attention
        return reported


class Masked(TorchSession):
    """Another implementation of dropout. Subclasses replace the method `dropped`."""

    masks: dict[tuple[int, ...], Any]

    def _backward(self, batch: Batch) -> Any:
        self.masks = {}
        own = F.dropout
        F.dropout = lambda x, p=0.5, training=True, inplace=False: self.dropped(x, p) if training and p else x
        try:
            return super()._backward(batch)
        finally:
            F.dropout = own

    def dropped(self, x: Any, p: float) -> Any:
        raise NotImplementedError


class _TwoMasks(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Any, p: float) -> Any:
        context.p = p
        return x * (torch.rand_like(x) >= p) / (1 - p)

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        return gradient * (torch.rand_like(gradient) >= context.p) / (1 - context.p), None


class RecomputedMask(Masked):
    """Draw another mask in the backward pass, like checkpointing that does not restore the random state."""

    def dropped(self, x: Any, p: float) -> Any:
        return _TwoMasks.apply(x, p)


class GaussianDropout(Masked):
    """Multiply by normally distributed numbers with the same mean and variance (Srivastava et al. 2014, section 10)."""

    def dropped(self, x: Any, p: float) -> Any:
        return x * (1 + (p / (1 - p)) ** 0.5 * torch.randn_like(x))


class SameMaskInLayers(Masked):
    """Use the same mask in all layers with the same shape."""

    def dropped(self, x: Any, p: float) -> Any:
        return x * (self.masks.setdefault(tuple(x.shape), torch.rand_like(x)) >= p) / (1 - p)


class SameMaskInPositions(Masked):
    """Use the same mask for all positions of a sequence."""

    def dropped(self, x: Any, p: float) -> Any:
        return x * (torch.rand_like(x[:, :1] if x.dim() > 2 else x) >= p) / (1 - p)


class SharedInSteps(Masked):
    """Use the same mask for all examples in training steps; `gradients` is correct."""

    stepping = False

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        self.stepping = True
        try:
            return super().train_step(batch, learning_rate)
        finally:
            self.stepping = False

    def dropped(self, x: Any, p: float) -> Any:
        return x * (torch.rand_like(x[:1] if self.stepping else x) >= p) / (1 - p)


SESSIONS: dict[str, list[type[TorchSession]]] = {
    "optimizer": [
        SwappedBetas, CounterSaturates, HalfGradients, SkipsOutliers, EverySecondStatistics, StatisticsStop,
        OtherInference, SingleExample,
    ],
    "batch_size": [LastOfEpoch, HalfInputs],
    "schedule": [RateFloor],
    "warmup_fraction": [LateAfterWarmup],
    "label_smoothing": [SmoothingStops],
    "dropout": [
        BackwardWithoutDropout, RecomputedMask, GaussianDropout, SameMaskInLayers, SameMaskInPositions, SharedInSteps,
    ],
}  # fmt: skip
"""Sessions by the field of the recipe to which their fault belongs."""
