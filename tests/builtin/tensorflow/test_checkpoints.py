"""The variables of a TensorFlow session that a checkpoint contains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from framework_cases import MODELS

from harness import PluginError, Recipe
from harness.testing import SessionCases

pytestmark = pytest.mark.tensorflow

CASES = SessionCases("tensorflow", MODELS, threads=2)


@pytest.fixture(autouse=True, scope="module")
def _threads() -> None:
    """Open a session first, because TensorFlow sets the number of threads once per process."""
    CASES.open("linear").close()


def nested_module() -> Any:
    """Return a module with dropout layers in a list, in a dictionary and in a submodule."""
    import keras
    import tensorflow as tf
    from harness_tensorflow.layers import Dense, Dropout

    module = tf.Module()
    module.layers = [Dense(2, 2), keras.layers.Dropout(0.5)]
    module.named = {"one": Dropout(0.5), "none": Dropout(0.0)}
    module.generator = keras.random.SeedGenerator(3)
    return module


def keras_model() -> Any:
    import keras

    model = keras.Sequential([keras.layers.Dense(2), keras.layers.Dropout(0.5), keras.layers.BatchNormalization()])
    model.build((None, 2))
    return model


@pytest.mark.parametrize(("build", "others"), [(nested_module, 5), (keras_model, 7)])
def test_all_generators_and_statistics_of_a_module_are_found(build: Callable[[], Any], others: int) -> None:
    """The dense layer has two variables, each generator one, and the batch normalization four."""
    from harness_tensorflow import checkpoints
    from harness_tensorflow.optimizers import Optimizer

    found = checkpoints.variables_of(build(), {}, Optimizer(Recipe(optimizer="sgd"), [], []), None, [])
    assert [name for name in found if name.startswith("module.")] == [f"module.{index}" for index in range(others)]
    assert len({id(variable) for variable in found.values()}) == len(found)


def test_loss_scale_and_step_are_restored_exactly() -> None:
    import tensorflow as tf
    from harness_tensorflow import checkpoints
    from harness_tensorflow.optimizers import LossScale, Optimizer

    def variables(gradients: list[list[float]]) -> dict[str, Any]:
        weight, scale = tf.Variable([1.0, 2.0]), LossScale()
        optimizer = Optimizer(Recipe(optimizer="adam"), [weight], [True])
        for gradient in gradients:
            scale.apply(optimizer, [tf.constant(gradient)], tf.constant(0.1))
        return checkpoints.variables_of(tf.Module(), {"w": weight}, optimizer, scale, [])

    state = {name: variable.numpy() for name, variable in variables([[3.0, np.inf], [3.0, 5.0]]).items()}
    restored = variables([])
    checkpoints.restore(state, restored)
    for name, variable in restored.items():
        np.testing.assert_array_equal(variable.numpy(), state[name], err_msg=name)
    assert (state["loss_scale.scale"], state["optimizer.step"]) == (32768.0, 1)
    with pytest.raises(PluginError, match=r"missing weights\.w"):
        checkpoints.restore({name: state[name] for name in state if name != "weights.w"}, restored)
