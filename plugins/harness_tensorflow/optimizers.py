"""The optimizers of `harness.Recipe`, as defined in its docstring, for `tf.Variable`.

Keras's optimizers differ: for example, its Adam adds epsilon before the bias correction. The updates here use
TensorFlow's fused kernels where one implements the formula.
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

    def __init__(self, recipe: harness.Recipe, variables: Sequence[Any], decays: Sequence[bool]) -> None:
        """Create the slot variables. `decays` is True for each variable that weight decay applies to."""
        super().__init__()
        self._recipe = recipe
        self._variables = list(variables)
        self._decays = list(decays)
        names = {
            "sgd": ("momentum",) if recipe.momentum else (),
            "rmsprop": ("square",),
            "adam": ("mean", "square"),
            "adamw": ("mean", "square"),
        }[recipe.optimizer]
        self._slots = {
            name: [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in self._variables]
            for name in names
        }
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)

    def reset(self) -> None:
        """Reset the moments and the step count."""
        self._step.assign(0)
        for slots in self._slots.values():
            for slot in slots:
                slot.assign(tf.zeros_like(slot))

    def apply(self, gradients: Sequence[Any], learning_rate: Any) -> None:
        """Update the variables by one step.

        `gradients` are dense float32 tensors in the order of the variables; `learning_rate` is a float32 scalar.
        """
        recipe = self._recipe
        if recipe.clip_norm is not None:
            gradients = clip_by_global_norm(gradients, recipe.clip_norm)
        step = self._step.assign_add(1, read_value=True)
        adam_rate, adam_epsilon = self._adam_scalars(step, learning_rate) if "mean" in self._slots else (None, None)
        for index, (variable, gradient) in enumerate(zip(self._variables, gradients, strict=True)):
            slots = {name: values[index] for name, values in self._slots.items()}
            if recipe.weight_decay and self._decays[index]:
                if recipe.optimizer == "adamw":
                    variable.assign_sub(learning_rate * recipe.weight_decay * variable, read_value=False)
                else:
                    gradient = gradient + recipe.weight_decay * variable
            match recipe.optimizer:
                case "sgd":
                    self._sgd(variable, gradient, slots, learning_rate)
                case "rmsprop":
                    square = slots["square"]
                    mean_square = square.assign_sub((1 - _RMSPROP_DECAY) * (square - gradient * gradient))
                    variable.assign_sub(learning_rate * gradient / (tf.sqrt(mean_square) + recipe.epsilon))
                case "adam" | "adamw":
                    tf.raw_ops.ResourceApplyAdam(
                        var=variable.handle,
                        m=slots["mean"].handle,
                        v=slots["square"].handle,
                        beta1_power=0.0,
                        beta2_power=0.0,
                        lr=adam_rate,
                        beta1=recipe.beta1,
                        beta2=recipe.beta2,
                        epsilon=adam_epsilon,
                        grad=gradient,
                    )

    def _sgd(self, variable: Any, gradient: Any, slots: dict[str, Any], learning_rate: Any) -> None:
        if not slots:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=learning_rate, delta=gradient)
            return
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=slots["momentum"].handle,
            lr=learning_rate,
            grad=gradient,
            momentum=self._recipe.momentum,
            use_nesterov=self._recipe.nesterov,
        )

    def _adam_scalars(self, step: Any, learning_rate: Any) -> tuple[Any, Any]:
        """Return the rate and epsilon with which the kernel computes the bias-corrected step.

        The kernel computes ``p -= rate m / (sqrt(s) + epsilon)``. Expanding ``a m^ / (sqrt(s^) + e)`` by
        ``c = sqrt(1 - beta2^t)`` gives the rate ``a c / (1 - beta1^t)`` and the epsilon ``e c``. They are computed in
        float64, because of cancellation in ``1 - beta^t``, from the float32 betas that the kernel uses.
        """
        t = tf.cast(step, tf.float64)
        beta1, beta2 = (tf.constant(float(np.float32(beta)), tf.float64) for beta in self._betas)
        correction = tf.sqrt(1 - beta2**t)
        rate = tf.cast(learning_rate, tf.float64) * correction / (1 - beta1**t)
        return tf.cast(rate, tf.float32), tf.cast(self._recipe.epsilon * correction, tf.float32)

    @property
    def _betas(self) -> tuple[float, float]:
        return self._recipe.beta1, self._recipe.beta2


def clip_by_global_norm(gradients: Sequence[Any], clip_norm: float) -> list[Any]:
    """Scale `gradients` by ``min(1, clip_norm / (norm + 1e-6))``, like PyTorch's ``clip_grad_norm_``."""
    norm = tf.linalg.global_norm(gradients)
    scale = tf.minimum(1.0, clip_norm / (norm + 1e-6))
    return [gradient * scale for gradient in gradients]


class LossScale(tf.Module):
    """Dynamic loss scaling for float16 gradients, with the constants of PyTorch's ``GradScaler``.

    The loss is multiplied by a scale, which doubles after 2000 consecutive steps with finite gradients. A step with
    gradients that are not finite is skipped, and the scale is halved.
    """

    _INITIAL, _GROWTH_INTERVAL = 65536.0, 2000

    def __init__(self) -> None:
        super().__init__()
        self._scale = tf.Variable(self._INITIAL, trainable=False)
        self._finite_steps = tf.Variable(0, dtype=tf.int64, trainable=False)

    def reset(self) -> None:
        self._scale.assign(self._INITIAL)
        self._finite_steps.assign(0)

    def scale(self, loss: Any) -> Any:
        return loss * self._scale

    def unscale(self, gradients: Sequence[Any]) -> list[Any]:
        inverse = 1.0 / self._scale
        return [gradient * inverse for gradient in gradients]

    def apply(self, optimizer: Optimizer, gradients: Sequence[Any], learning_rate: Any) -> None:
        """Unscale the gradients, update the variables if all gradients are finite, and adapt the scale."""
        gradients = self.unscale(gradients)
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])

        def step() -> Any:
            optimizer.apply(gradients, learning_rate)
            grown = self._finite_steps.assign_add(1) >= self._GROWTH_INTERVAL
            self._scale.assign(tf.where(grown, self._scale * 2.0, self._scale))
            self._finite_steps.assign(tf.where(grown, tf.zeros_like(self._finite_steps), self._finite_steps))
            return tf.constant(True)

        def skip() -> Any:
            self._scale.assign(self._scale * 0.5)
            self._finite_steps.assign(0)
            return tf.constant(False)

        tf.cond(finite, step, skip)
