"""The update rules against a numpy reference of `harness.Recipe`'s docstring."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness_jax import optimizers

import harness

STEPS = 6

RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "sgd-decay": {"optimizer": "sgd", "weight_decay": 0.1},
    "sgd-momentum": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "sgd-nesterov": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "sgd-clipped": {"optimizer": "sgd", "clip_norm": 0.5, "weight_decay": 0.1},
    "rmsprop": {"optimizer": "rmsprop", "weight_decay": 0.1},
    "rmsprop-large-epsilon": {"optimizer": "rmsprop", "epsilon": 0.1},
    "adam": {"optimizer": "adam"},
    "adam-decay": {"optimizer": "adam", "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.99},
    "adam-no-beta1": {"optimizer": "adam", "beta1": 0.0},
    "adam-large-epsilon": {"optimizer": "adam", "epsilon": 0.1},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "adamw-large-epsilon": {"optimizer": "adamw", "weight_decay": 0.1, "epsilon": 0.1},
    "adamw-clipped": {"optimizer": "adamw", "clip_norm": 0.5, "epsilon": 0.1, "weight_decay": 0.1},
}


def reference(recipe: harness.Recipe, start: dict[str, Any], gradients: list[Any], rates: list[float]) -> Any:
    """`STEPS` steps in float64; decay on ``matrix`` only."""
    parameters = {name: value.astype(np.float64) for name, value in start.items()}
    first, second = ({name: np.zeros_like(value) for name, value in parameters.items()} for _ in range(2))
    for t, (gradient, a) in enumerate(zip(gradients, rates, strict=True), start=1):
        scale = 1.0
        if recipe.clip_norm is not None:
            norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient.values()))
            scale = min(1.0, recipe.clip_norm / norm)
        for name, p in parameters.items():
            g = scale * gradient[name].astype(np.float64)
            w = recipe.weight_decay if name == "matrix" else 0.0
            if recipe.optimizer == "adamw":
                p -= a * w * p
            else:
                g = g + w * p
            m, s = first[name], second[name]
            if recipe.optimizer == "sgd":
                m[...] = recipe.momentum * m + g
                p -= a * (g + recipe.momentum * m if recipe.nesterov else m)
            elif recipe.optimizer == "rmsprop":
                s[...] = 0.99 * s + 0.01 * g**2
                p -= a * g / (np.sqrt(s) + recipe.epsilon)
            else:
                m[...] = recipe.beta1 * m + (1 - recipe.beta1) * g
                s[...] = recipe.beta2 * s + (1 - recipe.beta2) * g**2
                m_hat, s_hat = m / (1 - recipe.beta1**t), s / (1 - recipe.beta2**t)
                p -= a * m_hat / (np.sqrt(s_hat) + recipe.epsilon)
    return parameters


@pytest.mark.parametrize("name", RECIPES)
def test_steps_are_those_of_the_recipe(name: str) -> None:
    recipe = harness.Recipe(**RECIPES[name])
    rng = np.random.default_rng(0)
    start = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in (("matrix", (4, 3)), ("bias", (5,)))}
    gradients = [
        {key: rng.standard_normal(value.shape).astype(np.float32) for key, value in start.items()} for _ in range(STEPS)
    ]
    rates = [0.1 / (1 + step) for step in range(STEPS)]
    optimizer = optimizers.build(recipe, {"matrix": True, "bias": False})

    @jax.jit
    def step(params: Any, state: Any, gradient: Any, rate: Any) -> Any:
        direction, state = optimizer.update(gradient, state, params)
        return jax.tree.map(lambda p, u: p - rate * u, params, direction), state

    params = jax.tree.map(jnp.asarray, start)
    state = optimizer.init(params)
    for gradient, rate in zip(gradients, rates, strict=True):
        params, state = step(params, state, gradient, np.float32(rate))
    for key, expected in reference(recipe, start, gradients, rates).items():
        np.testing.assert_allclose(params[key], expected, rtol=2e-5, atol=2e-6)


def test_the_first_step_of_adam_is_as_exact_as_float32_allows() -> None:
    """Where ``1 - 0.999 ** t`` is computed in float32, the first step is off by 7e-6."""
    optimizer = optimizers.build(harness.Recipe(optimizer="adam"), {"w": False})
    gradient = {"w": jnp.array([0.3, -2.0, 1e-3])}
    direction, _ = jax.jit(optimizer.update)(gradient, optimizer.init(gradient), gradient)
    np.testing.assert_allclose(direction["w"], [1, -1, 1 / (1 + 1e-5)], rtol=5e-7)


def test_small_gradients_are_not_clipped() -> None:
    clip = optimizers.clip_by_global_norm(5.0)
    gradient = {"w": jnp.array([3.0, 0.0]), "b": jnp.array([-4.0])}  # of norm 5
    clipped, _ = clip.update(gradient, clip.init(gradient))
    np.testing.assert_allclose(clipped["b"], -4, rtol=1e-6)
    half, _ = clip.update(jax.tree.map(lambda g: 2 * g, gradient), clip.init(gradient))
    np.testing.assert_allclose(half["b"], -4, rtol=1e-6)
