"""Tests of GPU-specific behavior."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import CASES, MODELS
from harness_jax import JaxBackend

import harness

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpu() -> harness.DeviceInfo:
    first = JaxBackend().devices()[0]
    if not first.name.startswith("cuda"):
        pytest.skip("jax finds no GPU")
    return first


def train(case: str, **changes: Any) -> tuple[Any, list[float], harness.DeviceMemory | None]:
    session, batch = CASES.open(case, recipe=harness.Recipe(optimizer="adamw"), **changes), CASES.batch(case)
    outputs = session.fetch(session.predict(batch.inputs))
    losses = [float(session.fetch(session.train_step(batch, 1e-3))) for _ in range(5)]
    session.synchronize()
    return outputs, losses, session.device_memory()


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("case", MODELS)
def test_training_at_each_precision_lowers_the_loss(gpu: harness.DeviceInfo, case: str, precision: str) -> None:
    if precision not in gpu.precisions:
        pytest.skip(f"{gpu.description} does not support {precision}")
    outputs, losses, memory = train(case, device=gpu.name, precision=precision)
    assert losses[-1] < losses[0]
    assert memory is not None
    assert memory.allocator_peak_bytes
    on_cpu, _, _ = train(case)
    allowed = 1e-5 if precision == "fp32" else 5e-2
    assert np.linalg.norm(outputs - on_cpu) < allowed * np.linalg.norm(on_cpu)


def test_deterministic_training_is_reproducible_bit_by_bit(gpu: harness.DeviceInfo) -> None:
    first, second = (train("bert", device=gpu.name, deterministic=True)[1] for _ in range(2))
    assert first == second


def test_nvml_finds_the_device(gpu: harness.DeviceInfo) -> None:
    from harness.measure.cuda_devices import driver_uuid
    from harness.measure.machine import Machine

    machine = Machine(gpu.name)
    assert machine.gpu is not None, machine.gpu_reason
    assert machine.gpu.uuid.endswith(driver_uuid(int(gpu.name.partition(":")[2])))


def test_fp16_and_fp64_are_refused(gpu: harness.DeviceInfo) -> None:
    for precision in ("fp16", "fp64"):
        with pytest.raises(harness.UnsupportedError, match=precision):
            CASES.open("mlp", device=gpu.name, precision=precision)


def test_an_allocation_that_does_not_fit_is_recognized_as_out_of_memory(gpu: harness.DeviceInfo) -> None:
    import jax
    import jax.numpy as jnp

    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jnp.zeros((1 << 21, 1 << 21), device=jax.devices("cuda")[0]).block_until_ready()
    assert JaxBackend().is_out_of_memory(caught.value)
