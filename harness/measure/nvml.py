"""Energy, memory and throttling counters for one GPU, read with the NVIDIA Management Library (NVML).

A counter is None if the GPU or driver does not provide it. Device indices are CUDA device indices: positions in
``CUDA_VISIBLE_DEVICES`` (indices or UUIDs), in PCI bus order (the worker sets ``CUDA_DEVICE_ORDER=PCI_BUS_ID``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class NvmlDevice:
    """One GPU. Raises `OSError` if the library, the driver or the device is missing."""

    def __init__(self, index: int) -> None:
        try:
            import pynvml
        except ImportError:
            raise OSError("nvidia-ml-py is not installed; run: pip install nvidia-ml-py") from None
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            self._handle = _handle(pynvml, index)
            self.name = str(pynvml.nvmlDeviceGetName(self._handle))
        except pynvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from None
        self._before = self._processes()

    def energy_j(self) -> float | None:
        """Return the energy in joules since the driver was loaded (Volta and later GPUs)."""
        millijoules = self._query(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None if millijoules is None else millijoules / 1e3

    def throttled_s(self) -> float | None:
        """Return the total time in seconds during which power or thermal limits reduced the clock rates."""
        times = [
            self._violation_s(self._nvml.NVML_PERF_POLICY_POWER),
            self._violation_s(self._nvml.NVML_PERF_POLICY_THERMAL),
        ]
        known = [seconds for seconds in times if seconds is not None]
        return sum(known) if known else None

    def own_bytes(self) -> int | None:
        """Return the GPU memory used by this process in bytes, including the CUDA context; None if unknown.

        In a container, the driver may report a different ID for this process. In that case, if exactly one process has
        appeared since this object was created, it is assumed to be this process.
        """
        now = self._processes()
        mine = now.get(os.getpid())
        if mine is None:
            new = [size for pid, size in now.items() if pid not in self._before]
            mine = new[0] if len(new) == 1 else None
        return mine or None

    def others(self) -> int:
        """Return the number of other processes that use the GPU for computing."""
        now = self._processes()
        own = os.getpid() in now or bool(now.keys() - self._before.keys())
        return len(now) - own

    def _violation_s(self, policy: int) -> float | None:
        status = self._query(lambda: self._nvml.nvmlDeviceGetViolationStatus(self._handle, policy))
        return None if status is None else status.violationTime / 1e9

    def _processes(self) -> dict[int, int]:
        processes = self._query(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)) or []
        return {process.pid: process.usedGpuMemory or 0 for process in processes}

    def _query(self, function: Callable[[], T]) -> T | None:
        """Return the result of an NVML function; None if it raises an NVML error."""
        try:
            return function()
        except self._nvml.NVMLError:
            return None


def _handle(pynvml: Any, index: int) -> Any:
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    name = visible[index] if index < len(visible) else str(index)
    if name.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    return pynvml.nvmlDeviceGetHandleByUUID(name)
