"""Conversion of a child's exception or exit status to a `harness.records.Failure`."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BadResultError, HarnessError, RecordError, UnsupportedError
from harness.execute.memory_limit import OPTION, MemoryWatch, size_text
from harness.plugins.failures import describe, place
from harness.records import Failure, FailureKind
from harness.records.reading import MAX_LOG_BYTES, open_stored
from harness.records.record import MAX_MESSAGE

if TYPE_CHECKING:
    from harness.interfaces import Backend

_NO_MEMORY = ("MemoryError", "  what():  std::bad_alloc", "Fatal Python error: _PyErr_NoMemory")
"""Prefixes of the last line that Python or C++ prints if memory allocation fails."""
LOG_TAIL_LINES, LOG_TAIL_BYTES = 40, 16_384
"""Maximum number of lines and maximum number of bytes that a failure includes from the end of the log."""


@dataclass(frozen=True)
class Ended:
    """Exit status, duration and output of a process that has exited."""

    status: int
    """Exit status, or the negated number of the signal that terminated the process."""
    timed_out: bool
    seconds: float
    """Duration of the process, in seconds."""
    output: str = ""
    """Last part of the process's output, at most `LOG_TAIL_BYTES` long."""
    too_long_lines: int = 0
    """Number of messages that were ignored because they exceeded the maximum length."""
    over_memory: MemoryWatch | None = None
    """Measured memory usage of a process group that was terminated for exceeding its memory limit. The value is None if
    the process group was not terminated or was terminated for another reason."""

    @property
    def by_limit(self) -> bool:
        """True if the process was terminated because it exceeded its time or memory limit."""
        return self.timed_out or self.over_memory is not None

    @property
    def how(self) -> str:
        """Description of the exit status for use in an error message."""
        if self.status >= 0:
            return f"exited with status {self.status}"
        try:
            return f"killed by {signal.Signals(-self.status).name}"
        except ValueError:  # Most real-time signals have no name.
            return f"killed by signal {-self.status}"


def from_exception(error: Exception, backend: Backend | None = None, phase: str = "") -> Failure:
    """Return a failure with the type of an exception and the first line of its message.

    For an exception that harness does not raise deliberately, the message ends with the location in the plugin's code.
    The traceback is written to the log.
    """
    kind: FailureKind = "error"
    text, where = str(error).strip() or type(error).__name__, ""
    if isinstance(error, UnsupportedError):
        kind = "unsupported"
    elif isinstance(error, BadResultError):
        kind = "bad_result"
    elif isinstance(error, MemoryError) or (backend is not None and backend.is_out_of_memory(error)):
        kind = "oom"
    elif not isinstance(error, HarnessError):
        text, where = describe(error), place(error)
    message = text.splitlines()[0][:MAX_MESSAGE]
    return Failure(kind=kind, message=f"{message} ({where})" if where else message, phase=phase)


def from_end(ended: Ended, timeout_s: float, *, oom: bool = False, limit_option: str = "") -> Failure:
    """Return the failure of a child that exited without a result.

    `oom` is true if the kernel killed a process for lack of memory while the child was running. `limit_option` is the
    command-line option that sets `timeout_s`.
    """
    kind: FailureKind = "crash"
    log_tail = last_lines(ended.output)
    if ended.timed_out:
        hint = f"; raise the limit with {limit_option}" if limit_option else ""
        kind, message = "timeout", f"did not finish within {timeout_s:g} s{hint}"
    elif ended.over_memory is not None:
        peak, limit = map(size_text, (ended.over_memory.peak_bytes, ended.over_memory.limit_bytes))
        kind = "oom"
        message = f"used {peak} of host memory, more than the limit of {limit}; raise the limit with {OPTION}"
    elif ended.status == -signal.SIGKILL and oom:
        kind, message = "oom", f"{ended.how}: the kernel ran out of memory"
    elif ended.status == -signal.SIGKILL:
        message = f"{ended.how} (the kernel sends this signal when memory runs out)"
    elif ended.status < 0:
        message = ended.how
    elif ended.status == 0:
        message = "exited with status 0 but returned no result"
    else:
        lines = [line for line in log_tail.splitlines() if line.strip()]
        kind, message = "error", lines[-1][:MAX_MESSAGE] if lines else ended.how
    if kind in ("crash", "error") and any(line.startswith(_NO_MEMORY) for line in log_tail.splitlines()[-10:]):
        kind = "oom"
    if ended.too_long_lines:
        message += f"; {ended.too_long_lines} messages were ignored because they were too long"
    return Failure(kind=kind, message=message, log_tail=log_tail)


def tail(log: Path) -> str:
    """Return the last lines of the log, or an empty string if there is no log. Only the end of the file is read.

    If the log is a link or a pipe, it is not read, because the child may have replaced the log file.
    """
    with contextlib.suppress(OSError, RecordError), open_stored(log, MAX_LOG_BYTES) as file:
        file.seek(max(0, file.seek(0, 2) - LOG_TAIL_BYTES))
        return last_lines(file.read().decode(errors="replace"))
    return ""


def last_lines(text: str) -> str:
    """Return the last `LOG_TAIL_LINES` lines of a text."""
    return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])


def kernel_oom_kills() -> int:
    """Return the number of processes that the kernel's out-of-memory killer has killed since boot (``oom_kill`` in
    /proc/vmstat).

    Return 0 if the system does not have this counter.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
