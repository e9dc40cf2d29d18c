"""The optimizers of `harness.Recipe` in optax.

A transformation here gives the direction u of the step ``p -= a u``, with the learning rate a kept out of it: the core
sets another one at every step. Where optax's pieces are the recipe's, they are used: ``trace`` is momentum (Nesterov's
too), ``scale_by_rms`` with its epsilon outside the root is RMSProp, ``add_decayed_weights`` adds ``w p`` in front of
the moments (sgd, rmsprop, adam) or behind them (adamw: ``p -= a (m^ / (sqrt(s^) + epsilon) + w p)``, which is the
recipe's two steps in one). `scale_by_adam` is the exception.
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
    """From gradients to the direction u. `decays` says for each parameter whether weight decay applies to it."""
    decay = [optax.add_decayed_weights(recipe.weight_decay, mask=dict(decays))] if recipe.weight_decay else []
    clip = [] if recipe.clip_norm is None else [clip_by_global_norm(recipe.clip_norm)]
    match recipe.optimizer:
        case "sgd":
            momentum = [optax.trace(recipe.momentum, recipe.nesterov)] if recipe.momentum else []
            # Plain sgd has none of them, and a chain has at least one link.
            return optax.chain(optax.identity(), *clip, *decay, *momentum)
        case "rmsprop":
            scale = optax.scale_by_rms(_RMSPROP_DECAY, recipe.epsilon, eps_in_sqrt=False)
            return optax.chain(*clip, *decay, scale)
        case "adam":
            return optax.chain(*clip, *decay, scale_by_adam(recipe.beta1, recipe.beta2, recipe.epsilon))
        case "adamw":
            return optax.chain(*clip, scale_by_adam(recipe.beta1, recipe.beta2, recipe.epsilon), *decay)


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scale by ``min(1, limit / (norm + 1e-6))``: PyTorch's ``clip_grad_norm_``, whose 1e-6 optax's has not."""

    def clipped(gradients: Any, params: Any) -> Any:
        norm = jnp.sqrt(sum(jnp.square(gradient).sum() for gradient in jax.tree.leaves(gradients)))
        scale = jnp.minimum(1.0, limit / (norm + 1e-6))
        return jax.tree.map(lambda gradient: gradient * scale, gradients)

    return optax.stateless(clipped)


class AdamState(NamedTuple):
    step: Any
    """int32, ``()``."""
    mean: dict[str, Any]
    square: dict[str, Any]


def scale_by_adam(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """``m^ / (sqrt(s^) + epsilon)`` (Kingma and Ba 2015), as ``optax.scale_by_adam`` but for its rounding.

    optax computes ``1 - beta2 ** t`` in float32, which at the first step and beta2 = 0.999 is off by 1.3e-5. Here it is
    ``-expm1(t log(beta2))``, with the logarithm from float64.
    """

    def init(params: dict[str, Any]) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(gradients: dict[str, Any], state: AdamState, params: Any = None) -> tuple[dict[str, Any], AdamState]:
        step = state.step + 1
        mean = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.mean, gradients)
        square = jax.tree.map(lambda s, g: beta2 * s + (1 - beta2) * g * g, state.square, gradients)
        of_mean, of_square = _correction(beta1, step), _correction(beta2, step)
        direction = jax.tree.map(lambda m, s: (m / of_mean) / (jnp.sqrt(s / of_square) + epsilon), mean, square)
        return direction, AdamState(step, mean, square)

    return optax.GradientTransformation(init, update)


def _correction(beta: float, step: Any) -> Any:
    """``1 - beta ** step``."""
    return -jnp.expm1(step * math.log(beta)) if beta else 1.0
