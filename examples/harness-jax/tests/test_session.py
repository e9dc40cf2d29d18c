"""Tests of the session: tracing, synchronization, precision, devices and errors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES
from harness_jax import JaxBackend

import harness


def test_each_batch_size_is_traced_once_for_all_learning_rates() -> None:
    build_mlp, traced = CASES.request("mlp").build, []

    def build(config: Any, info: Any, dropout: float) -> harness.Network:
        network = build_mlp(config, info, dropout)

        def module(params: Any, statistics: Any, inputs: Any, mode: Any) -> Any:
            traced.append(mode.training)
            return network.module(params, statistics, inputs, mode)

        return harness.Network(module=module, bindings=network.bindings)

    session = CASES.open("mlp", build=build)
    for step in range(5):
        session.train_step(CASES.batch("mlp"), 0.1 / (1 + step))
    assert traced == [True]
    session.train_step(CASES.batch("mlp", 3), 0.1)
    for size in (6, 3, 6):
        session.predict(CASES.batch("mlp", size).inputs)
    assert traced == [True, True, False, False]


def test_gradients_draw_new_dropout_masks() -> None:
    session = CASES.open("mlp", recipe=harness.Recipe(optimizer="sgd", dropout=0.5))
    assert len({session.gradients(CASES.batch("mlp"))[0] for _ in range(5)}) == 5


def test_training_steps_after_setting_the_weights_draw_new_dropout_masks() -> None:
    session = CASES.open("mlp", recipe=harness.Recipe(optimizer="sgd", dropout=0.5))
    weights, losses = session.get_weights(), set()
    for _ in range(5):
        session.set_weights(weights)
        losses.add(float(session.fetch(session.train_step(CASES.batch("mlp"), 0.0))))
    assert len(losses) == 5


def slow(build_network: Any) -> Any:
    """Return a builder for a slower network, which first computes matrix products for a few tenths of a second."""

    def build(config: Any, info: Any, dropout: float) -> harness.Network:
        network = build_network(config, info, dropout)

        def module(params: Any, statistics: Any, inputs: Any, mode: Any) -> Any:
            (x,) = inputs.values()
            matrix = jnp.eye(512) + 0 * x.sum()
            busy = jax.lax.stop_gradient(jax.lax.fori_loop(0, 60, lambda _, m: m @ m, matrix))
            outputs, statistics = network.module(params, statistics, inputs, mode)
            return outputs + 0 * busy[0, 0], statistics

        return harness.Network(module=module, bindings=network.bindings)

    return build


@pytest.mark.parametrize("method", ["train_step", "predict"])
def test_synchronize_waits_for_all_submitted_calls(method: str) -> None:
    session, batch = CASES.open("linear", build=slow(CASES.request("linear").build)), CASES.batch("linear")

    def call() -> Any:
        return session.train_step(batch, 0.1) if method == "train_step" else session.predict(batch.inputs)

    session.fetch(call())  # compiles
    handles = [call() for _ in range(4)]
    assert not handles[-1].is_ready()  # if the result were ready at this point, the test could not fail
    session.synchronize()
    assert all(handle.is_ready() for handle in handles)


def test_fp64_predictions_and_weights_are_float64() -> None:
    session = CASES.open("mlp", precision="fp64")
    batch = CASES.batch("mlp")
    assert session.fetch(session.predict(batch.inputs)).dtype == np.float64
    session.train_step(batch, 0.1)
    assert all(array.dtype == np.float64 for array in session.get_weights().values())
    session.close()
    assert CASES.open("mlp").get_weights()["layers.0.weight"].dtype == np.float32


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_roofline_kernels_multiply_and_copy_random_numbers_and_synchronize(precision: Any) -> None:
    kernels = JaxBackend().roofline_kernels("cpu", precision, 1)
    assert kernels is not None
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((64, 64), np.float32) for _ in range(2))
    product = kernels.matrix(64)
    for _ in range(5):
        result = product()
    np.testing.assert_allclose(np.asarray(result, np.float32), a @ b, atol=1e-4 if precision == "fp32" else 0.5)
    copied = kernels.copy(64 * 2**20)()
    kernels.synchronize()
    assert copied.is_ready()
    np.testing.assert_array_equal(copied, np.random.default_rng(0).standard_normal(2**24, np.float32))


def test_predict_without_weights_raises() -> None:
    with pytest.raises(harness.UsageError, match="set_weights"):
        JaxBackend().open(CASES.request("mlp")).predict(CASES.batch("mlp").inputs)


def test_cpu_is_the_last_device_and_has_no_device_memory() -> None:
    assert JaxBackend().devices()[-1].name == "cpu"
    session = CASES.open("mlp")
    assert session.device_memory() is None
    assert session.notes()["intra_op_threads"] == "1"
    session.close()


def test_is_out_of_memory_recognizes_errors_of_xla_and_python() -> None:
    backend = JaxBackend()
    assert backend.is_out_of_memory(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"))
    assert backend.is_out_of_memory(MemoryError())
    assert not backend.is_out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: something else"))
    assert not backend.is_out_of_memory(ValueError("RESOURCE_EXHAUSTED"))
