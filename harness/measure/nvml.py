"""One GPU as NVIDIA's management library sees it: energy, memory by process, throttling.

Counters that this GPU or driver does not have are None. Devices are named as CUDA numbers them: by
``CUDA_VISIBLE_DEVICES`` (indices or UUIDs), in the order of the bus (``CUDA_DEVICE_ORDER=PCI_BUS_ID``, which the worker
sets).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class NvmlDevice:
    """Raises `OSError` where there is no library, no driver, or no such device."""

    def __init__(self, index: int) -> None:
        try:
            import pynvml
        except ImportError:
            raise OSError("nvidia-ml-py is not installed: pip install nvidia-ml-py") from None
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            self._handle = _handle(pynvml, index)
            self.name = str(pynvml.nvmlDeviceGetName(self._handle))
        except pynvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from None
        self._before = self._processes()

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded (Volta and later)."""
        millijoules = self._asked(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None if millijoules is None else millijoules / 1e3

    def throttled_s(self) -> float | None:
        """Seconds so far in which power or heat held the clocks down."""
        times = [
            self._violation_s(self._nvml.NVML_PERF_POLICY_POWER),
            self._violation_s(self._nvml.NVML_PERF_POLICY_THERMAL),
        ]
        known = [seconds for seconds in times if seconds is not None]
        return sum(known) if known else None

    def own_bytes(self) -> int | None:
        """Memory of this process by the driver's account, the CUDA context included.

        In a container the driver may know the process by another number: then it is the one that came after this
        object was made, where only one did.
        """
        now = self._processes()
        mine = now.get(os.getpid())
        if mine is None:
            new = [size for pid, size in now.items() if pid not in self._before]
            mine = new[0] if len(new) == 1 else None
        return mine or None

    def others(self) -> int:
        """Processes that compute on the device besides this one."""
        now = self._processes()
        own = os.getpid() in now or bool(now.keys() - self._before.keys())
        return len(now) - own

    def _violation_s(self, policy: int) -> float | None:
        status = self._asked(lambda: self._nvml.nvmlDeviceGetViolationStatus(self._handle, policy))
        return None if status is None else status.violationTime / 1e9

    def _processes(self) -> dict[int, int]:
        found = self._asked(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)) or []
        return {process.pid: process.usedGpuMemory or 0 for process in found}

    def _asked(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except self._nvml.NVMLError:
            return None


def _handle(pynvml: Any, index: int) -> Any:
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    name = visible[index] if index < len(visible) else str(index)
    if name.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    return pynvml.nvmlDeviceGetHandleByUUID(name)
