"""Run a function in a child process with its own process group, log and channel, while the parent sleeps.

No other module of harness starts a child program. `call_in_child` gives a function its job, a `msgspec.Struct`, and
returns its result or a `harness.records.Failure`; `harness.execute.child_main` is the child's side.

The channel is a private pipe of JSON lines, one frame each: any number of events, then a result or a failure. A line
that is not a valid frame, such as one that a plugin wrote, is ignored.

A child ends when its parent dies, even by SIGKILL: it watches the *lifeline*, a pipe whose other end only the parent
holds, and on Linux the kernel also kills it (``PR_SET_PDEATHSIG``) when the thread that started it ends. That thread
is therefore always the one that waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from harness.execute import failures
from harness.execute.failures import Ended
from harness.records import Failure
from harness.records.store import LOG, write_json

TERM_WAIT_S = 5.0
"""Time that a process group gets to end after SIGTERM before SIGKILL follows."""
MAX_LINE_BYTES = 64 * 2**20
"""Longest line that is read from the channel; longer ones are ignored."""
JOB = "job.json"
_MAX_PIPE_BYTES = 2**20
"""More than a pipe holds: what a child wrote before it ended is read, what its own children still write is not."""

JobT = TypeVar("JobT", bound=Struct)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class ChildContext:
    """What a function that runs in a child has besides its job."""

    directory: Path
    """Directory of this call, which the caller reads when the call is over: the place for large arrays."""
    send: Callable[[Struct], None]
    """Send an event to the parent."""


class EventFrame(Struct, tag="event"):
    body: msgspec.Raw


class ResultFrame(Struct, tag="result"):
    body: msgspec.Raw


class FailureFrame(Struct, tag="failure"):
    body: Failure


def call_in_child(
    function: Callable[[JobT, ChildContext], ResultT],
    job: JobT,
    *,
    timeout_s: float,
    environment: Mapping[str, str],
    directory: Path | None = None,
    event_type: Any = Any,
    on_event: Callable[[Any], None] | None = None,
) -> ResultT | Failure:
    """Call a module-level function in a child process; return its result, or why there is none.

    The function is called as ``function(job, context)``, with a `ChildContext`. The annotations of its job and of its
    result are the types that both are decoded as. What the child prints goes to ``log.txt`` in `directory`, whose last
    lines are in the failure; without a `directory` a temporary one is used. `environment` is added to the parent's.

    `on_event` receives the events that decode as `event_type`, as they come. After `timeout_s` seconds, or when this
    function is left by an exception such as KeyboardInterrupt, the child's whole process group is ended (SIGTERM, a
    wait, SIGKILL). Raises `harness.RecordError` if the job cannot be written.
    """
    answers: list[ResultFrame | FailureFrame] = []

    def on_line(line: bytes) -> None:
        try:
            frame = msgspec.json.decode(line, type=EventFrame | ResultFrame | FailureFrame)
            event = msgspec.json.decode(frame.body, type=event_type) if isinstance(frame, EventFrame) else None
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if not isinstance(frame, EventFrame):
            answers.append(frame)
        elif on_event is not None:
            on_event(event)

    with contextlib.ExitStack() as stack:
        if directory is None:
            temporary = tempfile.TemporaryDirectory(prefix="harness-", ignore_cleanup_errors=True)
            directory = Path(stack.enter_context(temporary))
        log, job_file = directory / LOG, directory / JOB
        write_json(job_file, job)
        stack.callback(job_file.unlink, missing_ok=True)
        oom_kills = failures.kernel_oom_kills()
        ended = run_process(
            "harness.execute.child_main",
            [f"{function.__module__}:{function.__qualname__}", str(directory.absolute())],
            log=log,
            timeout_s=timeout_s,
            on_line=on_line,
            environment=environment,
        )
        answer = answers[-1] if answers and not ended.timed_out else None
        if isinstance(answer, FailureFrame):
            return msgspec.structs.replace(answer.body, log_tail=failures.tail(log))
        if answer is None or ended.status != 0:
            return failures.from_end(ended, timeout_s, log, oom=failures.kernel_oom_kills() > oom_kills)
        try:
            result: ResultT = msgspec.json.decode(answer.body, type=typing.get_type_hints(function)["return"])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            message = f"returned an invalid result: {error}"
            return Failure(kind="bad_result", message=message, log_tail=failures.tail(log))
        return result


def run_process(
    module: str,
    arguments: Sequence[str],
    *,
    log: Path,
    timeout_s: float,
    on_line: Callable[[bytes], None],
    environment: Mapping[str, str],
) -> Ended:
    """Run ``python -m module ARGUMENTS... CHANNEL LIFELINE PARENT`` until it ends; `on_line` gets each line of CHANNEL.

    CHANNEL and LIFELINE are file descriptors, PARENT is this process's id.
    """
    received, channel = _pipe()
    lifeline, held = _pipe()
    start = time.monotonic()
    with received, channel, lifeline, held, log.open("wb") as output:
        passed = (channel.fileno(), lifeline.fileno())
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments, *map(str, passed), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            pass_fds=passed,
            start_new_session=True,
        )
        try:
            channel.close()
            lifeline.close()
            in_time = _listen(process, received.fileno(), start + timeout_s, _Lines(on_line))
            return Ended(process.wait() if in_time else end_group(process), not in_time, time.monotonic() - start)
        finally:
            end_group(process)


def _pipe() -> tuple[io.FileIO, io.FileIO]:
    """Create a pipe. Its numbers are above those of the standard streams, which in the child are the log's, even if
    this process has closed its own."""
    low = os.pipe()
    reading, writing = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in low)
    for fd in low:
        os.close(fd)
    return io.FileIO(reading, "r"), io.FileIO(writing, "w")


class _Lines:
    """Passes on complete lines of what it is fed, except empty ones and those longer than `MAX_LINE_BYTES`."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = bytearray()

    def feed(self, data: bytes) -> None:
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._extend(end)
            if 0 < len(self._rest) <= MAX_LINE_BYTES:
                self._on_line(bytes(self._rest))
            self._rest.clear()
        self._extend(rest)

    def _extend(self, data: bytes) -> None:
        self._rest += data[: MAX_LINE_BYTES + 1 - len(self._rest)]


def _listen(process: subprocess.Popen[bytes], fd: int, deadline: float, lines: _Lines) -> bool:
    """Read lines until the process ends (True) or the deadline passes (False)."""
    os.set_blocking(fd, False)
    with selectors.DefaultSelector() as selector, _exit_signal(process) as exit_fd:
        selector.register(fd, selectors.EVENT_READ)
        if exit_fd is not None:
            selector.register(exit_fd, selectors.EVENT_READ)
        while (remaining := deadline - time.monotonic()) > 0:
            # Without an exit signal (macOS) the process is polled twice a second.
            patience_s = 3600 if exit_fd is not None else 0.5  # an hour, because the system's limit is 24 days
            ready = {key.fd for key, _ in selector.select(min(patience_s, remaining))}
            ended = process.poll() is not None
            unread = _MAX_PIPE_BYTES if ended else 1
            while fd in selector.get_map() and (fd in ready or ended) and unread > 0:
                try:
                    data = os.read(fd, 1 << 16)
                except BlockingIOError:
                    break
                if not data:
                    selector.unregister(fd)
                lines.feed(data)
                unread -= len(data)
            if ended:
                return True
        return False


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
