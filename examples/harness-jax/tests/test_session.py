"""The session's promises: losses, rates, seeds, waiting, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BATCH, CLASSES, batch_of, example, open_session, request, weights_for
from harness_jax import JaxBackend

import harness


def log_softmax(logits: Any) -> Any:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classification_loss_is_smoothed_cross_entropy(smoothing: float) -> None:
    session = open_session("mlp", recipe=harness.Recipe(optimizer="sgd", label_smoothing=smoothing))
    batch = batch_of("features")
    logits = session.fetch(session.predict(batch.inputs)).astype(np.float64)
    targets = (1 - smoothing) * np.eye(CLASSES)[batch.targets] + smoothing / CLASSES
    expected = -(targets * log_softmax(logits)).sum(1).mean()
    assert float(session.fetch(session.train_step(batch, 0.1))) == pytest.approx(expected, rel=1e-5)


def test_regression_loss_is_the_mean_over_all_elements() -> None:
    info, inputs = example("features")
    info = harness.DataInfo(kind=info.kind, inputs=info.inputs, objective="regression", outputs=2)
    session = open_session("linear", info=info)
    outputs = session.fetch(session.predict(inputs))
    targets = np.random.default_rng(0).standard_normal((BATCH, 2)).astype(np.float32)
    loss = session.fetch(session.train_step(harness.Batch(inputs, targets), 0.1))
    assert float(loss) == pytest.approx(float(np.mean((outputs - targets) ** 2)), rel=1e-5)


def test_the_learning_rate_of_each_step_is_used() -> None:
    session = open_session("mlp")
    batch, name = batch_of("features"), "layers.0.weight"
    start = session.get_weights()[name]
    _, gradients = session.gradients(batch)
    session.train_step(batch, 0.0)
    np.testing.assert_array_equal(session.get_weights()[name], start)
    session.train_step(batch, 0.5)
    np.testing.assert_allclose(session.get_weights()[name], start - 0.5 * gradients[name], rtol=1e-5, atol=1e-6)


def test_each_batch_size_is_traced_once_whatever_the_learning_rate() -> None:
    wanted, traced = request("mlp"), []

    def build(config: Any, info: Any, dropout: float) -> harness.Network:
        network = wanted.build(config, info, dropout)

        def module(params: Any, statistics: Any, inputs: Any, mode: Any) -> Any:
            traced.append(mode.training)
            return network.module(params, statistics, inputs, mode)

        return harness.Network(module=module, bindings=network.bindings)

    session = JaxBackend().open(replace(wanted, build=build))
    session.set_weights(weights_for(wanted.parameters))
    for step in range(5):
        session.train_step(batch_of("features"), 0.1 / (1 + step))
    assert traced == [True]
    session.train_step(batch_of("features", 3), 0.1)
    for size in (BATCH, 3, BATCH):
        session.predict(batch_of("features", size).inputs)
    assert traced == [True, True, False, False]


def test_setting_weights_starts_the_optimizer_and_the_dropout_afresh() -> None:
    session = open_session("mlp", recipe=harness.Recipe(optimizer="adamw", dropout=0.5))
    start = session.get_weights()

    def three_steps() -> dict[str, Any]:
        session.set_weights(start)
        for _ in range(3):
            session.train_step(batch_of("features"), 1e-2)
        weights: dict[str, Any] = session.get_weights()
        return weights

    first, second = three_steps(), three_steps()
    for name, value in first.items():
        assert not np.array_equal(value, start[name])
        np.testing.assert_array_equal(second[name], value)


def test_training_writes_over_nobody_elses_arrays() -> None:
    wanted = request("mlp")
    weights = weights_for(wanted.parameters)
    before = {name: array.copy() for name, array in weights.items()}
    session = JaxBackend().open(wanted)
    session.set_weights(weights)
    kept = session.get_weights()
    batch = batch_of("features")
    inputs = batch.inputs["features"].copy()
    for _ in range(3):
        session.train_step(batch, 0.5)
    session.synchronize()
    np.testing.assert_array_equal(batch.inputs["features"], inputs)
    for name, array in before.items():
        np.testing.assert_array_equal(weights[name], array)
        np.testing.assert_array_equal(kept[name], array)


def test_the_same_seed_gives_the_same_training_and_another_one_another() -> None:
    recipe = harness.Recipe(optimizer="adamw", dropout=0.5)
    losses: dict[int, list[list[float]]] = {0: [], 1: []}
    for seed in (0, 1, 0):
        session = open_session("mlp", recipe=recipe, seed=seed)
        losses[seed].append([float(session.fetch(session.train_step(batch_of("features"), 1e-2))) for _ in range(5)])
    assert losses[0][0] == losses[0][1]
    assert losses[0][0] != losses[1][0]


def slow(request: harness.SessionRequest) -> harness.SessionRequest:
    """The same, whose network multiplies matrices for some tenths of a second first."""

    def build(config: Any, info: Any, dropout: float) -> harness.Network:
        network = request.build(config, info, dropout)

        def module(params: Any, statistics: Any, inputs: Any, mode: Any) -> Any:
            (x,) = inputs.values()
            matrix = jnp.eye(512) + 0 * x.sum()
            busy = jax.lax.stop_gradient(jax.lax.fori_loop(0, 60, lambda _, m: m @ m, matrix))
            outputs, statistics = network.module(params, statistics, inputs, mode)
            return outputs + 0 * busy[0, 0], statistics

        return harness.Network(module=module, bindings=network.bindings)

    return replace(request, build=build)


@pytest.mark.parametrize("what", ["train_step", "predict"])
def test_synchronize_waits_for_all_that_was_submitted(what: str) -> None:
    wanted = slow(request("linear"))
    session = JaxBackend().open(wanted)
    session.set_weights(weights_for(wanted.parameters))
    batch = batch_of("features")

    def call() -> Any:
        return session.train_step(batch, 0.1) if what == "train_step" else session.predict(batch.inputs)

    session.fetch(call())  # compiled
    handles = [call() for _ in range(4)]
    assert not handles[-1].is_ready()  # else this test could not fail
    session.synchronize()
    assert all(handle.is_ready() for handle in handles)


@pytest.mark.parametrize(
    "changes",
    [{"precision": "fp16"}, {"precision": "tf32"}, {"device": "cuda:7"}, {"device": "tpu"}],
    ids=["fp16", "tf32", "cuda:7", "tpu"],
)
def test_what_the_cpu_cannot_do_is_unsupported(changes: dict[str, Any]) -> None:
    with pytest.raises(harness.UnsupportedError, match=changes.get("precision", changes.get("device"))):
        open_session("mlp", **changes)


def test_fp64_is_computed_and_comes_back_in_float64() -> None:
    session = open_session("mlp", precision="fp64")
    batch = batch_of("features")
    assert session.fetch(session.predict(batch.inputs)).dtype == np.float64
    session.train_step(batch, 0.1)
    assert all(array.dtype == np.float64 for array in session.get_weights().values())
    session.close()
    assert open_session("mlp").get_weights()["layers.0.weight"].dtype == np.float32


def test_roofline_kernels_multiply_copy_and_wait() -> None:
    kernels = JaxBackend().roofline_kernels("cpu", "fp32", 1)
    assert kernels is not None
    np.testing.assert_array_equal(kernels.matrix(16)(), np.full((16, 16), 16))
    copied = kernels.copy(64 * 2**20)()
    kernels.synchronize()
    assert copied.is_ready()
    assert copied.nbytes == 64 * 2**20


def test_a_session_without_weights_says_so() -> None:
    with pytest.raises(harness.UsageError, match="set_weights"):
        JaxBackend().open(request("mlp")).predict(batch_of("features").inputs)


def test_the_cpu_is_listed_last_and_has_no_device_memory() -> None:
    assert JaxBackend().devices()[-1].name == "cpu"
    session = open_session("mlp")
    assert session.device_memory() is None
    assert session.notes()["intra_op_threads"] == "1"
    session.close()


def test_out_of_memory_is_recognized() -> None:
    backend = JaxBackend()
    assert backend.is_out_of_memory(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"))
    assert backend.is_out_of_memory(MemoryError())
    assert not backend.is_out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: something else"))
    assert not backend.is_out_of_memory(ValueError("RESOURCE_EXHAUSTED"))
