"""Accuracy of the optimizers. ``test_networks.py`` compares each optimizer with an implementation in numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from harness_jax import optimizers

import harness


def test_first_step_of_adam_is_accurate_to_float32() -> None:
    """Computing ``1 - 0.999 ** t`` in float32 would give the first step a relative error of 7e-6."""
    optimizer = optimizers.build(harness.Recipe(optimizer="adam"), {"w": False})
    gradient = {"w": jnp.array([0.3, -2.0, 1e-3])}
    direction, _ = jax.jit(optimizer.update)(gradient, optimizer.init(gradient), gradient)
    np.testing.assert_allclose(direction["w"], [1, -1, 1 / (1 + 1e-5)], rtol=5e-7)


def test_gradients_are_clipped_only_above_the_limit() -> None:
    clip = optimizers.clip_by_global_norm(5.0)
    gradient = {"w": jnp.array([3.0, 0.0]), "b": jnp.array([-4.0])}  # norm 5
    clipped, _ = clip.update(gradient, clip.init(gradient))
    np.testing.assert_allclose(clipped["b"], -4, rtol=1e-6)
    half, _ = clip.update(jax.tree.map(lambda g: 2 * g, gradient), clip.init(gradient))
    np.testing.assert_allclose(half["b"], -4, rtol=1e-6)
