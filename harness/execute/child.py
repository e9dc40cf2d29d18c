"""A child process with its own process group, a log file and a private pipe for events, while the parent sleeps."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TERM_WAIT_S = 5.0
"""Time that a process group gets to end after SIGTERM before SIGKILL follows."""


@dataclass(frozen=True)
class Ended:
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


def run_child(
    module: str,
    arguments: Sequence[str],
    *,
    log: Path,
    timeout_s: float,
    on_line: Callable[[bytes], None],
    environment: Mapping[str, str],
) -> Ended:
    """Run ``python -m module ARGUMENTS... FD`` until it ends; `on_line` gets each line that it writes to FD.

    Its output goes to `log`. After `timeout_s` its whole process group is ended (TERM, a wait, KILL); so it is when
    this function is left by an exception, KeyboardInterrupt included.
    """
    read_fd, low_fd = os.pipe()
    # Where stdout or stderr is closed, the pipe gets their numbers, which in the child are the log's.
    write_fd = fcntl.fcntl(low_fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(low_fd)
    start = time.monotonic()
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments, str(write_fd)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                pass_fds=(write_fd,),
                start_new_session=True,
            )
        os.close(write_fd)
        write_fd = -1
        try:
            finished = _listen(process, read_fd, start + timeout_s, on_line)
            return Ended(process.wait() if finished else end_group(process), not finished, time.monotonic() - start)
        finally:
            end_group(process)
    finally:
        os.close(read_fd)
        if write_fd >= 0:
            os.close(write_fd)


def _listen(process: subprocess.Popen[bytes], fd: int, deadline: float, on_line: Callable[[bytes], None]) -> bool:
    """Pass lines on until the process ends (True) or the deadline passes (False)."""
    os.set_blocking(fd, False)
    rest = b""
    with selectors.DefaultSelector() as selector, _exit_signal(process) as exit_fd:
        selector.register(fd, selectors.EVENT_READ)
        if exit_fd is not None:
            selector.register(exit_fd, selectors.EVENT_READ)
        pipe_open = True
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            # Without an exit signal (macOS) the process is asked twice a second.
            patience_s = 3600 if exit_fd is not None else 0.5  # an hour, because the system's limit is 24 days
            ready = {key.fd for key, _ in selector.select(min(patience_s, remaining))}
            ended = process.poll() is not None
            while pipe_open and (fd in ready or ended):
                try:
                    data = os.read(fd, 1 << 16)
                except BlockingIOError:
                    break
                if not data:
                    selector.unregister(fd)
                    pipe_open = False
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    on_line(line)
            if ended:
                return True


@contextlib.contextmanager
def _exit_signal(process: subprocess.Popen[bytes]) -> Iterator[int | None]:
    """A descriptor that becomes readable when the process ends; None where the system has none (pidfd_open(2))."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def end_group(process: subprocess.Popen[bytes]) -> int:
    """End the process and everything it started; returns its exit status."""
    try:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TERM_WAIT_S)
    finally:  # a second Ctrl-C ends the wait, and must not leave the group behind
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
