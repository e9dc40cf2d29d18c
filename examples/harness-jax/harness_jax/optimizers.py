"""The optimizers of `harness.Recipe`, built from optax transformations.

A transformation returns the direction ``u`` of the step ``p -= a u``. The direction does not include the learning rate
``a``, which may change at every step. Transformations from optax are used if they match the recipe: ``trace`` for
momentum and Nesterov momentum, ``scale_by_rms`` for RMSProp (with epsilon outside the square root), ``scale_by_lion``
for Lion, and ``scale_by_trust_ratio`` for LAMB. The other transformations are defined in this module.

``add_decayed_weights`` adds the weight decay term ``w p``. Weight decay is applied before the moments are computed
(sgd, rmsprop, adam, adagrad) or, if weight decay is decoupled, after they are computed, as in adamw: ``p -= a (m^ /
(sqrt(s^) + epsilon) + w p)``.
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
    """Return the transformation from gradients to the direction ``u``. `decays` is True for the arrays to which weight
    decay applies."""
    decay = [optax.add_decayed_weights(recipe.weight_decay, mask=dict(decays))] if recipe.weight_decay else []
    clip = [] if recipe.clip_norm is None else [clip_by_global_norm(recipe.clip_norm)]
    penalty = [optax.masked(add_sign_of_weights(recipe.l1), dict(decays))] if recipe.l1 else []
    decoupled = recipe.decoupled_decay or recipe.optimizer in ("adamw", "lion", "lamb")
    before, after = ([], decay) if decoupled else (decay, [])
    ratio = [optax.scale_by_trust_ratio()] if recipe.optimizer == "lamb" else []
    return optax.chain(*clip, *penalty, *before, _scale(recipe), *after, *ratio)


def _scale(recipe: harness.Recipe) -> optax.GradientTransformation:
    """Return the transformation from regularized gradients to the direction, excluding decoupled weight decay."""
    match recipe.optimizer:
        case "sgd":
            return optax.trace(recipe.momentum, recipe.nesterov) if recipe.momentum else optax.identity()
        case "rmsprop":
            return optax.scale_by_rms(_RMSPROP_DECAY, recipe.epsilon, eps_in_sqrt=False)
        case "adagrad":
            return scale_by_adagrad(recipe.epsilon)
        case "lion":
            return optax.scale_by_lion(recipe.beta1, recipe.beta2)
        case "adam" | "adamw" | "lamb":
            return scale_by_adam(recipe.beta1, recipe.beta2, recipe.epsilon)


def add_sign_of_weights(factor: float) -> optax.GradientTransformation:
    """Add the subgradient of the L1 penalty, ``factor sign(p)``, to the gradients."""

    def added(gradients: Any, params: Any) -> Any:
        return jax.tree.map(lambda gradient, p: gradient + factor * jnp.sign(p), gradients, params)

    return optax.stateless(added)


def scale_by_adagrad(epsilon: float) -> optax.GradientTransformation:
    """Return the transformation from gradients to ``g / (sqrt(s) + epsilon)`` (Duchi et al. 2011), where s is the sum
    of squared gradients. ``optax.scale_by_rss`` adds epsilon inside the square root."""

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(gradients: Any, squares: Any, params: Any = None) -> tuple[Any, Any]:
        squares = jax.tree.map(lambda s, g: s + g * g, squares, gradients)
        return jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + epsilon), gradients, squares), squares

    return optax.GradientTransformation(init, update)


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Multiply gradients by ``min(1, limit / (norm + 1e-6))``, like PyTorch's ``clip_grad_norm_``. optax omits the
    1e-6."""

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

    ``optax.scale_by_adam`` computes ``1 - beta2 ** t`` in float32. For beta2 = 0.999, the result has a relative error
    of 1.3e-5 at the first step. Therefore, this function computes ``-expm1(t log(beta2))`` instead, with the logarithm
    in float64.
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
