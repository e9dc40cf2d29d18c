"""Tests of the session: losses, tracing, determinism and rejected settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from framework_cases import MODELS

import harness
from harness.interfaces import BuildNetwork
from harness.testing import SessionCases
from harness.testing.session_cases import SGD

pytestmark = pytest.mark.tensorflow

CASES = SessionCases("tensorflow", MODELS, threads=2)


def test_each_batch_size_is_traced_once_whatever_the_learning_rate() -> None:
    session = CASES.open("mlp")
    traced = []
    module = session._module
    session._module = lambda inputs, training: traced.append(training) or module(inputs, training=training)
    for step in range(5):
        session.train_step(CASES.batch("mlp"), 0.1 / (1 + step))
    assert traced == [True]
    session.train_step(CASES.batch("mlp", 3), 0.1)
    for size in (6, 3, 6):
        session.predict(CASES.batch("mlp", size).inputs)
    assert traced == [True, True, False, False]


def test_every_setting_has_a_value_before_the_first_batch() -> None:
    assert [name for name, value in CASES.open("mlp").notes().items() if not value] == []


def test_gradients_are_traced_once_and_draw_new_dropout_masks() -> None:
    session = CASES.open("mlp", recipe=msgspec.structs.replace(SGD, dropout=0.5))
    traced = []
    module = session._module
    session._module = lambda inputs, training: traced.append(training) or module(inputs, training=training)
    losses = [session.gradients(CASES.batch("mlp"))[0] for _ in range(5)]
    assert traced == [True]
    assert len(set(losses)) == 5


def test_another_thread_count_in_the_same_process_is_refused() -> None:
    CASES.open("mlp")
    with pytest.raises(harness.UnsupportedError, match="only once"):
        CASES.open("mlp", threads=1)


def test_a_parameter_that_the_loss_ignores_is_named() -> None:

    wanted = CASES.request("mlp")

    def build(config: Any, info: Any, dropout: float) -> harness.Network:
        network = wanted.build(config, info, dropout)
        network.module.layers[-1].bias = network.module.layers[-1].bias * 0.0
        return network

    session = CASES.backend.open(replace(wanted, build=build))
    with pytest.raises(harness.PluginError, match=r"no gradient with respect to layers\.2\.bias; use the variable"):
        session.train_step(CASES.batch("mlp"), 0.1)


def bound_to(variable: Any, output: Callable[[Any], Any]) -> BuildNetwork:
    """Return a function that builds the linear model with a bias in `variable`. `output` is applied to the bias."""

    def build(config: Any, info: Any, dropout: float) -> harness.Network:
        import keras

        class Net(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.layer = keras.layers.Dense(info.outputs, use_bias=False, dtype="float32")
                self.layer.build((None, *info.inputs["features"].shape))
                self.bias = variable(self, (info.outputs,))

            def call(self, inputs: Any, training: bool = False) -> Any:
                return self.layer(inputs["features"]) + output(self.bias)

        net = Net()
        return harness.Network(
            module=net,
            bindings={
                "linear.weight": harness.Binding(net.layer.kernel, (1, 0)),
                "linear.bias": harness.Binding(net.bias),
            },
        )

    return build


def test_a_parameter_without_gradient_is_named_with_the_cause() -> None:
    """The loss depends on the bias, so the message must not state the opposite."""
    import tensorflow as tf

    build = bound_to(lambda net, shape: net.add_weight(shape=shape), lambda bias: tf.stop_gradient(bias * 1.0))
    session = CASES.open("linear", build=build)
    with pytest.raises(harness.PluginError, match=r"no gradient with respect to linear\.bias; .*tf\.stop_gradient"):
        session.train_step(CASES.batch("linear"), 0.1)


def test_a_trainable_parameter_in_a_variable_that_is_not_trainable_is_named() -> None:
    build = bound_to(lambda net, shape: net.add_weight(shape=shape, trainable=False), lambda bias: bias * 1.0)
    with pytest.raises(harness.PluginError, match=r"linear\.bias is trainable, but its variable has trainable=False"):
        CASES.open("linear", build=build)


def test_a_keras_model_is_a_network_too() -> None:
    import keras

    def build(config: Any, info: Any, dropout: float) -> harness.Network:
        inputs = keras.Input(info.inputs["features"].shape, name="features")
        layer = keras.layers.Dense(info.outputs, dtype="float32")
        model = keras.Model({"features": inputs}, layer(inputs))
        return harness.Network(
            module=model,
            bindings={
                "linear.weight": harness.Binding(layer.kernel, (1, 0)),
                "linear.bias": harness.Binding(layer.bias),
            },
        )

    results, batch = [], CASES.batch("linear")
    for changes in ({}, {"build": build}):
        session = CASES.open("linear", **changes)
        session.train_step(batch, 0.1)
        results.append(session.fetch(session.predict(batch.inputs)))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_the_cpu_is_listed_last_and_has_no_device_memory() -> None:
    from harness_tensorflow import TensorFlowBackend

    assert TensorFlowBackend().devices()[-1].name == "cpu"
    session = CASES.open("mlp")
    assert session.device_memory() is None
    assert session.notes()["intra_op_threads"] == "2"
    session.close()


def test_out_of_memory_is_recognized() -> None:
    import tensorflow as tf
    from harness_tensorflow import TensorFlowBackend

    backend = TensorFlowBackend()
    assert backend.is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, "out of memory"))
    assert backend.is_out_of_memory(MemoryError())
    assert not backend.is_out_of_memory(ValueError("out of memory"))
