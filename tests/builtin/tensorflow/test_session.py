"""Tests of the TensorFlow session: losses, tracing, determinism and errors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from framework_cases import BATCH, CLASSES, config_of, example, models, request, trainable_start

import harness

pytestmark = pytest.mark.tensorflow


def mlp_request(**changes: Any) -> harness.SessionRequest:
    model = models()["mlp"]
    info, _ = example("features")
    recipe = changes.pop("recipe", harness.Recipe(optimizer="sgd"))
    return request("tensorflow", model, config_of(model, "mlp", {}), info, recipe, **changes)


def open_mlp(**changes: Any) -> Any:
    from harness_tensorflow import TensorFlowBackend

    wanted = mlp_request(**changes)
    session = TensorFlowBackend().open(wanted)
    session.set_weights(trainable_start(models()["mlp"], wanted.config, wanted.info))
    return session


def batch_of(size: int = BATCH) -> harness.Batch:
    _, inputs = example("features", size)
    return harness.Batch(inputs, np.arange(size) % CLASSES)


def log_softmax(logits: Any) -> Any:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classification_loss_is_smoothed_cross_entropy(smoothing: float) -> None:
    session = open_mlp(recipe=harness.Recipe(optimizer="sgd", label_smoothing=smoothing))
    batch = batch_of()
    logits = session.fetch(session.predict(batch.inputs)).astype(np.float64)
    targets = (1 - smoothing) * np.eye(CLASSES)[batch.targets] + smoothing / CLASSES
    expected = -(targets * log_softmax(logits)).sum(1).mean()
    assert session.fetch(session.train_step(batch, 0.1)) == pytest.approx(expected, rel=1e-5)


def test_regression_loss_is_the_mean_over_all_elements() -> None:
    from harness_tensorflow import TensorFlowBackend

    model = models()["linear"]
    info, inputs = example("features")
    info = harness.DataInfo(kind=info.kind, inputs=info.inputs, objective="regression", outputs=2)
    config = model.Config()
    session = TensorFlowBackend().open(request("tensorflow", model, config, info, harness.Recipe(optimizer="sgd")))
    session.set_weights(trainable_start(model, config, info))
    outputs = session.fetch(session.predict(inputs))
    targets = np.random.default_rng(0).standard_normal((BATCH, 2)).astype(np.float32)
    loss = session.fetch(session.train_step(harness.Batch(inputs, targets), 0.1))
    assert loss == pytest.approx(float(np.mean((outputs - targets) ** 2)), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_token_classification_loss_is_the_mean_over_positions_not_ignored(smoothing: float) -> None:
    """Compare with float64 numpy; an example with one valid position has a third of the weight of one with three."""
    import tensorflow as tf
    from harness_tensorflow import TensorFlowBackend

    def build(config: object, info: harness.DataInfo, dropout: float) -> harness.Network:
        class Positions(tf.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = tf.Variable(tf.zeros((4, 2)))
                self.bias = tf.Variable(tf.zeros(4))

            def __call__(self, inputs: dict[str, Any], training: bool) -> Any:
                return tf.einsum("blf,cf->blc", inputs["features"], self.weight) + self.bias

        module = Positions()
        bindings = {"weight": harness.Binding(module.weight), "bias": harness.Binding(module.bias)}
        return harness.Network(module=module, bindings=bindings)

    info = harness.DataInfo(
        kind="positions",
        inputs={"features": harness.InputSpec(shape=(3, 2), dtype="float32")},
        objective="token_classification",
        outputs=4,
    )
    parameters = (harness.Parameter(name="weight", shape=(4, 2)), harness.Parameter(name="bias", shape=(4,)))
    recipe = harness.Recipe(optimizer="sgd", label_smoothing=smoothing)
    session = TensorFlowBackend().open(
        replace(mlp_request(recipe=recipe), build=build, info=info, parameters=parameters)
    )
    rng = np.random.default_rng(0)
    session.set_weights({"weight": rng.standard_normal((4, 2)).astype(np.float32), "bias": np.zeros(4, np.float32)})
    inputs = {"features": rng.standard_normal((2, 3, 2)).astype(np.float32)}
    targets = np.array([[3, 0, 1], [2, harness.IGNORED, harness.IGNORED]])
    logits = session.fetch(session.predict(inputs)).astype(np.float64)
    assert logits.shape == (2, 3, 4)
    logs = log_softmax(logits[targets != harness.IGNORED])
    wanted = (1 - smoothing) * np.eye(4)[[3, 0, 1, 2]] + smoothing / 4
    loss, gradients = session.gradients(harness.Batch(inputs, targets))
    assert loss == pytest.approx(-(wanted * logs).sum(1).mean(), rel=1e-6)
    np.testing.assert_allclose(gradients["bias"], (np.exp(logs) - wanted).mean(0), atol=1e-6)
    assert session.fetch(session.train_step(harness.Batch(inputs, targets), 0.1)) == pytest.approx(loss, rel=1e-6)


def test_each_batch_size_is_traced_once_for_all_learning_rates() -> None:
    session = open_mlp()
    traced = []
    module = session._module
    session._module = lambda inputs, training: traced.append(training) or module(inputs, training=training)
    for step in range(5):
        session.train_step(batch_of(), 0.1 / (1 + step))
    assert traced == [True]
    session.train_step(batch_of(3), 0.1)
    for size in (BATCH, 3, BATCH):
        session.predict(batch_of(size).inputs)
    assert traced == [True, True, False, False]
    notes = session.notes()
    assert notes["train_batch_sizes_traced"] == "8, 3"
    assert notes["predict_batch_sizes_traced"] == "8, 3"


def test_the_learning_rate_of_each_step_is_used() -> None:
    session = open_mlp()
    start = session.get_weights()
    session.train_step(batch_of(), 0.0)
    np.testing.assert_array_equal(session.get_weights()["layers.0.weight"], start["layers.0.weight"])
    session.train_step(batch_of(), 0.5)
    assert np.abs(session.get_weights()["layers.0.weight"] - start["layers.0.weight"]).max() > 0


def test_setting_weights_resets_the_optimizer() -> None:
    recipe = harness.Recipe(optimizer="adamw")
    session = open_mlp(recipe=recipe)
    start = session.get_weights()

    def three_steps() -> dict[str, Any]:
        session.set_weights(start)
        for _ in range(3):
            session.train_step(batch_of(), 1e-2)
        weights: dict[str, Any] = session.get_weights()
        return weights

    first, second = three_steps(), three_steps()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "xla"])
def test_the_same_seed_gives_the_same_training(compiled: bool) -> None:
    recipe = harness.Recipe(optimizer="adamw", dropout=0.5)
    losses: dict[int, list[list[float]]] = {0: [], 1: []}
    for seed in (0, 1, 0):
        session = open_mlp(recipe=recipe, seed=seed, compile=compiled)
        losses[seed].append([float(session.fetch(session.train_step(batch_of(), 1e-2))) for _ in range(5)])
    assert losses[0][0] == losses[0][1]
    assert losses[0][0] != losses[1][0]


@pytest.mark.parametrize(
    "changes",
    [{"precision": "fp16"}, {"precision": "tf32"}, {"device": "cuda:7"}, {"device": "tpu"}],
    ids=["fp16", "tf32", "cuda:7", "tpu"],
)
def test_unsupported_devices_and_precisions_are_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(harness.UnsupportedError, match=changes.get("precision", changes.get("device"))):
        open_mlp(**changes)


def test_another_thread_count_in_the_same_process_is_rejected() -> None:
    open_mlp()
    with pytest.raises(harness.UnsupportedError, match="once per process"):
        open_mlp(threads=1)


def test_bindings_that_do_not_match_the_model_are_listed() -> None:
    from harness_tensorflow import TensorFlowBackend

    wanted = mlp_request()

    def without(name: str) -> Any:
        def build(config: Any, info: Any, dropout: float) -> harness.Network:
            network = wanted.build(config, info, dropout)
            bindings = {key: value for key, value in network.bindings.items() if key != name}
            return harness.Network(module=network.module, bindings=bindings)

        return build

    with pytest.raises(harness.PluginError, match=r"no binding for layers\.1\.bias.*is not bound"):
        TensorFlowBackend().open(replace(wanted, build=without("layers.1.bias")))
    fewer = [parameter for parameter in wanted.parameters if parameter.name != "layers.0.weight"]
    with pytest.raises(harness.PluginError, match=r"layers\.0\.weight is bound but not a parameter"):
        TensorFlowBackend().open(replace(wanted, parameters=fewer))


def test_a_parameter_without_gradient_is_listed() -> None:
    from harness_tensorflow import TensorFlowBackend

    wanted = mlp_request()

    def build(config: Any, info: Any, dropout: float) -> harness.Network:
        network = wanted.build(config, info, dropout)
        network.module.layers[-1].bias = network.module.layers[-1].bias * 0.0
        return network

    session = TensorFlowBackend().open(replace(wanted, build=build))
    with pytest.raises(harness.PluginError, match=r"layers\.2\.bias"):
        session.train_step(batch_of(), 0.1)


def test_a_keras_model_trains_like_the_built_in_network() -> None:
    import keras
    from harness_tensorflow import TensorFlowBackend

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

    model = models()["linear"]
    info, inputs = example("features")
    ours = request("tensorflow", model, model.Config(), info, harness.Recipe(optimizer="sgd"))
    start = trainable_start(model, model.Config(), info)
    results = []
    for wanted in (ours, replace(ours, build=build)):
        session = TensorFlowBackend().open(wanted)
        session.set_weights(start)
        session.train_step(harness.Batch(inputs, np.arange(BATCH) % CLASSES), 0.1)
        results.append(session.fetch(session.predict(inputs)))
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_the_cpu_is_listed_last_and_has_no_device_memory() -> None:
    from harness_tensorflow import TensorFlowBackend

    assert TensorFlowBackend().devices()[-1].name == "cpu"
    session = open_mlp()
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
