"""Tests of the list of GPUs and of the recognition of this process among those that NVML lists, with a fake NVML."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from fake_nvml import FakeGpu, FakeNvml

from harness.measure import cuda_devices, nvml
from harness.measure.nvml import GpuUse, NvmlDevice, gpu_processes, gpus
from harness.records import Gpu

HOST_ID, STRANGER, LATE = 4_100_001, 4_100_002, 4_100_003
"""IDs that no process of this machine has: this process in the PID namespace of the host, and two others."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """The only GPU of the machine."""
    gpu = FakeGpu("GPU-0")
    install(monkeypatch, gpu)
    monkeypatch.setattr(cuda_devices, "driver_uuid", lambda index: "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return gpu


def install(monkeypatch: pytest.MonkeyPatch, *gpus: FakeGpu | None) -> FakeNvml:
    library = FakeNvml(*gpus)
    monkeypatch.setitem(sys.modules, "pynvml", library)  # type: ignore[arg-type]
    return library


@pytest.mark.parametrize("own", [os.getpid(), HOST_ID], ids=["same namespace", "container"])
@pytest.mark.parametrize("others", [[], [(STRANGER, 5)]], ids=["alone", "shared"])
def test_own_process_is_recognized(gpu: FakeGpu, own: int, others: list[tuple[int, int | None]]) -> None:
    gpu.processes = [*others]
    before = gpu_processes()
    gpu.processes = [*others, (own, 700)]  # the framework creates its context before the counters are opened
    device = NvmlDevice(0, before=before)
    assert device.use() == GpuUse(700, len(others))
    gpu.processes += [(LATE, 9)]
    assert device.use() == GpuUse(700, len(others) + 1)


def test_own_process_is_recognized_among_the_ids_of_enclosing_namespaces(
    gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "status").write_text(f"Name:\tpython\nNSpid:\t{HOST_ID}\t7\n")
    monkeypatch.setattr(nvml, "_STATUS", tmp_path / "status")
    device = NvmlDevice(0)
    gpu.processes = [(STRANGER, 5), (HOST_ID, 700)]
    assert device.use() == GpuUse(700, 1)


def test_host_process_with_the_id_of_this_process_is_another_process(gpu: FakeGpu) -> None:
    gpu.processes = [(os.getpid(), 5)]
    device = NvmlDevice(0)
    gpu.processes += [(HOST_ID, 700)]
    assert device.use() == GpuUse(700, 1)


def test_processes_that_start_at_the_same_moment_are_counted_and_distinguished_when_one_ends(gpu: FakeGpu) -> None:
    device = NvmlDevice(0)
    gpu.processes = [(STRANGER, 5), (HOST_ID, 700)]
    assert device.use() == GpuUse(None, 1)
    gpu.processes = [(HOST_ID, 800), (LATE, 9)]
    assert device.use() == GpuUse(800, 1)
    gpu.processes = [(HOST_ID, 900)]
    assert device.use() == GpuUse(900, 0)


def test_process_that_was_mistaken_for_this_process_is_corrected_when_it_ends(gpu: FakeGpu) -> None:
    device = NvmlDevice(0)
    gpu.processes = [(STRANGER, 5)]
    device.use()
    gpu.processes = [(HOST_ID, 700)]
    assert device.use() == GpuUse(700, 0)


@pytest.mark.parametrize("processes", [None, []], ids=["not supported", "none listed"])
def test_driver_that_lists_no_processes_reports_neither_memory_nor_others(
    gpu: FakeGpu, processes: list[tuple[int, int | None]] | None
) -> None:
    gpu.processes = processes
    device = NvmlDevice(0, before=gpu_processes())
    assert device.use() == GpuUse(None, 0)


@pytest.mark.parametrize("size", [None, 0], ids=["not available", "zero"])
@pytest.mark.parametrize("own", [os.getpid(), HOST_ID], ids=["same namespace", "container"])
def test_unavailable_memory_is_unknown_and_the_process_still_recognized(
    gpu: FakeGpu, own: int, size: int | None
) -> None:
    device = NvmlDevice(0)
    gpu.processes = [(own, size)]
    assert device.use() == GpuUse(None, 0)


def test_process_that_is_listed_twice_counts_once_with_its_whole_memory(gpu: FakeGpu) -> None:
    device = NvmlDevice(0)
    gpu.processes = [(HOST_ID, 300), (HOST_ID, 400), (HOST_ID, None)]
    assert device.use() == GpuUse(700, 0)


def test_old_driver_lists_processes_too(gpu: FakeGpu) -> None:
    sys.modules["pynvml"].is_old = True  # type: ignore[attr-defined]
    device = NvmlDevice(0)
    gpu.processes = [(os.getpid(), 700), (STRANGER, 5)]
    assert device.use() == GpuUse(700, 1)


def test_processes_of_every_gpu_and_mig_device_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    part = FakeGpu("MIG-a", processes=[(3, 1)])
    install(
        monkeypatch, FakeGpu("GPU-0", processes=[(1, 1), (2, 1)]), None, FakeGpu("GPU-2", processes=None, mig=[part])
    )
    assert gpu_processes() == {"GPU-0": {1, 2}, "GPU-2": frozenset(), "MIG-a": {3}}


def test_gpus_are_listed_with_memory_and_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that shares memory with the host has no memory counter; MIG devices are parts of their GPU."""
    mig = FakeGpu("GPU-3", "NVIDIA H200", mig=[FakeGpu("MIG-a", "NVIDIA H200 MIG 1g.18gb")])
    install(monkeypatch, FakeGpu("GPU-0", "NVIDIA H200", 100), None, FakeGpu("GPU-2", "NVIDIA GB10", None), mig)
    assert gpus() == [
        Gpu(name="NVIDIA H200", memory_bytes=100, driver="570.1"),
        Gpu(name="NVIDIA GB10", memory_bytes=0, driver="570.1"),
        Gpu(name="NVIDIA H200", memory_bytes=80 * 2**30, driver="570.1"),
    ]


def test_driver_without_a_version_is_listed_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeGpu("GPU-0")).driver = None
    assert [gpu.driver for gpu in gpus()] == [""]


def test_missing_driver_or_library_means_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeGpu("GPU-0")).failure = "Driver Not Loaded"
    assert (gpus(), gpu_processes()) == ([], {})
    with pytest.raises(OSError, match="NVML: Driver Not Loaded"):
        NvmlDevice(0)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert (gpus(), gpu_processes()) == ([], {})
