"""Tests of the session and the backend: rejected settings, recorded settings, and global state that must not change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch_cases
from harness_torch import TorchBackend, harness_backends, harness_networks
from torch_cases import FAMILIES, batch_of, losses, open_session, request_of

import harness

pytestmark = pytest.mark.torch


def test_the_plugin_names_a_backend_and_a_network_for_every_family() -> None:
    assert [backend.name for backend in harness_backends()] == ["torch"]
    assert [network.model for network in harness_networks()] == list(FAMILIES)
    assert all(callable(request_of(network.model).build) for network in harness_networks())
    assert next(iter(harness_backends())).requires.keys() == {"torch", "transformers"}


def test_importing_the_networks_leaves_tensorflow_alone() -> None:
    program = (
        "import sys, importlib, harness_torch as plugin\n"
        "for ref in plugin.harness_networks(): importlib.import_module(ref.build.partition(':')[0])\n"
        "print([name for name in ('tensorflow', 'keras', 'jax') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found == "[]\n"


def test_the_cpu_is_the_last_device_and_computes_fp32() -> None:
    devices = TorchBackend().devices()
    assert devices[-1].name == "cpu"
    assert "fp32" in devices[-1].precisions
    assert not {"tf32", "fp16"} & set(devices[-1].precisions)


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_a_precision_that_the_device_lacks_is_refused(precision: str) -> None:
    message = rf"does not support precision {precision} on cpu .*; use one of: fp32"
    with pytest.raises(harness.UnsupportedError, match=message):
        TorchBackend().open(request_of("linear", precision=precision))


@pytest.mark.parametrize("device", ["cuda:99", "mps", "tpu"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(harness.UnsupportedError, match=rf"no device '{device}' on this machine; use one of: .*cpu"):
        TorchBackend().open(request_of("linear", device=device))


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    session = open_session(request_of("linear"))
    weights = session.get_weights()
    with pytest.raises(harness.PluginError, match=r"missing linear.bias; unexpected other"):
        session.set_weights({"linear.weight": weights["linear.weight"], "other": weights["linear.bias"]})
    with pytest.raises(harness.PluginError, match=r"linear.weight has shape \(7, 5\), not \(5, 7\)"):
        session.set_weights({**weights, "linear.weight": weights["linear.weight"].T})


def test_notes_list_threads_and_numeric_modes() -> None:
    import torch

    session = open_session(request_of("linear", threads=2))
    notes = session.notes()
    assert notes["intra_op_threads"] == "2" == str(torch.get_num_threads())
    assert notes["inter_op_threads"] == "1"
    assert notes["matmul_precision"] == "highest"
    assert notes["cudnn_tf32"] == notes["deterministic_algorithms"] == "False"
    assert notes["autocast"] == notes["compile"] == "off"
    assert notes["optimizer"] == "fused"
    assert all(isinstance(value, str) for value in notes.values())
    assert session.device_memory() is None
    session.synchronize()
    session.close()


@pytest.mark.parametrize("deterministic", [False, True])
def test_algorithms_of_cudnn_are_timed_unless_the_run_is_deterministic(deterministic: bool) -> None:
    import torch

    session = open_session(request_of("linear", deterministic=deterministic))
    assert torch.backends.cudnn.benchmark is not deterministic
    assert session.notes()["cudnn_benchmark"] == str(not deterministic)
    session.close()
    torch.use_deterministic_algorithms(False)


def test_cuda_devices_report_their_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    names = ["GPU A", "GPU B"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: names[index])
    properties = [SimpleNamespace(uuid=f"0000-{index}") for index in range(len(names))]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties[index])
    found = [(device.name, device.uuid) for device in TorchBackend().devices()]
    assert found == [("cuda:0", "0000-0"), ("cuda:1", "0000-1"), ("cpu", "")]


def test_running_out_of_memory_is_recognized() -> None:
    import torch

    backend = TorchBackend()
    with pytest.raises(RuntimeError) as host:
        torch.empty(2**55, dtype=torch.uint8)
    assert backend.is_out_of_memory(host.value)
    assert backend.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert backend.is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as shapes:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not backend.is_out_of_memory(shapes.value)
    assert not backend.is_out_of_memory(ValueError("DefaultCPUAllocator"))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mlp", "bert"])
def test_a_compiled_model_computes_the_same(family: str) -> None:
    plain = open_session(request_of(family))
    compiled = open_session(request_of(family, compile=True))
    batch, last = batch_of(request_of(family).info), batch_of(request_of(family).info, 3)
    for each in (batch, batch, last, batch):
        np.testing.assert_allclose(losses(compiled, each, [1e-3]), losses(plain, each, [1e-3]), rtol=1e-4)
    np.testing.assert_allclose(
        compiled.fetch(compiled.predict(last.inputs)), plain.fetch(plain.predict(last.inputs)), atol=1e-4
    )
    assert compiled.notes()["compile"] == "torch.compile, default mode"
    compiled.close()


@pytest.mark.slow
def test_compiling_without_a_compiler_is_unsupported_and_says_why(tmp_path: Path) -> None:
    program = (
        "import harness\n"
        "from torch_cases import batch_of, open_session, request_of\n"
        "request = request_of('mlp', compile=True)\n"
        "try: open_session(request).train_step(batch_of(request.info), 0.1)\n"
        "except harness.UnsupportedError as error: print(error)"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(torch_cases.__file__).parent),
        "CXX": "no-such-compiler",
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
    }
    child = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert child.stdout.startswith("torch.compile failed to compile this model: "), child.stderr
    assert "no-such-compiler" in child.stdout
    assert "run without --compile" in child.stdout
