"""How an exception in a child, or the child's end, becomes a `harness.records.Failure`."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BadResultError, HarnessError, UnsupportedError
from harness.records import Failure, FailureKind

if TYPE_CHECKING:
    from harness.interfaces import Backend

LOG_TAIL_LINES = 40


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    """Exit status, or minus the number of the signal that ended it."""
    timed_out: bool
    seconds: float

    @property
    def how(self) -> str:
        if self.status >= 0:
            return f"ended with status {self.status}"
        try:
            return f"killed by {signal.Signals(-self.status).name}"
        except ValueError:  # most real-time signals have no name
            return f"killed by signal {-self.status}"


def from_exception(error: Exception, backend: Backend | None = None, phase: str = "") -> Failure:
    """Describe an exception by its kind and its first line; the log has the traceback."""
    kind: FailureKind = "error"
    text = str(error).strip() or type(error).__name__
    if isinstance(error, UnsupportedError):
        kind = "unsupported"
    elif isinstance(error, BadResultError):
        kind = "bad_result"
    elif isinstance(error, MemoryError) or (backend is not None and backend.is_out_of_memory(error)):
        kind = "oom"
    elif not isinstance(error, HarnessError):
        text = f"{type(error).__name__}: {error}"
    return Failure(kind=kind, message=text.splitlines()[0][:500], phase=phase)


def from_end(ended: Ended, timeout_s: float, log: Path, *, oom: bool = False) -> Failure:
    """Describe why a child left no result; `oom` says that the kernel ran out of memory meanwhile."""
    kind: FailureKind = "crash"
    last_lines = tail(log)
    if ended.timed_out:
        kind, message = "timeout", f"did not end within {timeout_s:g} s; --timeout gives it more"
    elif ended.status == -signal.SIGKILL and oom:
        kind, message = "oom", f"{ended.how}: the kernel ran out of memory"
    elif ended.status == -signal.SIGKILL:
        message = f"{ended.how} (the kernel sends it when memory runs out)"
    elif ended.status < 0:
        message = ended.how
    elif ended.status == 0:
        message = "ended with status 0 but left no result"
    else:
        lines = [line for line in last_lines.splitlines() if line.strip()]
        kind, message = "error", lines[-1][:500] if lines else ended.how
    return Failure(kind=kind, message=message, log_tail=last_lines)


def tail(log: Path) -> str:
    """The log's last lines; of a long log only the end is read."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 16_384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])
    return ""


def kernel_oom_kills() -> int:
    """How often the kernel's out-of-memory killer has struck since boot (``oom_kill`` in /proc/vmstat); 0 elsewhere."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
