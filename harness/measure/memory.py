"""Peak host memory of this process, phase by phase, from the kernel's own high-water mark.

Linux: ``VmHWM`` in ``/proc/self/status``, which writing 5 to ``/proc/self/clear_refs`` resets (proc(5)). Where the
reset is not permitted the figures are cumulative, and say so. Elsewhere ``ru_maxrss`` (kilobytes on BSD and Linux,
bytes on macOS; getrusage(2)), which cannot be reset. ``ru_maxrss`` is not used on Linux: it survives ``exec`` and so
inherits the peak of whoever started the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_bytes() -> int:
    """The process's peak resident memory since its start or since the last `reset_peak`."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> bool:
    """Start the high-water mark again from the present use. False where this is not possible."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def give_back() -> None:
    """Return memory that is free to the system. glibc keeps what many small arrays leave (malloc_trim(3)), and it would
    count as the process's in every later phase; other systems' libraries have no such call."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class PhaseMemory:
    """Peaks by phase: call `enter` at the start of each phase and `finish` at the end of the last one."""

    def __init__(self) -> None:
        self._phase: str | None = None
        self._resettable = reset_peak()
        self.by_phase_bytes: dict[str, int] = {}

    @property
    def counter(self) -> str:
        if not _STATUS.exists():
            return "ru_maxrss, cumulative"
        return "VmHWM, reset at each phase" if self._resettable else "VmHWM, cumulative"

    def enter(self, phase: str) -> None:
        self.finish()
        self._phase = phase

    def finish(self) -> None:
        if self._phase is not None:
            seen = max(peak_bytes(), self.by_phase_bytes.get(self._phase, 0))
            self.by_phase_bytes[self._phase] = seen
            self._phase = None
        if self._resettable:
            reset_peak()
