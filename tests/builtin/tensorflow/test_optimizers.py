"""The loss scale of half precision. The optimizers are compared with numpy in ``test_networks.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import harness

pytestmark = pytest.mark.tensorflow


def test_loss_scale_skips_a_step_that_overflowed_and_halves() -> None:
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
