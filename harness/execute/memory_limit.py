"""Limit on the total host memory of a child process and the processes that it starts.

The parent process reads the resident memory of each process in the child's process group, and of the descendants of
these processes, from ``/proc`` (proc_pid_stat(5)). The parent terminates the group when the sum exceeds the limit. If a
run uses several devices, the other processes of the run are descendants in separate process groups, and exit when the
child exits. Memory limits of the kernel are less suitable:

- A control group with ``memory.max`` would be exact, but creating one requires root access or a delegated hierarchy.
  Most containers and batch systems provide neither root access nor such a hierarchy.
- ``RLIMIT_AS`` and ``RLIMIT_DATA`` limit reserved memory, not used memory. CUDA and the frameworks' memory allocators
  reserve many times the memory that they use. ``RLIMIT_AS`` and ``RLIMIT_DATA`` also apply to each process separately.
- ``RLIMIT_RSS`` has no effect on Linux.

The limit is not exact. A process group can exceed the limit between two measurements. Pages shared by several processes
are counted once per process. A process that leaves the group (setsid(2)) is not terminated with the group, and is no
longer counted after its parent has exited.
"""

from __future__ import annotations

import os
import re
import time

from harness.errors import UsageError

OPTION = "--memory-limit"
INTERVAL_S = 0.5
"""Minimum interval between memory measurements, in seconds."""
MAX_LOAD = 0.01
"""Maximum fraction of one core's time spent on measurements. Measurements are less frequent if ``/proc`` contains many
processes."""
_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_UNITS |= {f"{prefix}ib": size for prefix, size in _UNITS.items() if prefix not in ("", "b")}
_UNITS |= {f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)}


def size_bytes(text: str | int) -> int:
    """Convert a size such as ``4GiB``, ``500 MB`` or ``1.5g`` to bytes. A number without a unit is in bytes.

    Raises `harness.UsageError` if the text is not a size or if the size is less than one byte.
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]*)\s*", str(text).lower(), re.ASCII)
    if found is None or found[2] not in _UNITS or float(found[1]) * _UNITS[found[2]] < 1:
        raise UsageError(f"{text!r} is not a valid amount of memory; write a number and a unit, such as 4GiB or 500MB")
    return int(float(found[1]) * _UNITS[found[2]])


def size_text(size: int) -> str:
    """Format a size in bytes, for example as ``4 GiB``."""
    for prefix, unit in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= unit:
            return f"{round(size / unit, 2):g} {prefix}"
    return f"{size} bytes"


def check_memory_limit(limit_bytes: int | None) -> None:
    """Raise `harness.UsageError` if the limit is not positive or if this system has no ``/proc``."""
    if limit_bytes is None:
        return
    if limit_bytes <= 0:
        raise UsageError(f"the memory limit of a run must be positive, got {limit_bytes} bytes")
    if not os.access("/proc/self/stat", os.R_OK):
        raise UsageError(f"the memory usage of a run cannot be measured without /proc; remove {OPTION}")


class MemoryWatch:
    """Monitor for the resident memory of a process group, with a limit in bytes."""

    def __init__(self, group: int, limit_bytes: int) -> None:
        self._group, self.limit_bytes = group, limit_bytes
        self.peak_bytes = 0
        """Highest memory usage measured so far, in bytes."""
        self._next = 0.0

    @property
    def wait_s(self) -> float:
        """Time until the next measurement, in seconds."""
        return max(0.0, self._next - time.monotonic())

    def exceeded(self) -> bool:
        """Measure the memory usage if the next measurement is due.

        Return True if any measurement has exceeded the limit.
        """
        if not self.wait_s:
            start = time.thread_time()
            self.peak_bytes = max(self.peak_bytes, group_bytes(self._group))
            cost_s = time.thread_time() - start
            self._next = time.monotonic() + max(INTERVAL_S, cost_s / MAX_LOAD)
        return self.peak_bytes > self.limit_bytes


def group_bytes(group: int) -> int:
    """Return the total resident memory of the processes in a process group and their descendants, in bytes."""
    pages: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    members: list[int] = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - faster than creating a Path for each process
        if not name.isdigit():
            continue
        try:
            file = os.open(f"/proc/{name}/stat", os.O_RDONLY)
        except OSError:  # the process has ended
            continue
        try:
            # The second field is the program's name in parentheses, which may contain spaces and parentheses.
            fields = os.read(file, 4096).rpartition(b")")[2].split()
        except OSError:
            continue
        finally:
            os.close(file)
        if len(fields) > 21:
            pages[int(name)] = int(fields[21])
            children.setdefault(int(fields[1]), []).append(int(name))
            if int(fields[2]) == group:
                members.append(int(name))
    counted: set[int] = set()
    while members:
        pid = members.pop()
        if pid not in counted:
            counted.add(pid)
            members += children.get(pid, ())
    return sum(pages[pid] for pid in counted) * os.sysconf("SC_PAGE_SIZE")
