"""Tests of sessions on a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness_torch import TorchBackend
from torch_cases import FAMILIES, batch_of, losses, open_session, request_of

import harness
from harness.records import Success

pytestmark = [pytest.mark.torch, pytest.mark.gpu]


@pytest.fixture(autouse=True)
def _a_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device here")


@pytest.fixture
def no_synchronization() -> Iterator[None]:
    """Raise an error for operations that wait for the GPU."""
    import torch

    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("family", FAMILIES)
def test_cuda_agrees_with_the_cpu(family: str) -> None:
    recipe = {"optimizer": "sgd", "learning_rate": 1e-2}
    cpu = open_session(request_of(family, recipe=recipe))
    gpu = open_session(request_of(family, recipe=recipe, device="cuda:0"))
    batch = batch_of(request_of(family).info, 16)
    np.testing.assert_allclose(
        gpu.fetch(gpu.predict(batch.inputs)), cpu.fetch(cpu.predict(batch.inputs)), atol=1e-4, rtol=1e-4
    )
    np.testing.assert_allclose(losses(gpu, batch, [1e-2] * 3), losses(cpu, batch, [1e-2] * 3), rtol=1e-3)
    expected = cpu.get_weights()
    for name, array in gpu.get_weights().items():
        np.testing.assert_allclose(array, expected[name], atol=1e-3, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_supported_precision_trains(family: str, precision: str) -> None:
    if precision not in TorchBackend().devices()[0].precisions:
        pytest.skip(f"this GPU does not support {precision}")
    request = request_of(family, device="cuda:0", precision=precision, recipe={"clip_norm": 1.0})
    session = open_session(request)
    curve = losses(session, batch_of(request.info, 16), [1e-3] * 12)
    assert np.isfinite(curve).all()
    assert curve[-1] < curve[0]
    memory = session.device_memory()
    assert memory is not None
    assert 0 < (memory.allocator_peak_bytes or 0) <= (memory.reserved_peak_bytes or 0)


@pytest.mark.parametrize(
    ("precision", "optimizer"),
    [("fp32", "adamw"), ("bf16", "adamw"), *(("fp16", name) for name in ("sgd", "rmsprop", "adam", "adamw"))],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_steps_and_predictions_do_not_wait_for_the_gpu(
    family: str, precision: str, optimizer: str, request: pytest.FixtureRequest
) -> None:
    recipe = {"optimizer": optimizer, "clip_norm": 1.0, "dropout": 0.1 * (family != "resnet")}
    session_request = request_of(family, device="cuda:0", precision=precision, recipe=recipe)
    session = open_session(session_request)
    batch = batch_of(session_request.info, 16)
    losses(session, batch, [1e-3] * 2)
    session.fetch(session.predict(batch.inputs))
    request.getfixturevalue("no_synchronization")
    for rate in (1e-3, 2e-3):
        session.train_step(batch, rate)
        session.predict(batch.inputs)


def test_nvml_finds_the_device_and_this_process_on_it() -> None:
    """In a container, the driver may list this process under another ID or not list it."""
    import torch

    from harness.measure.machine import Machine

    device = TorchBackend().devices()[0]
    block = torch.ones(2**26, device="cuda:0")
    machine = Machine(device.name, gpu_uuid=device.uuid, gpu_processes={})
    assert machine.gpu is not None, machine.gpu_reason
    assert machine.gpu.uuid.endswith(device.uuid)
    machine.read()
    assert machine.gpu_peak_bytes is None or machine.gpu_peak_bytes >= block.nbytes


def test_run_is_not_another_process_on_its_own_gpu(tmp_path: Path) -> None:
    """Processes that compute on the GPU before the run, such as this one, count as other processes."""
    from harness.measure.nvml import NvmlDevice, gpu_processes

    device = NvmlDevice(0, TorchBackend().devices()[0].uuid)
    before = len(gpu_processes()[device.uuid])
    (record,) = harness.run(
        "regression", "torch", device="cuda", protocol="quick", overrides={"recipe.epochs": 1}, results=tmp_path
    ).records
    assert isinstance(record.outcome, Success), record.outcome
    flagged = {flag.detail for flag in record.outcome.flags if "other processes on the GPU" in flag.detail}
    assert flagged == ({f"other processes on the GPU: {before}"} if before else set())


def test_out_of_device_memory_is_recognized() -> None:
    import torch

    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert TorchBackend().is_out_of_memory(error.value)
