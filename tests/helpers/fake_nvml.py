"""A fake of the module ``pynvml``, with GPUs, MIG devices and processes that a test chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class FakeError(Exception):
    """Fake of ``pynvml.NVMLError``."""


class FakeMismatchError(Exception):
    """Fake of ``pynvml.NVMLLibraryMismatchError``, which is not a subclass of ``NVMLError``."""


@dataclass
class FakeGpu:
    """A GPU or, in the list `mig` of another GPU, a MIG device. A counter of None raises an error."""

    uuid: str
    name: str = "Example GPU"
    memory_bytes: int | None = 80 * 2**30
    processes: list[tuple[int, int | None]] | None = field(default_factory=list)
    """Process IDs and sizes in bytes."""
    millijoules: int | None = 1_000_000
    violations_ns: dict[int, int] = field(default_factory=lambda: {0: 0, 1: 0})
    mig: list[FakeGpu] | None = None
    """MIG devices, or None for a GPU without MIG."""
    instance: tuple[int, int] = (0, 0)


def _known(value: Any) -> Any:
    if value is None:
        raise FakeError("Not Supported")
    return value


class FakeNvml:
    """Fake of the functions of ``pynvml`` that are used. A handle is a `FakeGpu`; None is a GPU without permission."""

    NVMLError = FakeError
    NVMLLibraryMismatchError = FakeMismatchError
    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1

    def __init__(self, *gpus: FakeGpu | None, driver: str | None = "570.1") -> None:
        self.gpus = gpus
        self.driver = driver
        self.is_old = False
        """True for a driver without the current version of the list of processes."""
        self.failure: str | None = None
        """Message of the error that `nvmlInit` raises."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        readers: dict[str, Callable[..., Any]] = {
            "nvmlSystemGetDriverVersion": lambda: _known(self.driver),
            "nvmlDeviceGetCount": lambda: len(self.gpus),
            "nvmlDeviceGetHandleByIndex": lambda index: _known(self.gpus[index]),
            "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
            "nvmlDeviceGetName": lambda gpu: gpu.name,
            "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(total=_known(gpu.memory_bytes)),
            "nvmlDeviceGetMigMode": lambda gpu: [int(bool(_known(gpu.mig))), 0],
            "nvmlDeviceGetMaxMigDeviceCount": lambda gpu: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": lambda gpu, n: _known(gpu.mig[n] if n < len(gpu.mig) else None),
            "nvmlDeviceGetGpuInstanceId": lambda gpu: gpu.instance[0],
            "nvmlDeviceGetComputeInstanceId": lambda gpu: gpu.instance[1],
            "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: _known(gpu.millijoules),
            "nvmlDeviceGetViolationStatus": lambda gpu, policy: SimpleNamespace(
                violationTime=_known(gpu.violations_ns.get(policy))
            ),
            "nvmlDeviceGetComputeRunningProcesses_v2": lambda gpu: [
                SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in _known(gpu.processes)
            ],
        }
        return readers[name]

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name
        if self.failure:
            raise FakeError(self.failure)

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: FakeGpu) -> Any:  # noqa: N802
        if self.is_old:
            raise FakeMismatchError("the pyNVML version does not match the NVML lib version")
        return self.nvmlDeviceGetComputeRunningProcesses_v2(gpu)
