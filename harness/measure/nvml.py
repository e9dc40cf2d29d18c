"""GPUs of this machine and counters of the GPU used by a run, as reported by the NVIDIA Management Library (NVML).

A counter is None if the GPU or driver does not provide it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.measure.cuda_devices import find_device, listed_devices
from harness.records import Gpu

GpuProcesses = Mapping[str, frozenset[int]]
"""IDs of the processes that use each GPU or MIG device for computing, keyed by device UUID."""

_STATUS = Path("/proc/self/status")


class GpuUse(NamedTuple):
    """GPU usage at one point in time."""

    own_bytes: int | None
    """GPU memory used by this process, in bytes, including the CUDA context. None if the memory is unknown."""
    others: int
    """Number of other processes that use the GPU for computing."""


def gpus() -> list[Gpu]:
    """Return the NVIDIA GPUs of this machine, or an empty list if the library or the driver is missing."""
    found: list[Gpu] = []
    with contextlib.suppress(OSError):
        nvml = _library()
        driver = _query(nvml, nvml.nvmlSystemGetDriverVersion) or ""
        for device in listed_devices(nvml):
            if device.parent is None:
                name = _query(nvml, nvml.nvmlDeviceGetName, device.handle) or "unknown"
                # GPUs that share memory with the host have no memory counter.
                memory = _query(nvml, nvml.nvmlDeviceGetMemoryInfo, device.handle)
                found.append(Gpu(name=name, memory_bytes=memory.total if memory else 0, driver=driver))
    return found


def gpu_processes() -> GpuProcesses:
    """Return the processes that use each GPU, or an empty mapping if the library or the driver is missing.

    Call this function before a framework creates its CUDA context, and pass the result to `NvmlDevice`.
    """
    try:
        nvml = _library()
    except OSError:
        return {}
    return {device.uuid: frozenset(_processes(nvml, device.handle)) for device in listed_devices(nvml)}


class NvmlDevice:
    """The GPU that a framework uses as CUDA device `index`.

    `uuid` is the UUID that the framework reports, if any. `before` contains the processes that were using the GPUs
    before the framework created its CUDA context. By default, the current processes are used. Raises `OSError` if the
    library, the driver or the device is missing, or if the GPU that corresponds to the device cannot be determined.
    """

    def __init__(self, index: int, uuid: str = "", before: GpuProcesses | None = None) -> None:
        self._nvml: Any = _library()
        device = find_device(listed_devices(self._nvml), index, uuid)
        self.uuid = device.uuid
        self._handle = device.handle
        self._before = (gpu_processes() if before is None else before).get(device.uuid, frozenset())
        self._own: frozenset[int] = frozenset()
        """Process IDs reported by the driver that may be those of this process."""

    def energy_j(self) -> float | None:
        """Return the energy in joules since the driver was loaded (Volta and later GPUs)."""
        millijoules = self._query(self._nvml.nvmlDeviceGetTotalEnergyConsumption)
        return None if millijoules is None else millijoules / 1e3

    def throttled_s(self) -> float | None:
        """Return the total time in seconds for which power or thermal limits reduced the clock rates."""
        times = [
            self._violation_s(self._nvml.NVML_PERF_POLICY_POWER),
            self._violation_s(self._nvml.NVML_PERF_POLICY_THERMAL),
        ]
        known = [seconds for seconds in times if seconds is not None]
        return sum(known) if known else None

    def use(self) -> GpuUse:
        """Return the GPU memory used by this process and the number of other processes on the GPU.

        In a container, the driver may report host process IDs, which this process cannot determine. This process is
        then assumed to be one of the processes that have appeared since the CUDA context was created. If several
        processes have appeared before the first call, the memory usage of this process is unknown until the other
        processes have exited. The number of other processes is always exact.
        """
        now = _processes(self._nvml, self._handle)
        new = now.keys() - self._before
        self._own = frozenset(new & _own_ids() or new & self._own or new)
        sizes = [now[pid] for pid in self._own]
        return GpuUse(own_bytes=sizes[0] if len(sizes) == 1 else None, others=len(now) - bool(self._own))

    def _violation_s(self, policy: int) -> float | None:
        status = self._query(self._nvml.nvmlDeviceGetViolationStatus, policy)
        return None if status is None else status.violationTime / 1e9

    def _query(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return _query(self._nvml, function, self._handle, *arguments)


def _library() -> Any:
    """Return the initialized ``pynvml`` module. Raises `OSError` if the library or the driver is missing."""
    try:
        import pynvml
    except ImportError:
        raise OSError("nvidia-ml-py is not installed; run: pip install nvidia-ml-py") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise OSError(f"NVML: {error}") from None
    return pynvml


def _processes(nvml: Any, handle: Any) -> dict[int, int | None]:
    """Return the memory that each process uses on a device, in bytes, keyed by process ID.

    Return None if the memory is unknown.

    Drivers report an unknown size as zero or "not available".
    """
    listed = _query(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    if listed is None:  # drivers older than R510 support only this version
        listed = _query(nvml, nvml.nvmlDeviceGetComputeRunningProcesses_v2, handle)
    sizes: dict[int, int | None] = {}
    for process in listed or []:
        sizes[process.pid] = ((sizes.get(process.pid) or 0) + (process.usedGpuMemory or 0)) or None
    return sizes


def _own_ids() -> set[int]:
    """Return the IDs of this process in its PID namespace and in all visible enclosing namespaces."""
    ids = {os.getpid()}
    with contextlib.suppress(OSError, ValueError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("NSpid:"):
                ids.update(map(int, line.split()[1:]))
    return ids


def _query(nvml: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of an NVML function.

    Return None if the function raises an NVML error, for example because a counter is missing.
    """
    try:
        return function(*arguments)
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):
        return None
