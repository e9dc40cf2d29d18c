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
    known = _high_water(_STATUS) if _STATUS.exists() else None
    if known is not None:
        return known
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


def started_processes() -> list[int]:
    """Process numbers of all that this process started, and they in turn, and that still live."""
    import psutil

    return [child.pid for child in psutil.Process().children(recursive=True)]


class PhaseMemory:
    """Peaks by phase: call `enter` at the start of each phase and `finish` at the end of the last one."""

    def __init__(self) -> None:
        self._phase: str | None = None
        self._resettable = reset_peak()
        self.by_phase_bytes: dict[str, int] = {}
        self.tree_by_phase_bytes: dict[str, int] = {}
        """Of this process and those that it started, where there were any at a phase's end: the sum of their peaks,
        which may lie apart; pages that they share count in each. One that ended before is not seen."""

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
            seen = peak_bytes()
            self._keep(self.by_phase_bytes, seen)
            others = [_peak_of(pid) for pid in started_processes()] if _STATUS.exists() else []
            if others:
                self._keep(self.tree_by_phase_bytes, seen + sum(others))
            self._phase = None
        if self._resettable:
            for pid in started_processes():
                with contextlib.suppress(OSError):
                    Path(f"/proc/{pid}/clear_refs").write_text("5")
            reset_peak()

    def _keep(self, into: dict[str, int], seen: int) -> None:
        assert self._phase is not None
        into[self._phase] = max(seen, into.get(self._phase, 0))


def _peak_of(pid: int) -> int:
    """0 for a process that has ended meanwhile."""
    with contextlib.suppress(OSError):
        return _high_water(Path(f"/proc/{pid}/status")) or 0
    return 0


def _high_water(status: Path) -> int | None:
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
