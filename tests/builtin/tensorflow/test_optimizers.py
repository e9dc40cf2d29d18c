"""Comparison of the update rules with a numpy implementation of the docstring of `harness.Recipe`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import harness

pytestmark = pytest.mark.tensorflow

STEPS = 6


def reference(recipe: harness.Recipe, start: list[Any], gradients: list[list[Any]], rates: list[float]) -> list[Any]:
    """Return the parameters after `STEPS` steps in float64, with weight decay for the first parameter only."""
    parameters = [value.astype(np.float64) for value in start]
    first = [np.zeros_like(value) for value in parameters]
    second = [np.zeros_like(value) for value in parameters]
    for t, (gradient_list, a) in enumerate(zip(gradients, rates, strict=True), start=1):
        scale = 1.0
        if recipe.clip_norm is not None:
            norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradient_list))
            scale = min(1.0, recipe.clip_norm / norm)
        for index, p in enumerate(parameters):
            g = scale * gradient_list[index].astype(np.float64)
            w = recipe.weight_decay if index == 0 else 0.0
            if recipe.optimizer == "adamw":
                p -= a * w * p
            else:
                g = g + w * p
            m, s = first[index], second[index]
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


RECIPES = {
    "sgd": {"optimizer": "sgd"},
    "sgd-decay": {"optimizer": "sgd", "weight_decay": 0.1},
    "sgd-momentum": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "sgd-nesterov": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    "rmsprop": {"optimizer": "rmsprop", "epsilon": 1e-3, "weight_decay": 0.1},
    "adam": {"optimizer": "adam"},
    "adam-decay": {"optimizer": "adam", "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.99},
    "adam-large-epsilon": {"optimizer": "adam", "epsilon": 0.1},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "adamw-large-epsilon": {"optimizer": "adamw", "weight_decay": 0.1, "epsilon": 0.1},
    "adamw-clipped": {"optimizer": "adamw", "clip_norm": 0.5, "epsilon": 0.1},
    "sgd-clipped": {"optimizer": "sgd", "clip_norm": 0.5, "weight_decay": 0.1},
}


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("name", RECIPES)
def test_steps_agree_with_the_recipe(name: str, compiled: bool) -> None:
    import tensorflow as tf
    from harness_tensorflow.optimizers import Optimizer

    recipe = harness.Recipe(**RECIPES[name])
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape).astype(np.float32) for shape in ((4, 3), (5,))]
    gradients = [[rng.standard_normal(value.shape).astype(np.float32) for value in start] for _ in range(STEPS)]
    rates = [0.1 / (1 + step) for step in range(STEPS)]
    variables = [tf.Variable(value) for value in start]
    optimizer = Optimizer(recipe, variables, [True, False])

    @tf.function(jit_compile=compiled, autograph=False)
    def step(rate: Any, *gradient: Any) -> None:
        optimizer.apply(gradient, rate)

    for _ in range(2):  # the second time after a reset, with the same initial values
        for gradient, rate in zip(gradients, rates, strict=True):
            step(tf.constant(rate), *map(tf.constant, gradient))
        for variable, expected in zip(variables, reference(recipe, start, gradients, rates), strict=True):
            np.testing.assert_allclose(variable.numpy(), expected, rtol=2e-5, atol=2e-6)
        optimizer.reset()
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)


def test_loss_scale_skips_an_overflowed_step_and_halves() -> None:
    import tensorflow as tf
    from harness_tensorflow.optimizers import LossScale, Optimizer

    variable = tf.Variable([1.0, 2.0])
    optimizer = Optimizer(harness.Recipe(optimizer="sgd"), [variable], [False])
    scale = LossScale()

    @tf.function(autograph=False)
    def step(gradient: Any) -> Any:
        loss = scale.scale(tf.constant(1.0))
        scale.apply(optimizer, [gradient * loss], tf.constant(1.0))
        return loss

    assert step(tf.constant([float("inf"), 0.0])).numpy() == 65536
    np.testing.assert_array_equal(variable.numpy(), [1, 2])
    assert step(tf.constant([0.5, 1.0])).numpy() == 32768
    np.testing.assert_array_equal(variable.numpy(), [0.5, 1])
    for _ in range(1999):
        step(tf.constant([0.0, 0.0]))
    assert step(tf.constant([0.0, 0.0])).numpy() == 65536
