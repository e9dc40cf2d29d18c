"""The optimizers of `harness.Recipe`, built from optax transformations.

A transformation returns the direction u of the step ``p -= a u``. The direction does not include the learning rate a,
which may change at every step. optax's transformations are used where they match the recipe: ``trace`` for momentum
(including Nesterov's), ``scale_by_rms`` with epsilon outside the square root for RMSProp, and ``add_decayed_weights``,
which adds ``w p`` before the moments (sgd, rmsprop, adam) or after them (adamw: ``p -= a (m^ / (sqrt(s^) + epsilon) + w
p)``). The exceptions are `scale_by_adam` and `clip_by_global_norm`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import harness

_RMSPROP_DECAY = 0.99


def build(recipe: harness.Recipe, decays: Mapping[str, bool]) -> optax.GradientTransformation:
    """Return the transformation from gradients to the direction u. `decays` is True where weight decay applies."""
    decay = [optax.add_decayed_weights(recipe.weight_decay, mask=dict(decays))] if recipe.weight_decay else []
    clip = [] if recipe.clip_norm is None else [clip_by_global_norm(recipe.clip_norm)]
    match recipe.optimizer:
        case "sgd":
            momentum = [optax.trace(recipe.momentum, recipe.nesterov)] if recipe.momentum else []
            # For plain SGD, the other lists are empty, but a chain needs at least one element.
            return optax.chain(optax.identity(), *clip, *decay, *momentum)
        case "rmsprop":
            scale = optax.scale_by_rms(_RMSPROP_DECAY, recipe.epsilon, eps_in_sqrt=False)
            return optax.chain(*clip, *decay, scale)
        case "adam":
            return optax.chain(*clip, *decay, scale_by_adam(recipe.beta1, recipe.beta2, recipe.epsilon))
        case "adamw":
            return optax.chain(*clip, scale_by_adam(recipe.beta1, recipe.beta2, recipe.epsilon), *decay)


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scale gradients by ``min(1, limit / (norm + 1e-6))``, like PyTorch's ``clip_grad_norm_``; optax omits 1e-6."""

    def clipped(gradients: Any, params: Any) -> Any:
        norm = jnp.sqrt(sum(jnp.square(gradient).sum() for gradient in jax.tree.leaves(gradients)))
        scale = jnp.minimum(1.0, limit / (norm + 1e-6))
        return jax.tree.map(lambda gradient: gradient * scale, gradients)

    return optax.stateless(clipped)


class AdamState(NamedTuple):
    """State of `scale_by_adam`."""

    step: Any
    """Number of completed steps, int32 ``()``."""
    mean: dict[str, Any]
    """First moments."""
    square: dict[str, Any]
    """Second moments."""


def scale_by_adam(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Return the transformation from gradients to ``m^ / (sqrt(s^) + epsilon)`` (Kingma and Ba 2015).

    ``optax.scale_by_adam`` computes ``1 - beta2 ** t`` in float32, which has a relative error of 1.3e-5 at the first
    step with beta2 = 0.999. This function computes ``-expm1(t log(beta2))``, with the logarithm in float64.
    """

    def init(params: dict[str, Any]) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(gradients: dict[str, Any], state: AdamState, params: Any = None) -> tuple[dict[str, Any], AdamState]:
        step = state.step + 1
        mean = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.mean, gradients)
        square = jax.tree.map(lambda s, g: beta2 * s + (1 - beta2) * g * g, state.square, gradients)
        mean_correction, square_correction = _correction(beta1, step), _correction(beta2, step)
        direction = jax.tree.map(
            lambda m, s: (m / mean_correction) / (jnp.sqrt(s / square_correction) + epsilon), mean, square
        )
        return direction, AdamState(step, mean, square)

    return optax.GradientTransformation(init, update)


def _correction(beta: float, step: Any) -> Any:
    """Return ``1 - beta ** step``."""
    return -jnp.expm1(step * math.log(beta)) if beta else 1.0
