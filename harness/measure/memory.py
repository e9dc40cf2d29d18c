"""Peak host memory of this process in each phase, as reported by the kernel.

On Linux, the peak is ``VmHWM`` in ``/proc/self/status``, which is reset by writing 5 to ``/proc/self/clear_refs``
(proc(5)). If the reset is not permitted, peaks are cumulative, which is noted in the record. On other systems, the peak
is ``ru_maxrss`` (getrusage(2)), which cannot be reset. The unit of ``ru_maxrss`` is kilobytes on BSD and bytes on
macOS. ``ru_maxrss`` is not used on Linux, where it is preserved across ``exec`` and would include the peak of the
parent process.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_bytes() -> int:
    """Return the peak resident memory of the process, in bytes, since it started or since the last call to
    `reset_peak`."""
    peak = _high_water(_STATUS) if _STATUS.exists() else None
    if peak is not None:
        return peak
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> bool:
    """Reset the peak to the current memory usage. Return False if the system does not permit the reset."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def release_free_memory() -> None:
    """Return freed memory to the operating system.

    Otherwise, glibc would retain the memory of small arrays after they are freed (malloc_trim(3)), and this memory
    would be counted in every later phase. With other C libraries, this function does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def started_processes() -> list[int]:
    """Return the process IDs of all running descendants of this process."""
    import psutil

    return [child.pid for child in psutil.Process().children(recursive=True)]


class PhaseMemory:
    """Peak memory of each phase. Call `enter` at the start of each phase and `finish` after the last one."""

    def __init__(self) -> None:
        self._phase: str | None = None
        self._resettable = reset_peak()
        self.by_phase_bytes: dict[str, int] = {}
        self.tree_by_phase_bytes: dict[str, int] = {}
        """Sum of the peaks of this process and its descendants, keyed by phase. Only phases that ended while a
        descendant was running are included.

        The sum is an upper bound on the peak of all processes together, because their peaks may occur at different
        times and shared pages are counted once per process. Processes that exited before the end of the phase are not
        included.
        """
        self.by_process_bytes: dict[int, int] = {}
        """Peak memory of each descendant, keyed by process ID, over the phases that ended while the descendant was
        running. The phase ``prepare`` is excluded.
        """

    @property
    def counter(self) -> str:
        """Name of the counter from which the peaks are read, as stored in the record."""
        if not _STATUS.exists():
            return "ru_maxrss, cumulative"
        return "VmHWM, reset at each phase" if self._resettable else "VmHWM, cumulative"

    def enter(self, phase: str) -> None:
        self.finish()
        self._phase = phase

    def finish(self) -> None:
        if self._phase is not None:
            peak = peak_bytes()
            self._keep(self.by_phase_bytes, peak)
            others = {pid: peak_of(pid) for pid in started_processes()} if _STATUS.exists() else {}
            if others:
                self._keep(self.tree_by_phase_bytes, peak + sum(others.values()))
            if self._phase != "prepare":
                for pid, size in others.items():
                    self.by_process_bytes[pid] = max(size, self.by_process_bytes.get(pid, 0))
            self._phase = None
        if self._resettable:
            for pid in started_processes():
                with contextlib.suppress(OSError):
                    Path(f"/proc/{pid}/clear_refs").write_text("5")
            reset_peak()

    def _keep(self, peaks: dict[str, int], peak: int) -> None:
        assert self._phase is not None
        peaks[self._phase] = max(peak, peaks.get(self._phase, 0))


def peak_of(pid: int) -> int:
    """Return the peak memory of a process in bytes, or 0 if the process has exited."""
    with contextlib.suppress(OSError):
        return _high_water(Path(f"/proc/{pid}/status")) or 0
    return 0


def _high_water(status: Path) -> int | None:
    """Return ``VmHWM`` in bytes, or None if the file does not contain it."""
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
