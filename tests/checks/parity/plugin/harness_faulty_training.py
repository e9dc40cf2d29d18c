"""Sessions of the torch backend whose training has one fault each, for any model.

`EDITED` are faults that amount to another recipe, `SESSIONS` are the others. Each is listed under the field of
`harness.Recipe` to which it belongs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import torch
from harness_torch.session import TorchSession
from torch.nn import functional as F

from harness import Batch, Recipe, SessionRequest

# ---- faults that amount to another recipe -------------------------------------------------------------------


def _swapped(recipe: Recipe) -> dict[str, Any]:
    return {"optimizer": {"adamw": "adam", "adam": "adamw", "sgd": "rmsprop", "rmsprop": "adam"}[recipe.optimizer]}


def _with(**changes: Any) -> Callable[[Recipe], dict[str, Any]]:
    return lambda recipe: changes


EDITED: dict[str, dict[str, Callable[[Recipe], dict[str, Any]]]] = {
    "optimizer": {"other_optimizer": _swapped},
    "momentum": {
        "no_momentum": _with(momentum=0.0, nesterov=False),
        "smaller_momentum": lambda recipe: {"momentum": recipe.momentum - 0.01},
    },
    "nesterov": {"other_nesterov": lambda recipe: {"nesterov": not recipe.nesterov}},
    "beta1": {"smaller_beta1": _with(beta1=0.89), "no_beta1": _with(beta1=0.0)},
    "beta2": {"beta2_99": _with(beta2=0.99), "beta2_9999": _with(beta2=0.9999), "beta2_998": _with(beta2=0.998)},
    "epsilon": {"epsilon_1e-6": _with(epsilon=1e-6), "epsilon_1e-3": _with(epsilon=1e-3)},
    "weight_decay": {
        "no_decay": _with(weight_decay=0.0),
        "decay_11_percent": lambda recipe: {"weight_decay": recipe.weight_decay * 1.1},
        "double_decay": lambda recipe: {"weight_decay": recipe.weight_decay * 2},
    },
    "clip_norm": {
        "no_clipping": _with(clip_norm=None),
        "wider_clipping": lambda recipe: {"clip_norm": recipe.clip_norm and recipe.clip_norm * 1.05},
    },
    "label_smoothing": {
        "no_smoothing": _with(label_smoothing=0.0),
        "double_smoothing": lambda recipe: {"label_smoothing": 2 * recipe.label_smoothing},
    },
}
"""Changes of the recipe, by its field and by the name of the fault."""


def edited(change: Callable[[Recipe], dict[str, Any]]) -> Callable[[SessionRequest], TorchSession]:
    """Return a session that trains with another recipe."""

    def open_session(request: SessionRequest) -> TorchSession:
        recipe = msgspec.structs.replace(request.recipe, **change(request.recipe))
        changed = copy.copy(request)
        object.__setattr__(changed, "recipe", recipe)
        return TorchSession(changed)

    return open_session


# ---- other faults -------------------------------------------------------------------------------------------


class Counting(TorchSession):
    """Session that counts its training steps since the weights were set."""

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        super().set_weights(weights)
        self.count = 0

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        self.count += 1
        return self.counted(batch, learning_rate)

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        return super().train_step(batch, learning_rate)

    def no_update(self, batch: Batch) -> Any:
        """Compute the loss as in a step, but do not change the weights."""
        return self._backward(batch)


class ConstantRate(Counting):
    """Ignore the schedule: train with the recipe's learning rate."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        return super().counted(batch, self._request.recipe.learning_rate)


class LateRate(Counting):
    """Use the learning rate of the previous step."""

    before = None

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        used, self.before = self.before or learning_rate, learning_rate
        return super().counted(batch, used)


class NoWarmup(Counting):
    """Never use a learning rate below half of the recipe's."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        return super().counted(batch, max(learning_rate, self._request.recipe.learning_rate / 2))


class FrozenRate(Counting):
    """Keep the learning rate after the tenth step."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        self.used = learning_rate if self.count <= 10 else self.used
        return super().counted(batch, self.used)


class HigherRate(Counting):
    """Multiply the learning rate by 1.001."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        return super().counted(batch, 1.001 * learning_rate)


class NeverZeroed(TorchSession):
    """Never reset the gradients, so that they are sums over all steps."""

    def _backward(self, batch: Batch) -> Any:
        before = [parameter.grad for parameter in self._trainable]
        loss = super()._backward(batch)
        for parameter, gradient in zip(self._trainable, before, strict=True):
            if gradient is not None and parameter.grad is not None:
                parameter.grad = parameter.grad + gradient
        return loss


class NeverZeroedInSteps(TorchSession):
    """Never reset the gradients of training steps; `gradients` is correct."""

    sums: list[Any] | None = None

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        self.training_step = True
        try:
            return super().train_step(batch, learning_rate)
        finally:
            self.training_step = False

    training_step = False

    def _backward(self, batch: Batch) -> Any:
        loss = super()._backward(batch)
        if self.training_step:
            self.sums = [
                parameter.grad + (self.sums[index] if self.sums else 0)
                for index, parameter in enumerate(self._trainable)
            ]
            for parameter, gradient in zip(self._trainable, self.sums, strict=True):
                parameter.grad = gradient.clone()
        return loss


class DiscardedState(TorchSession):
    """Start a new optimizer at every step."""

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        self._start_optimizer()
        return super().train_step(batch, learning_rate)


class KeptState(TorchSession):
    """Keep the optimizer's state when weights are set."""

    started = False

    def _start_optimizer(self) -> None:
        if not self.started:
            super()._start_optimizer()
        self.started = True


class StateLostLate(Counting):
    """Lose the optimizer's state at step 30."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        if self.count == 30:
            self._start_optimizer()
        return super().counted(batch, learning_rate)


class DecayOnce(Counting):
    """Apply weight decay in the first step only."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        if self.count == 2:
            for group in self._optimizer.param_groups:
                group["weight_decay"] = 0.0
        return super().counted(batch, learning_rate)


class DecayLate(Counting):
    """Apply weight decay in all steps but the first."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        for group, decay in zip(self._optimizer.param_groups, (self._request.recipe.weight_decay, 0.0), strict=False):
            group["weight_decay"] = decay if self.count > 1 else 0.0
        return super().counted(batch, learning_rate)


class DecayEverything(TorchSession):
    """Apply weight decay to biases and norms too."""

    def _start_optimizer(self) -> None:
        super()._start_optimizer()
        for group in self._optimizer.param_groups:
            group["weight_decay"] = self._request.recipe.weight_decay


class DecayWithoutRate(Counting):
    """Multiply decoupled weight decay by the recipe's learning rate instead of the scheduled one."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        recipe = self._request.recipe
        self._optimizer.param_groups[0]["weight_decay"] = recipe.weight_decay * recipe.learning_rate / learning_rate
        return super().counted(batch, learning_rate)


class Stopping(Counting):
    """Stop training after a number of steps."""

    after = 50

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        return super().counted(batch, learning_rate) if self.count <= self.after else self.no_update(batch)


class Stopping200(Stopping):
    after = 200


class StoppingEpoch(Stopping):
    """Stop training after 20 steps, as at the end of an epoch."""

    after = 20


class SkippedSteps(Counting):
    """Skip every tenth step."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        return super().counted(batch, learning_rate) if self.count % 10 else self.no_update(batch)


class Accumulated(Counting):
    """Update the weights at every second step only."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        return super().counted(batch, learning_rate) if self.count % 2 else self.no_update(batch)


class Twice(TorchSession):
    """Apply the optimizer twice to the gradients of a step."""

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        loss = super().train_step(batch, learning_rate)
        self._optimizer.step()
        return loss


class StaleGradients(Counting):
    """Apply the gradients of the previous step."""

    stale: list[Any] | None = None

    def _backward(self, batch: Batch) -> Any:
        loss = super()._backward(batch)
        if self.training_step:
            new = [parameter.grad.clone() for parameter in self._trainable]
            for parameter, gradient in zip(self._trainable, self.stale or new, strict=True):
                parameter.grad = gradient
            self.stale = new
        return loss

    training_step = False

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        self.training_step = True
        try:
            return super().counted(batch, learning_rate)
        finally:
            self.training_step = False


class Modified(TorchSession):
    """Change the gradients of a training step before the optimizer uses them; `gradients` is correct."""

    modified = False

    def _backward(self, batch: Batch) -> Any:
        loss = super()._backward(batch)
        if self.modified:
            with torch.no_grad():
                self.modify()
        return loss

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        self.modified = True
        try:
            return super().train_step(batch, learning_rate)
        finally:
            self.modified = False

    def modify(self) -> None:
        raise NotImplementedError


class FrozenBias(Modified):
    """Do not train the last parameter, which is a bias."""

    def modify(self) -> None:
        self._trainable[-1].grad = torch.zeros_like(self._trainable[-1])


class FrozenFirst(Modified):
    """Do not train the first parameter."""

    def modify(self) -> None:
        self._trainable[0].grad = torch.zeros_like(self._trainable[0])


class ScaledFirst(Modified):
    """Multiply the gradient of the first parameter by 1.01."""

    def modify(self) -> None:
        self._trainable[0].grad *= 1.01


class SummedLoss(Modified):
    """Do not divide the gradients of the batch by its size, as with a summed loss or missing gradient unscaling."""

    def modify(self) -> None:
        for parameter in self._trainable:
            parameter.grad *= self._request.recipe.batch_size


class ClippedElements(Modified):
    """Clip each element of the gradients instead of their norm."""

    def modify(self) -> None:
        if self._request.recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_value_(self._trainable, self._request.recipe.clip_norm / 100)
            self._clip_norm = None


class ClippedSeparately(Modified):
    """Clip the gradient of each parameter by its own norm."""

    def modify(self) -> None:
        if self._request.recipe.clip_norm is not None:
            for parameter in self._trainable:
                torch.nn.utils.clip_grad_norm_([parameter], self._request.recipe.clip_norm)
            self._clip_norm = None


class AlwaysNormalized(Modified):
    """Scale the gradients to the clipping norm even if they are smaller."""

    def modify(self) -> None:
        limit = self._request.recipe.clip_norm
        if limit is not None:
            norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in self._trainable])
            for parameter in self._trainable:
                parameter.grad *= limit / norm
            self._clip_norm = None


class SparseSteps(Counting):
    """Do not change weights whose gradient is zero, as sparse optimizers do with unused embeddings."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        before = [parameter.detach().clone() for parameter in self._trainable]
        loss = super().counted(batch, learning_rate)
        with torch.no_grad():
            for parameter, old in zip(self._trainable, before, strict=True):
                parameter.copy_(torch.where(parameter.grad == 0, old, parameter))
        return loss


class Uncorrected(Counting):
    """Correct the bias of Adam's moments for one step too many."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        if self.count == 2:
            for state in self._optimizer.state.values():
                if "step" in state:
                    state["step"] += 1
        return super().counted(batch, learning_rate)


class LowPrecisionWeights(Counting):
    """Store the weights in bfloat16 after each step."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        loss = super().counted(batch, learning_rate)
        with torch.no_grad():
            for parameter in self._trainable:
                parameter.copy_(parameter.to(torch.bfloat16))
        return loss


class LowPrecisionState(Counting):
    """Store the optimizer's state in bfloat16 after each step."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        loss = super().counted(batch, learning_rate)
        for state in self._optimizer.state.values():
            for name, value in state.items():
                if name != "step" and torch.is_tensor(value):
                    value.copy_(value.to(torch.bfloat16))
        return loss


class RateInVelocity(Counting):
    """Multiply the learning rate into the velocity, as Keras does, which differs where the learning rate changes."""

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        super().set_weights(weights)
        self.velocities = [torch.zeros_like(parameter) for parameter in self._trainable]

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        recipe, loss = self._request.recipe, self._backward(batch)
        decayed = {id(parameter) for parameter in self._weights.decayed}
        with torch.no_grad():
            for parameter, velocity in zip(self._trainable, self.velocities, strict=True):
                decay = recipe.weight_decay if id(parameter) in decayed else 0.0
                step = learning_rate * (parameter.grad + decay * parameter)
                velocity.mul_(recipe.momentum).sub_(step)
                parameter += recipe.momentum * velocity - step if recipe.nesterov else velocity
        return loss


class Dampened(TorchSession):
    """Dampen the momentum by 10%."""

    def _start_optimizer(self) -> None:
        super()._start_optimizer()
        for group in self._optimizer.param_groups:
            group |= {"dampening": 0.1, "nesterov": False}


class AmsGrad(TorchSession):
    """Divide by the largest second moment so far (Reddi et al. 2018) instead of the current one."""

    def _start_optimizer(self) -> None:
        super()._start_optimizer()
        for group in self._optimizer.param_groups:
            group["amsgrad"] = True


class HalfPrecisionRate(Counting):
    """Round the learning rate to float16."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        return super().counted(batch, float(torch.tensor(learning_rate, dtype=torch.float16)))


class LateStatistics(Counting):
    """Stop updating the running statistics after ten steps."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        if self.count == 10:
            for module in self._module.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = 0.0
        return super().counted(batch, learning_rate)


class NoisyGradients(Modified):
    """Add noise of a thousandth of the standard deviation to the gradients."""

    def modify(self) -> None:
        for parameter in self._trainable:
            parameter.grad += 1e-3 * parameter.grad.square().mean().sqrt() * torch.randn_like(parameter.grad)


class LateTargets(Counting):
    """Swap the targets of the examples after ten steps."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        targets = batch.targets if self.count <= 10 else batch.targets[::-1].copy()
        return super().counted(Batch(batch.inputs, targets), learning_rate)


class DecayAfter(Counting):
    """Apply decoupled weight decay after the step instead of before."""

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        for group in self._optimizer.param_groups:
            group["weight_decay"] = 0.0
        loss = super().counted(batch, learning_rate)
        with torch.no_grad():
            for parameter in self._weights.decayed:
                parameter *= 1 - learning_rate * self._request.recipe.weight_decay
        return loss


class ClippedByLastNorm(Modified):
    """Clip the gradients by the norm of the previous step."""

    last: Any = None

    def modify(self) -> None:
        limit = self._request.recipe.clip_norm
        if limit is not None:
            norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in self._trainable])
            used, self.last = norm if self.last is None else self.last, norm
            for parameter in self._trainable:
                parameter.grad *= min(1.0, float(limit / (used + 1e-6)))
            self._clip_norm = None


class DroppedExample(TorchSession):
    """Ignore the last example of each batch."""

    def _backward(self, batch: Batch) -> Any:
        inputs = {name: array[:-1] for name, array in batch.inputs.items()}
        return super()._backward(Batch(inputs, batch.targets[:-1]))


class DroppedInSteps(TorchSession):
    """Ignore the last example of each batch in training steps; `gradients` is correct."""

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        inputs = {name: array[:-1] for name, array in batch.inputs.items()}
        return super().train_step(Batch(inputs, batch.targets[:-1]), learning_rate)


class RepeatedBatch(TorchSession):
    """Train on the first batch repeatedly."""

    first: dict[int, Batch] | None = None

    def _backward(self, batch: Batch) -> Any:
        self.first = self.first or {}
        return super()._backward(self.first.setdefault(len(batch.targets), batch))


class EvaluationMode(TorchSession):
    """Train in evaluation mode."""

    def _backward(self, batch: Batch) -> Any:
        self._module.eval()
        self._training = True
        return super()._backward(batch)


class AveragedPredictions(Counting):
    """Predict with a moving average of the weights."""

    average: list[Any] | None = None

    def counted(self, batch: Batch, learning_rate: float) -> Any:
        loss = super().counted(batch, learning_rate)
        new = [parameter.detach().clone() for parameter in self._trainable]
        pairs = zip(self.average or new, new, strict=True)
        self.average = [0.9 * old + 0.1 * value for old, value in pairs]
        return loss

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        super().set_weights(weights)
        self.average = None

    def predict(self, inputs: Mapping[str, Any]) -> Any:
        if self.average is None:
            return super().predict(inputs)
        own = [parameter.detach().clone() for parameter in self._trainable]
        with torch.no_grad():
            for parameter, value in zip(self._trainable, self.average, strict=True):
                parameter.copy_(value)
            outputs = super().predict(inputs).clone()
            for parameter, value in zip(self._trainable, own, strict=True):
                parameter.copy_(value)
        return outputs


class SmoothedElsewhere(TorchSession):
    """Distribute label smoothing over the wrong classes only."""

    def __init__(self, request: SessionRequest) -> None:
        super().__init__(request)
        smoothing, classes = request.recipe.label_smoothing, request.info.outputs

        def loss(outputs: Any, targets: Any) -> Any:
            right = F.one_hot(targets, classes).to(outputs.dtype)
            wanted = right * (1 - smoothing) + (1 - right) * smoothing / (classes - 1)
            return -(wanted * F.log_softmax(outputs, -1)).sum(-1).mean()

        if request.info.objective == "classification":
            self._loss = loss


class DropoutNeverZero(TorchSession):
    """Apply no dropout."""

    def __init__(self, request: SessionRequest) -> None:
        super().__init__(_with_dropout(request, 0.0))


class DoubleDropout(TorchSession):
    """Drop twice the fraction."""

    def __init__(self, request: SessionRequest) -> None:
        super().__init__(_with_dropout(request, min(0.9, 2 * request.recipe.dropout)))


class SameMask(TorchSession):
    """Draw the same dropout mask at every step."""

    def _backward(self, batch: Batch) -> Any:
        torch.manual_seed(0)
        return super()._backward(batch)


class NoDropoutInSteps(TorchSession):
    """Apply no dropout in training steps; `gradients` is correct."""

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        rates = {module: module.p for module in self._module.modules() if isinstance(module, torch.nn.Dropout)}
        own = {
            name: getattr(self._module, name)
            for name in ("dropout",)
            if isinstance(getattr(self._module, name, 0), float)
        }
        for module in rates:
            module.p = 0.0
        for name in own:
            setattr(self._module, name, 0.0)
        loss = super().train_step(batch, learning_rate)
        for module, rate in rates.items():
            module.p = rate
        for name, rate in own.items():
            setattr(self._module, name, rate)
        return loss


class FaultyPlace(TorchSession):
    """Apply dropout wrongly at one place, given by its number in the order of computation."""

    place = 0
    kind = "none"
    """``none``, ``twice`` (the rate), ``unscaled`` or ``shared`` (by all examples)."""
    places = 0
    """Number of places in the last forward pass."""

    def _backward(self, batch: Batch) -> Any:
        count = 0

        def own(rate: float) -> bool:
            nonlocal count
            count += rate > 0
            return rate > 0 and count == self.place + 1

        def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
            rate = p if training else 0.0
            if not own(rate):
                return _dropout(x, rate, True)
            if self.kind == "shared":
                return x * _dropout(torch.ones_like(x[:1]), rate, True)
            return _dropout(x, self.faulty(rate), True) * (1 - rate if self.kind == "unscaled" else 1)

        def attention(*args: Any, dropout_p: float = 0.0, **more: Any) -> Any:
            if not own(dropout_p):
                return _attention(*args, dropout_p=dropout_p, **more)
            rate = self.faulty(dropout_p)
            return _attention(*args, dropout_p=rate, **more) * (1 - dropout_p if self.kind == "unscaled" else 1)

        F.dropout, F.scaled_dot_product_attention = dropout, attention
        try:
            return super()._backward(batch)
        finally:
            F.dropout, F.scaled_dot_product_attention = _dropout, _attention
            type(self).places = count

    def faulty(self, rate: float) -> float:
        return {"none": 0.0, "twice": min(0.9, 2 * rate)}.get(self.kind, rate)


_dropout, _attention = F.dropout, F.scaled_dot_product_attention


def _with_dropout(request: SessionRequest, rate: float) -> SessionRequest:
    changed = copy.copy(request)
    object.__setattr__(changed, "recipe", msgspec.structs.replace(request.recipe, dropout=rate))
    return changed


SESSIONS: dict[str, list[type[TorchSession]]] = {
    "epochs": [Stopping, Stopping200, StoppingEpoch],
    "batch_size": [DroppedExample, DroppedInSteps, RepeatedBatch, SummedLoss, LateTargets],
    "optimizer": [
        NeverZeroed, NeverZeroedInSteps, DiscardedState, KeptState, StateLostLate, SkippedSteps, Accumulated, Twice,
        StaleGradients, FrozenBias, FrozenFirst, ScaledFirst, SparseSteps, Uncorrected, LowPrecisionWeights,
        LowPrecisionState, EvaluationMode, AveragedPredictions, AmsGrad, LateStatistics, NoisyGradients,
    ],
    "learning_rate": [ConstantRate, HigherRate, HalfPrecisionRate],
    "momentum": [RateInVelocity, Dampened],
    "schedule": [LateRate, FrozenRate],
    "warmup_fraction": [NoWarmup],
    "weight_decay": [DecayOnce, DecayLate, DecayEverything, DecayWithoutRate, DecayAfter],
    "clip_norm": [ClippedElements, ClippedSeparately, AlwaysNormalized, ClippedByLastNorm],
    "label_smoothing": [SmoothedElsewhere],
    "dropout": [DropoutNeverZero, DoubleDropout, SameMask, NoDropoutInSteps],
}  # fmt: skip
"""Sessions by the field of the recipe to which their fault belongs."""
