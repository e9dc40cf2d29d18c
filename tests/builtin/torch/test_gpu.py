"""Tests of sessions on a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from harness_torch import TorchBackend
from torch_cases import FAMILIES, batch_of, losses, open_session, request_of

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


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_steps_and_predictions_do_not_wait_for_the_gpu(
    family: str, precision: str, request: pytest.FixtureRequest
) -> None:
    session_request = request_of(
        family, device="cuda:0", precision=precision, recipe={"clip_norm": 1.0, "dropout": 0.1 * (family != "resnet")}
    )
    session = open_session(session_request)
    batch = batch_of(session_request.info, 16)
    losses(session, batch, [1e-3] * 2)
    session.fetch(session.predict(batch.inputs))
    request.getfixturevalue("no_synchronization")
    for rate in (1e-3, 2e-3):
        session.train_step(batch, rate)
        session.predict(batch.inputs)


def test_out_of_device_memory_is_recognized() -> None:
    import torch

    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert TorchBackend().is_out_of_memory(error.value)
