"""The optimizers of `harness.Recipe` for `tf.Variable`.

The formulas are defined in the docstring of `harness.Recipe`. Keras's optimizers use different formulas. For example,
the Adam optimizer in Keras adds epsilon before the bias correction. An update uses a fused TensorFlow kernel if one
implements the formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import harness

_RMSPROP_DECAY = 0.99


class Optimizer(tf.Module):
    """Optimizer for a list of variables, for use inside a `tf.function`, with or without XLA."""

    def __init__(
        self,
        recipe: harness.Recipe,
        variables: Sequence[Any],
        decays: Sequence[bool],
        factors: Sequence[float] | None = None,
    ) -> None:
        """Create the slot variables.

        `decays` contains one bool per variable, which is True if weight decay applies. `factors` contains a
        learning-rate factor for each variable.
        """
        super().__init__()
        self._recipe = recipe
        self._variables = list(variables)
        self._decays = list(decays)
        self._factors = list(factors or [1.0] * len(self._variables))
        names = {
            "sgd": ("momentum",) if recipe.momentum else (),
            "rmsprop": ("square",),
            "adam": ("mean", "square"),
            "adamw": ("mean", "square"),
            "adagrad": ("square",),
            "lion": ("momentum",),
            "lamb": ("mean", "square"),
        }[recipe.optimizer]
        self._slots = {
            name: [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in self._variables]
            for name in names
        }
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)

    def state_variables(self) -> dict[str, Any]:
        """Return the moments and the step count, by name."""
        slots = {f"{name}.{index}": slot for name, slots in self._slots.items() for index, slot in enumerate(slots)}
        return slots | {"step": self._step}

    def reset(self) -> None:
        """Reset the moments and the step count."""
        self._step.assign(0)
        for slots in self._slots.values():
            for slot in slots:
                slot.assign(tf.zeros_like(slot))

    def apply(self, gradients: Sequence[Any], learning_rate: Any, finite: Any = None) -> None:
        """Apply one update step to the variables.

        `gradients` are dense float32 tensors in the order of the variables, and `learning_rate` is a float32 scalar. If
        the boolean scalar `finite` is passed and is false, the variables, moments and step count do not change. A
        skipped step is still computed, with constants that leave all values unchanged, because a conditional would make
        the host wait for the GPU.
        """

        def unless_skipped(value: Any, neutral: float) -> Any:
            return value if finite is None else tf.where(finite, value, neutral)

        recipe = self._recipe
        if recipe.clip_norm is not None:
            gradients = clip_by_global_norm(gradients, recipe.clip_norm)
        base_rate = unless_skipped(learning_rate, 0.0)
        step = self._step.assign_add(1 if finite is None else tf.cast(finite, tf.int64), read_value=True)
        adam = recipe.optimizer in ("adam", "adamw")
        base_adam_rate, adam_epsilon = self._adam_scalars(step, base_rate) if adam else (0.0, 1.0)
        base_adam_rate, adam_epsilon = unless_skipped(base_adam_rate, 0.0), unless_skipped(adam_epsilon, 1.0)
        beta1, beta2, momentum = (unless_skipped(each, 1.0) for each in (recipe.beta1, recipe.beta2, recipe.momentum))
        square_weight = unless_skipped(1 - _RMSPROP_DECAY, 0.0)
        first_weight, second_weight = (unless_skipped(1 - beta, 0.0) for beta in self._betas)
        for index, (variable, gradient) in enumerate(zip(self._variables, gradients, strict=True)):
            slots = {name: values[index] for name, values in self._slots.items()}
            learning_rate, adam_rate = (_scaled(rate, self._factors[index]) for rate in (base_rate, base_adam_rate))
            decay, l1 = (recipe.weight_decay, recipe.l1) if self._decays[index] else (0.0, 0.0)
            if l1:
                gradient = gradient + l1 * tf.sign(variable)
            if decay and (recipe.decoupled_decay or recipe.optimizer in ("adamw", "lion")):
                variable.assign_sub(learning_rate * decay * variable, read_value=False)
            elif decay and recipe.optimizer != "lamb":
                gradient = gradient + decay * variable
            gradient = unless_skipped(gradient, 0.0)
            match recipe.optimizer:
                case "sgd":
                    self._sgd(variable, gradient, slots, learning_rate, momentum)
                case "rmsprop":
                    square = slots["square"]
                    mean_square = square.assign_sub(square_weight * (square - gradient * gradient))
                    change = learning_rate * gradient / (tf.sqrt(mean_square) + recipe.epsilon)
                    variable.assign_sub(unless_skipped(change, 0.0))
                case "adagrad":
                    squares = slots["square"].assign_add(gradient * gradient)
                    change = learning_rate * gradient / (tf.sqrt(squares) + recipe.epsilon)
                    variable.assign_sub(unless_skipped(change, 0.0))
                case "lion":
                    average = slots["momentum"]
                    mixed = recipe.beta1 * average + (1 - recipe.beta1) * gradient
                    variable.assign_sub(learning_rate * tf.sign(mixed))
                    average.assign_sub(second_weight * (average - gradient))
                case "lamb":
                    mean = slots["mean"].assign_sub(first_weight * (slots["mean"] - gradient))
                    square = slots["square"].assign_sub(second_weight * (slots["square"] - gradient * gradient))
                    direction = self._lamb_direction(step, mean, square) + decay * variable
                    change = learning_rate * _trust_ratio(variable, direction) * direction
                    variable.assign_sub(unless_skipped(change, 0.0))
                case "adam" | "adamw":
                    tf.raw_ops.ResourceApplyAdam(
                        var=variable.handle,
                        m=slots["mean"].handle,
                        v=slots["square"].handle,
                        beta1_power=0.0,
                        beta2_power=0.0,
                        lr=adam_rate,
                        beta1=beta1,
                        beta2=beta2,
                        epsilon=adam_epsilon,
                        grad=gradient,
                    )

    def _sgd(self, variable: Any, gradient: Any, slots: dict[str, Any], learning_rate: Any, momentum: Any) -> None:
        if not slots:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=learning_rate, delta=gradient)
            return
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=slots["momentum"].handle,
            lr=learning_rate,
            grad=gradient,
            momentum=momentum,
            use_nesterov=self._recipe.nesterov,
        )

    def _adam_scalars(self, step: Any, learning_rate: Any) -> tuple[Any, Any]:
        """Return the rate and epsilon that make the kernel compute the bias-corrected step.

        The kernel computes ``p -= rate m / (sqrt(s) + epsilon)``. Multiplying the numerator and the denominator of ``a
        m^ / (sqrt(s^) + e)`` by ``c = sqrt(1 - beta2^t)`` gives the rate ``a c / (1 - beta1^t)`` and the epsilon ``e
        c``. The rate and epsilon are computed in float64 to limit cancellation in ``1 - beta^t``, but from the float32
        betas that the kernel uses.
        """
        t = tf.cast(step, tf.float64)
        beta1, beta2 = (tf.constant(float(np.float32(beta)), tf.float64) for beta in self._betas)
        correction = tf.sqrt(1 - beta2**t)
        rate = tf.cast(learning_rate, tf.float64) * correction / (1 - beta1**t)
        return tf.cast(rate, tf.float32), tf.cast(self._recipe.epsilon * correction, tf.float32)

    def _lamb_direction(self, step: Any, mean: Any, square: Any) -> Any:
        """Return ``m^ / (sqrt(s^) + epsilon)``."""
        t = tf.cast(step, tf.float64)
        first, second = (tf.cast(1 / (1 - tf.constant(beta, tf.float64) ** t), mean.dtype) for beta in self._betas)
        return first * mean / (tf.sqrt(second * square) + self._recipe.epsilon)

    @property
    def _betas(self) -> tuple[float, float]:
        return self._recipe.beta1, self._recipe.beta2


def _scaled(rate: Any, factor: float) -> Any:
    return rate if factor == 1 else rate * factor


def _trust_ratio(variable: Any, direction: Any) -> Any:
    """Return the ratio of the 2-norms of a variable and its LAMB step, or 1 if either norm is zero."""
    weight_norm, norm = tf.norm(variable), tf.norm(direction)
    known = tf.logical_and(weight_norm > 0, norm > 0)
    return tf.where(known, weight_norm / tf.where(known, norm, tf.ones_like(norm)), tf.ones_like(norm))


def clip_by_global_norm(gradients: Sequence[Any], clip_norm: float) -> list[Any]:
    """Scale `gradients` by ``min(1, clip_norm / (norm + 1e-6))``, like PyTorch's ``clip_grad_norm_``."""
    norm = tf.linalg.global_norm(gradients)
    scale = tf.minimum(1.0, clip_norm / (norm + 1e-6))
    return [gradient * scale for gradient in gradients]


class LossScale(tf.Module):
    """Dynamic loss scaling for float16 gradients, with the constants of PyTorch's ``GradScaler``.

    The loss is multiplied by a scale, which doubles after 2000 consecutive steps with finite gradients. If the
    gradients are not finite, the step is skipped and the scale is halved. A fixed scale never changes.
    """

    _INITIAL, _GROWTH_INTERVAL = 65536.0, 2000

    def __init__(self, fixed: float | None = None) -> None:
        super().__init__()
        self._fixed = fixed
        self._initial = self._INITIAL if fixed is None else fixed
        self._scale = tf.Variable(self._initial, trainable=False)
        self._finite_steps = tf.Variable(0, dtype=tf.int64, trainable=False)

    def state_variables(self) -> dict[str, Any]:
        """Return the scale and the number of consecutive steps with finite gradients, by name."""
        return {"scale": self._scale, "finite_steps": self._finite_steps}

    def reset(self) -> None:
        self._scale.assign(self._initial)
        self._finite_steps.assign(0)

    @property
    def description(self) -> str:
        """Description of the loss scale for the record."""
        return "dynamic" if self._fixed is None else f"fixed, {self._fixed:g}"

    def scale(self, loss: Any) -> Any:
        return loss * self._scale

    def unscale(self, gradients: Sequence[Any]) -> list[Any]:
        inverse = 1.0 / self._scale
        return [gradient * inverse for gradient in gradients]

    def apply(self, optimizer: Optimizer, gradients: Sequence[Any], learning_rate: Any) -> None:
        """Unscale the gradients, update the variables if all gradients are finite, and adapt the scale."""
        gradients = self.unscale(gradients)
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
        optimizer.apply(gradients, learning_rate, finite)
        if self._fixed is not None:
            return
        none = tf.constant(0, tf.int64)
        finite_steps = tf.where(finite, self._finite_steps + 1, none)
        grown = finite_steps >= self._GROWTH_INTERVAL
        self._scale.assign(self._scale * tf.where(finite, tf.where(grown, 2.0, 1.0), 0.5))
        self._finite_steps.assign(tf.where(grown, none, finite_steps))
