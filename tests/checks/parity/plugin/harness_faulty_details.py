"""Sessions of the torch backend with one subtle fault each: variants of the correct formula, and faults that start
late.

`SESSIONS` lists them under the field of `harness.Recipe` to which they belong, as in `harness_faulty_training`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import torch
from harness_faulty_training import Counting, Modified
from harness_torch import session
from harness_torch.session import TorchSession
from torch.nn import functional as F

from harness import Batch, SessionRequest

# ---- variants of the optimizers -----------------------------------------------------------------------------


class Written(Counting):
    """An explicit implementation of the optimizers of `harness.Recipe`. Subclasses replace one part."""

    dampening = 0.0
    rmsprop_decay = 0.99

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        super().set_weights(weights)
        self.moments: dict[int, dict[str, Any]] = {}

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        recipe, loss = self._request.recipe, self._backward(batch)
        decayed = {id(parameter) for parameter in self._weights.decayed}
        with torch.no_grad():
            scale = self.clipping()
            for index, p in enumerate(self._trainable):
                decay = recipe.weight_decay if id(p) in decayed else 0.0
                g, state = p.grad * scale, self.moments.setdefault(self.slot(index), {})
                if recipe.optimizer == "adamw":
                    p -= learning_rate * decay * p
                else:
                    g = g + decay * p
                if recipe.optimizer == "sgd":
                    step = self.sgd(g, state)
                elif recipe.optimizer == "rmsprop":
                    step = self.rmsprop(g, state)
                else:
                    step = self.adam(g, state)
                p -= learning_rate * step
        return loss

    def slot(self, index: int) -> int:
        """Return the number of the parameter whose state the parameter with this number uses."""
        return index

    def clipping(self) -> Any:
        limit = self._request.recipe.clip_norm
        if limit is None:
            return 1.0
        return torch.clamp(limit / (self.norm([p.grad for p in self._trainable]) + 1e-6), max=1.0)

    def norm(self, gradients: list[Any]) -> Any:
        return torch.nn.utils.get_total_norm(gradients)

    def sgd(self, g: Any, state: dict[str, Any]) -> Any:
        recipe = self._request.recipe
        state["velocity"] = recipe.momentum * state.get("velocity", 0.0) + (1 - self.dampening) * g
        return g + recipe.momentum * state["velocity"] if recipe.nesterov else state["velocity"]

    def rmsprop(self, g: Any, state: dict[str, Any]) -> Any:
        state["square"] = self.average(state, "square", self.rmsprop_decay, g * g)
        return g / self.root(state["square"])

    def adam(self, g: Any, state: dict[str, Any]) -> Any:
        recipe, t = self._request.recipe, self.corrected_for()
        mean = self.average(state, "mean", recipe.beta1, g) / (1 - recipe.beta1**t)
        square = self.average(state, "square", recipe.beta2, g * g)
        return mean / self.root(square / (1 - recipe.beta2**t))

    def corrected_for(self) -> float:
        return self.count

    def root(self, square: Any) -> Any:
        return square.sqrt() + self._request.recipe.epsilon

    @staticmethod
    def average(state: dict[str, Any], name: str, beta: float, value: Any) -> Any:
        state[name] = beta * state.get(name, 0.0) + (1 - beta) * value
        return state[name]


class EpsilonInside(Written):
    """Add epsilon inside the square root."""

    def root(self, square: Any) -> Any:
        return (square + self._request.recipe.epsilon).sqrt()


class EpsilonUncorrected(Written):
    """Add epsilon before the bias correction, as Keras's Adam does."""

    def root(self, square: Any) -> Any:
        correction = math.sqrt(1 - self._request.recipe.beta2**self.count)
        return square.sqrt() + self._request.recipe.epsilon / correction


class UncorrectedLater(Written):
    """Omit the bias correction after the fifth step."""

    def corrected_for(self) -> float:
        return self.count if self.count <= 5 else 1e9


class UncorrectedMean(Written):
    """Correct the bias of the second moment only."""

    def adam(self, g: Any, state: dict[str, Any]) -> Any:
        return super().adam(g, state) * (1 - self._request.recipe.beta1**self.count)


class StaleSquare(Written):
    """Divide by the second moment before this step's gradient is added to it."""

    def adam(self, g: Any, state: dict[str, Any]) -> Any:
        before, t = state.get("square", g * g * (1 - self._request.recipe.beta2)), self.count
        step = super().adam(g, state)
        betas = [1 - self._request.recipe.beta2**n for n in (t, max(1, t - 1))]
        return step * self.root(state["square"] / betas[0]) / self.root(before / betas[1])


class NesterovAdam(Written):
    """Use Nesterov momentum in Adam (Dozat 2016)."""

    def adam(self, g: Any, state: dict[str, Any]) -> Any:
        recipe, t = self._request.recipe, self.count
        mean = self.average(state, "mean", recipe.beta1, g)
        square = self.average(state, "square", recipe.beta2, g * g)
        ahead = recipe.beta1 * mean / (1 - recipe.beta1 ** (t + 1)) + (1 - recipe.beta1) * g / (1 - recipe.beta1**t)
        return ahead / self.root(square / (1 - recipe.beta2**t))


class AveragedMomentum(Written):
    """Average the gradients instead of adding them up: v = momentum v + (1 - momentum) g."""

    def sgd(self, g: Any, state: dict[str, Any]) -> Any:
        self.dampening = self._request.recipe.momentum
        return super().sgd(g, state)


class SwappedNesterov(Written):
    """Swap the gradient and the velocity in Nesterov momentum."""

    def sgd(self, g: Any, state: dict[str, Any]) -> Any:
        velocity, momentum = super().sgd(g, state), self._request.recipe.momentum
        return momentum * g + state["velocity"] if self._request.recipe.nesterov else velocity


class OtherDecayInRmsprop(Written):
    """Use 0.9 for the moving average of RMSProp, as in Keras."""

    rmsprop_decay = 0.9


class CenteredRmsprop(Written):
    """Subtract the squared mean of the gradients (Graves 2013)."""

    def rmsprop(self, g: Any, state: dict[str, Any]) -> Any:
        mean = self.average(state, "mean", self.rmsprop_decay, g)
        square = self.average(state, "square", self.rmsprop_decay, g * g)
        return g / self.root((square - mean * mean).clamp(min=0))


class SharedState(Written):
    """Use one state for all parameters of the same shape."""

    def slot(self, index: int) -> int:
        shapes = [p.shape for p in self._trainable]
        return shapes.index(shapes[index])


class HalfState(Counting):
    """Store the optimizer's state in float16 after each step, in which small squares become zero."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        loss = super().counted(batch, learning_rate)
        for state in self._optimizer.state.values():
            for name, value in state.items():
                if name != "step" and torch.is_tensor(value):
                    value.copy_(value.to(torch.float16))
        return loss


class StateLostEachEpoch(Counting):
    """Lose the optimizer's state every 25 steps, as at the end of an epoch."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        if self.count % 25 == 0:
            self._start_optimizer()
        return super().counted(batch, learning_rate)


class StateLostInPrediction(Counting):
    """Lose the optimizer's state with each prediction."""

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        self._start_optimizer()
        return super().predict(inputs)


# ---- weight decay -------------------------------------------------------------------------------------------


class DecayScheduledTwice(Counting):
    """Multiply the weight decay by the schedule once more."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        recipe = self._request.recipe
        self._optimizer.param_groups[0]["weight_decay"] = recipe.weight_decay * learning_rate / recipe.learning_rate
        return super().counted(batch, learning_rate)


class DecayOfFirstOnly(Modified):
    """Apply weight decay to the first of the decayed parameters only."""

    def _start_optimizer(self) -> None:
        super()._start_optimizer()
        first, *others = self._weights.decayed
        self._optimizer.param_groups[0]["params"] = [first]
        self._optimizer.add_param_group({"params": others, "weight_decay": 0.0, "factor": 1.0})

    def modify(self) -> None:
        pass


class DecayBeforeClipping(Modified):
    """Add coupled weight decay to the gradients before they are clipped."""

    def modify(self) -> None:
        if self._request.recipe.optimizer != "adamw":
            for parameter in self._weights.decayed:
                parameter.grad += self._request.recipe.weight_decay * parameter
            self._optimizer.param_groups[0]["weight_decay"] = 0.0


class PenaltyInLoss(TorchSession):
    """Add the penalty of weight decay to the reported loss."""

    def _backward(self, batch: Batch) -> Any:
        loss, weight = super()._backward(batch), self._request.recipe.weight_decay / 2
        return loss + weight * sum(parameter.detach().square().sum() for parameter in self._weights.decayed)


# ---- clipping -----------------------------------------------------------------------------------------------


class ClippedByMaximum(Written):
    """Clip by the largest element of the gradients instead of their 2-norm."""

    def norm(self, gradients: list[Any]) -> Any:
        return torch.stack([gradient.abs().max() for gradient in gradients]).max()


class ClippedBySumOfNorms(Written):
    """Clip by the sum of the parameters' norms."""

    def norm(self, gradients: list[Any]) -> Any:
        return torch.stack([gradient.norm() for gradient in gradients]).sum()


class ClippedByDecayed(Written):
    """Omit the parameters without weight decay from the norm."""

    def norm(self, gradients: list[Any]) -> Any:
        return super().norm([parameter.grad for parameter in self._weights.decayed])


# ---- learning rate and schedule -----------------------------------------------------------------------------


class RateOfEpoch(Counting):
    """Change the learning rate at every fifth step only, as at the end of an epoch."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        if self.count % 5 == 1:
            self.used = learning_rate
        return super().counted(batch, self.used)


class LateWarmupEnd(Counting):
    """Use the rate of the previous step in the first step in which the rate does not increase."""

    before = 0.0
    ended = False

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        super().set_weights(weights)
        self.before, self.ended = 0.0, False

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        used = learning_rate
        if not self.ended and 0 < learning_rate <= self.before:
            self.ended, used = True, 0.99 * self.before
        self.before = learning_rate
        return super().counted(batch, used)


class RateOfShape(Counting):
    """Keep the first learning rate for each batch size, like a function traced with a Python number."""

    rates: dict[int, float] | None = None

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        self.rates = self.rates or {}
        return super().counted(batch, self.rates.setdefault(len(batch.targets), learning_rate))


class CachedRate(Counting):
    """Keep the learning rate if it changes by less than a thousandth."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        if self.count == 1 or abs(learning_rate - self.used) > 1e-3 * self.used:
            self.used = learning_rate
        return super().counted(batch, self.used)


# ---- batches and gradients ----------------------------------------------------------------------------------


class Accumulating(TorchSession):
    """Compute gradients in two parts of the batch."""

    split = 0.5
    weights = (0.5, 0.5)

    def _backward(self, batch: Batch) -> Any:
        size = max(1, int(len(batch.targets) * self.split))
        losses, sums = [], [torch.zeros_like(parameter) for parameter in self._trainable]
        for part, weight in zip((slice(None, size), slice(size, None)), self.weights, strict=True):
            inputs = {name: array[part] for name, array in batch.inputs.items()}
            losses.append(super()._backward(Batch(inputs, batch.targets[part])))
            for total, parameter in zip(sums, self._trainable, strict=True):
                total += weight * parameter.grad
        for total, parameter in zip(sums, self._trainable, strict=True):
            parameter.grad = total
        return sum(losses) / 2


class SummedParts(Accumulating):
    """Add up the gradients of two parts of the batch instead of averaging them."""

    weights = (1.0, 1.0)


class UnequalParts(Accumulating):
    """Weight a quarter of the batch as much as the rest."""

    split = 0.25


class RepeatedEpoch(Counting):
    """Train on the first 20 batches repeatedly."""

    batches: list[Batch]

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        super().set_weights(weights)
        self.batches = []

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        if self.count <= 20:
            self.batches.append(batch)
        return super().counted(self.batches[(self.count - 1) % 20], learning_rate)


class StaleTenth(Counting):
    """Apply the gradients of the previous step in every tenth step."""

    stale: list[Any] | None = None
    training_step = False

    def _backward(self, batch: Batch) -> Any:
        loss = super()._backward(batch)
        if self.training_step:
            new = [parameter.grad.clone() for parameter in self._trainable]
            if self.count % 10 == 0 and self.stale:
                for parameter, gradient in zip(self._trainable, self.stale, strict=True):
                    parameter.grad = gradient
            self.stale = new
        return loss

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        self.training_step = True
        try:
            return super().counted(batch, learning_rate)
        finally:
            self.training_step = False


class FrozenLater(Counting):
    """Do not train the first parameter after 30 steps."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        before = self._trainable[0].detach().clone()
        loss = super().counted(batch, learning_rate)
        if self.count > 30:
            with torch.no_grad():
                self._trainable[0].copy_(before)
        return loss


class ScaledLayer(Modified):
    """Multiply the gradient of the second parameter by 1.01 in every tenth step."""

    number = 0

    def modify(self) -> None:
        self.number += 1
        if self.number % 10 == 0:
            self._trainable[1].grad *= 1.01


class InfiniteLater(Counting):
    """Set a weight to NaN in the last steps of a long training."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        loss = super().counted(batch, learning_rate)
        if self.count == 290:
            with torch.no_grad():
                self._trainable[0].view(-1)[0] = float("nan")
        return loss


class UndefinedGradients(Counting):
    """Compute gradients that are not finite from the third step on."""

    def _backward(self, batch: Batch) -> Any:
        loss = super()._backward(batch)
        if self.count >= 3 or getattr(self, "broken", False):
            self.broken = True
            for parameter in self._trainable:
                parameter.grad = torch.full_like(parameter, float("nan"))
        return loss


class StalePredictions(Counting):
    """Predict with the weights before the last step."""

    before: list[Any] | None = None

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        super().set_weights(weights)
        self.before = None

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        self.before = [parameter.detach().clone() for parameter in self._trainable]
        return super().counted(batch, learning_rate)

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        if self.before is None:
            return super().predict(inputs)
        own = [parameter.detach().clone() for parameter in self._trainable]
        with torch.no_grad():
            for parameter, value in zip(self._trainable, self.before, strict=True):
                parameter.copy_(value)
            outputs = super().predict(inputs).clone()
            for parameter, value in zip(self._trainable, own, strict=True):
                parameter.copy_(value)
        return outputs


# ---- running statistics -------------------------------------------------------------------------------------


def norms(session: TorchSession) -> list[Any]:
    return [each for each in session._module.modules() if isinstance(each, torch.nn.BatchNorm2d)]


class InvertedMomentum(TorchSession):
    """Swap the weights of the old and the new value in the running statistics."""

    def __init__(self, request: SessionRequest) -> None:
        super().__init__(request)
        for module in norms(self):
            module.momentum = 1 - module.momentum


class ConstantStatistics(TorchSession):
    """Never update the running statistics."""

    def __init__(self, request: SessionRequest) -> None:
        super().__init__(request)
        for module in norms(self):
            module.momentum = 0.0


class StatisticsInPrediction(TorchSession):
    """Update the running statistics in predictions."""

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        outputs = super().predict(inputs)
        if not norms(self):
            return outputs
        self._module.train()
        with torch.no_grad():
            self._outputs(inputs)
        self._module.eval()
        return outputs


class BatchStatistics(TorchSession):
    """Predict with the statistics of the batch."""

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        if self._training:
            self._module.eval()
            self._training = False
        for module in norms(self):
            module.track_running_stats = False
            module.saved = (module.running_mean, module.running_var)
            module.running_mean = module.running_var = None
        outputs = super().predict(inputs)
        for module in norms(self):
            module.track_running_stats = True
            module.running_mean, module.running_var = module.saved
        return outputs


class StuckInEvaluation(TorchSession):
    """Stay in evaluation mode after the first prediction."""

    def _backward(self, batch: Batch) -> Any:
        self._training = True
        return super()._backward(batch)


# ---- loss ---------------------------------------------------------------------------------------------------


class SmoothedShort(TorchSession):
    """Do not assign the correct class its share of the smoothing mass."""

    def __init__(self, request: SessionRequest) -> None:
        super().__init__(request)
        smoothing, classes = request.recipe.label_smoothing, request.info.outputs

        def loss(outputs: Any, targets: Any) -> Any:
            right = F.one_hot(targets, classes).to(outputs.dtype)
            wanted = right * (1 - smoothing) + (1 - right) * smoothing / classes
            return -(wanted * F.log_softmax(outputs, -1)).sum(-1).mean()

        if request.info.objective == "classification":
            self._loss = loss


class UnsmoothedReport(Counting):
    """Report the loss without label smoothing in training steps."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        if self._request.info.objective == "classification":
            with torch.no_grad():
                outputs = self._forward(**self._upload(batch.inputs))
                reported = F.cross_entropy(outputs, self._to_device(batch.targets))
            super().counted(batch, learning_rate)
            return reported
        return super().counted(batch, learning_rate)


# ---- dropout ------------------------------------------------------------------------------------------------


class CyclicMasks(TorchSession):
    """Repeat the dropout masks after 16 steps."""

    number = 0

    def _backward(self, batch: Batch) -> Any:
        self.number += 1
        torch.manual_seed(self.number % 16)
        return super()._backward(batch)


class LongCyclicMasks(CyclicMasks):
    """Repeat the dropout masks after 100 steps."""

    def _backward(self, batch: Batch) -> Any:
        self.number += 1
        torch.manual_seed(self.number % 100)
        return TorchSession._backward(self, batch)


class PairedMasks(TorchSession):
    """Use every dropout mask twice in a row."""

    number = 0

    def _backward(self, batch: Batch) -> Any:
        self.number += 1
        torch.manual_seed(self.number // 2)
        return super()._backward(batch)


class SlowMasks(TorchSession):
    """Redraw a quarter of each dropout mask in a step and keep the rest."""

    redrawn = 0.25
    drawn: list[Any] | None = None

    def _backward(self, batch: Batch) -> Any:
        drawn, place = self.drawn or [], 0
        self.drawn = drawn

        def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
            nonlocal place
            if not training or not p:
                return x
            new = torch.rand_like(x)
            if place < len(drawn) and drawn[place].shape == x.shape:
                new = torch.where(torch.rand_like(x) < self.redrawn, new, drawn[place])
            drawn[place : place + 1] = [new]
            place += 1
            return x * (new >= p) / (1 - p)

        own, F.dropout = F.dropout, dropout
        try:
            return super()._backward(batch)
        finally:
            F.dropout = own


class DropoutStops(Counting):
    """Apply no dropout after 100 steps."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        if self.count <= 100:
            return super().counted(batch, learning_rate)
        dropout, F.dropout = F.dropout, lambda x, *args, **options: x
        try:
            return super().counted(batch, learning_rate)
        finally:
            F.dropout = dropout


# ---- options that a backend lists in `recipe_options` ---------------------------------------------------------


class BiasedAverage(TorchSession):
    """Start the moving average at the weights after the first step, without correcting its bias."""

    def update_average(self, weight: float) -> None:
        super().update_average(min(weight, 1 - (self._request.recipe.ema_decay or 0)))


class SummedMicroBatches(TorchSession):
    """Add the gradients of the parts of a batch without dividing them by the number of parts."""

    def _add_gradients(self, batch: Batch, share: float = 1.0) -> torch.Tensor:
        return super()._add_gradients(batch, 1.0) * share


class TrainedFrozen(TorchSession):
    """Train frozen parameters."""

    def __init__(self, request: SessionRequest) -> None:
        parameters = [
            msgspec.structs.replace(each, trainable=each.trainable or each.name in request.frozen)
            for each in request.parameters
        ]
        super().__init__(dataclasses.replace(request, frozen=frozenset(), parameters=parameters))


class EqualRates(TorchSession):
    """Use one learning rate for all layers."""

    def __init__(self, request: SessionRequest) -> None:
        super().__init__(dataclasses.replace(request, rate_factors={}))


class EqualClasses(TorchSession):
    """Ignore the weights of the classes."""

    def __init__(self, request: SessionRequest) -> None:
        super().__init__(dataclasses.replace(request, class_weights=None))


class DividedByWeights(TorchSession):
    """Divide the loss by the sum of the weights in the batch, as ``F.cross_entropy`` does."""

    def __init__(self, request: SessionRequest) -> None:
        super().__init__(request)
        self._loss = functools.partial(F.cross_entropy, weight=torch.tensor(request.class_weights))


class UnscaledSoftTargets(TorchSession):
    """Omit the factor T^2 of the soft targets."""

    def _add_gradients(self, batch: Batch, share: float = 1.0) -> torch.Tensor:
        scaled = session.soft_loss

        def unscaled(outputs: Any, teacher: Any, targets: Any, temperature: float, weights: Any) -> torch.Tensor:
            return scaled(outputs, teacher, targets, temperature, weights) / temperature**2

        session.soft_loss = unscaled
        try:
            return super()._add_gradients(batch, share)
        finally:
            session.soft_loss = scaled


class SwappedDivergence(TorchSession):
    """Swap the teacher and the student in the divergence."""

    def _add_gradients(self, batch: Batch, share: float = 1.0) -> torch.Tensor:
        right = session.soft_loss
        session.soft_loss = lambda outputs, teacher, *others: right(teacher, outputs, *others)
        try:
            return super()._add_gradients(batch, share)
        finally:
            session.soft_loss = right


class ShiftedLogits(TorchSession):
    """Use the logits of the next example."""

    def _add_gradients(self, batch: Batch, share: float = 1.0) -> torch.Tensor:
        assert batch.teacher_logits is not None
        shifted = np.roll(batch.teacher_logits, -1, axis=0)
        return super()._add_gradients(batch._replace(teacher_logits=shifted), share)


class PenaltyOnBiases(TorchSession):
    """Apply the L1 penalty to all parameters."""

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        for group in self._optimizer.param_groups:
            group["pull"] = (self._request.recipe.l1, 0.0)
        return super().train_step(batch, learning_rate)


class CoupledDecay(TorchSession):
    """Add decoupled weight decay to the gradient."""

    def __init__(self, request: SessionRequest) -> None:
        changed = msgspec.structs.replace(request.recipe, decoupled_decay=False)
        super().__init__(dataclasses.replace(request, recipe=changed))


class GlobalTrustRatio(TorchSession):
    """Ignore the trust ratio of LAMB, like Adam with decoupled weight decay."""

    def __init__(self, request: SessionRequest) -> None:
        changed = msgspec.structs.replace(request.recipe, optimizer="adamw")
        super().__init__(dataclasses.replace(request, recipe=changed))


SESSIONS: dict[str, list[type[TorchSession]]] = {
    "optimizer": [
        UncorrectedLater, UncorrectedMean, StaleSquare, NesterovAdam, OtherDecayInRmsprop, CenteredRmsprop,
        SharedState, HalfState, StateLostEachEpoch, StateLostInPrediction, StaleTenth, FrozenLater, ScaledLayer,
        GlobalTrustRatio, InfiniteLater, UndefinedGradients, StalePredictions, InvertedMomentum, ConstantStatistics,
        StatisticsInPrediction, BatchStatistics, StuckInEvaluation,
    ],
    "epsilon": [EpsilonInside, EpsilonUncorrected],
    "momentum": [AveragedMomentum],
    "nesterov": [SwappedNesterov],
    "weight_decay": [DecayScheduledTwice, DecayOfFirstOnly, DecayBeforeClipping, PenaltyInLoss],
    "clip_norm": [ClippedByMaximum, ClippedBySumOfNorms, ClippedByDecayed],
    "learning_rate": [RateOfShape, CachedRate],
    "schedule": [RateOfEpoch],
    "warmup_fraction": [LateWarmupEnd],
    "batch_size": [SummedParts, UnequalParts, RepeatedEpoch],
    "label_smoothing": [SmoothedShort, UnsmoothedReport],
    "dropout": [CyclicMasks, LongCyclicMasks, PairedMasks, SlowMasks, DropoutStops],
    "ema_decay": [BiasedAverage],
    "accumulation_steps": [SummedMicroBatches],
    "frozen": [TrainedFrozen],
    "layer_decay": [EqualRates],
    "class_weights": [EqualClasses, DividedByWeights],
    "distillation_alpha": [SwappedDivergence, ShiftedLogits],
    "distillation_temperature": [UnscaledSoftTargets],
    "l1": [PenaltyOnBiases],
    "decoupled_decay": [CoupledDecay],
}  # fmt: skip
"""Sessions by the field of the recipe to which their fault belongs."""
