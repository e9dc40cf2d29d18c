"""Tests that need a GPU; tests on the CPU cover the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from framework_cases import MODELS

import harness
from harness.testing import SessionCases

pytestmark = [pytest.mark.tensorflow, pytest.mark.gpu]

CASES = SessionCases("tensorflow", MODELS, threads=2)


@pytest.fixture
def gpu() -> harness.DeviceInfo:
    from harness_tensorflow import TensorFlowBackend

    first = TensorFlowBackend().devices()[0]
    if not first.name.startswith("cuda"):
        pytest.skip("TensorFlow finds no GPU")
    return first


def train(case: str, **changes: Any) -> tuple[Any, list[float], harness.DeviceMemory | None]:
    session, batch = CASES.open(case, recipe=harness.Recipe(optimizer="adamw"), **changes), CASES.batch(case)
    outputs = session.fetch(session.predict(batch.inputs))
    losses = [float(session.fetch(session.train_step(batch, 1e-3))) for _ in range(5)]
    session.synchronize()
    return outputs, losses, session.device_memory()


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("case", ["mlp", "lstm", "bert", "resnet", "wav2vec2"])
def test_every_precision_trains(gpu: harness.DeviceInfo, case: str, precision: str) -> None:
    if precision not in gpu.precisions:
        pytest.skip(f"{gpu.description} does not support {precision}")
    outputs, losses, memory = train(case, device=gpu.name, precision=precision)
    assert np.isfinite(outputs).all()
    assert losses[-1] < losses[0]
    assert memory is not None
    assert memory.allocator_peak_bytes
    if precision != "fp32":
        reference, _, _ = train(case, device=gpu.name)
        assert np.abs(outputs - reference).max() < 0.1 * np.abs(reference).max()


@pytest.mark.parametrize(
    "recipe",
    [
        harness.Recipe(optimizer="sgd", momentum=0.9),
        harness.Recipe(optimizer="rmsprop", clip_norm=1.0),
        harness.Recipe(optimizer="adam"),
    ],
    ids=lambda recipe: recipe.optimizer,
)
def test_every_optimizer_trains_at_fp16(gpu: harness.DeviceInfo, recipe: harness.Recipe) -> None:
    session = CASES.open("mlp", recipe=recipe, device=gpu.name, precision="fp16")
    losses = [float(session.fetch(session.train_step(CASES.batch("mlp"), 1e-2))) for _ in range(20)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_nvml_finds_the_device(gpu: harness.DeviceInfo) -> None:
    from harness.measure.cuda_devices import driver_uuid
    from harness.measure.machine import Machine

    machine = Machine(gpu.name)
    assert machine.gpu is not None, machine.gpu_reason
    assert machine.gpu.uuid.endswith(driver_uuid(int(gpu.name.partition(":")[2])))


def test_a_batch_too_large_is_out_of_memory(gpu: harness.DeviceInfo) -> None:
    import tensorflow as tf
    from harness_tensorflow import TensorFlowBackend

    train("mlp", device=gpu.name)
    with pytest.raises(tf.errors.ResourceExhaustedError) as caught, tf.device("GPU:0"):
        tf.zeros([1 << 21, 1 << 21])
    assert TensorFlowBackend().is_out_of_memory(caught.value)
