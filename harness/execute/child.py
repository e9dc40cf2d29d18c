"""Function calls in a child process with its own process group, log and channel, while the parent sleeps.

No other module of harness starts a process; `tests/architecture/test_processes.py` enforces this rule. `call_in_child`
passes a job, a `msgspec.Struct`, to a function and returns the function's result or a `harness.records.Failure`;
`harness.execute.child_main` is the code in the child. `calls_in_children` does this for several jobs at the same time,
and `run_program` runs a short external program.

The channel is a private pipe of JSON lines. Each line is a frame: any number of events, then a result or a failure.
Lines that are not valid frames, such as output written by a plugin, are ignored. The child's output is a second pipe,
which the parent writes to the log. The parent stops reading both pipes when the child ends, even if another process
holds them open. `harness.execute.channel` limits the amount of data that is kept.

A child ends when its parent dies, even if the parent is killed by SIGKILL. To detect this, the child watches the
*lifeline*, a pipe whose other end is open only in the parent. On Linux the kernel also kills the child
(``PR_SET_PDEATHSIG``) when the thread that started it ends, so the same thread must start the child and wait for it.
The kernel does not kill the processes that the child started, so a *guard*, a small shell, also waits for the end of
the lifeline and then kills the child's process group.
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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from harness.execute import failures
from harness.execute.channel import EventLimit, Lines, Log
from harness.execute.failures import Ended
from harness.records import Failure
from harness.records.store import LOG, write_json

DEFAULT_ENVIRONMENT = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Environment variables of every child, unless the user sets them. GPUs are numbered as by the driver, so that
``cuda:N`` is the same GPU in every framework and in NVML."""
TERM_WAIT_S = 5.0
"""Time between SIGTERM and SIGKILL when a process group is ended, in seconds."""
EXIT_WAIT_S = 20.0
"""Time that a child may take to exit after sending its result, in seconds.

Its process group is then terminated. A thread that a plugin has started can keep a process alive forever.
"""
KILL_WAIT_S = 30.0
"""Time to wait for a process to end after SIGKILL, in seconds. A process that is blocked in the kernel ends later."""
JOB = "job.json"
_MAX_PIPE_BYTES = 2**20
"""Upper bound on a pipe's capacity, and on the number of bytes read after a child has ended. These bytes include
everything that the child wrote, but not the endless output of a process that outlives it."""
_SMALL_PIPE_BYTES = 2**16
"""Lower bound on a pipe's capacity, which a user's limit may enforce (pipe(7))."""
BATCH_S = 0.1
"""Time between two readings of the pipes, in seconds, so that a child that sends many small messages does not keep the
parent busy. A pipe that is at least half full is read again immediately, so that it does not block the child, unless
the child has already written `_FLOOD_BYTES`."""
_FLOOD_BYTES = 64 * 2**20

JobT = TypeVar("JobT", bound=Struct)
ResultT = TypeVar("ResultT")

_EVENT = b'{"type":"event"'
_FRAMES = (_EVENT, b'{"type":"result"', b'{"type":"failure"')
"""Prefixes of the frames that `harness.execute.child_main` writes. Other lines are not decoded."""


@dataclass(frozen=True)
class ChildContext:
    """The context passed to a function in a child process, in addition to its job."""

    directory: Path
    """Directory of this call, for large arrays and other files. The caller reads it after the call."""
    send: Callable[[Struct], None]
    """Function that sends an event to the parent."""


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
    limit_option: str = "",
    lifeline: io.FileIO | None = None,
) -> ResultT | Failure:
    """Call a module-level function in a child process and return its result, or a `Failure` if there is no result.

    The function is called as ``function(job, context)``, with a `ChildContext`. The job and the result are decoded
    according to the function's annotations. The child's output goes to ``log.txt`` in `directory`, or in a temporary
    directory if `directory` is None; a failure contains the last lines of this log. The variables in `environment` are
    added to those of the parent and to `DEFAULT_ENVIRONMENT`.

    `on_event` receives each event that can be decoded as `event_type` as soon as it arrives. After `timeout_s` seconds,
    or when an exception such as KeyboardInterrupt ends this call, the child's whole process group is ended (SIGTERM,
    then SIGKILL after a wait). `limit_option` is the command-line option that sets `timeout_s`, if there is one, such
    as ``--timeout``. If the child exceeds the time limit, the failure recommends this option. The child also ends when
    `lifeline` reaches its end; by default, this pipe is created here. Raises `harness.RecordError` if the job cannot be
    written.
    """
    answer: ResultFrame | FailureFrame | None = None
    limit = EventLimit()

    def on_line(line: bytes) -> None:
        nonlocal answer
        if not line.startswith(_FRAMES) or (line.startswith(_EVENT) and not limit.admits()):
            return
        try:
            frame = msgspec.json.decode(line, type=EventFrame | ResultFrame | FailureFrame)
            event = msgspec.json.decode(frame.body, type=event_type) if isinstance(frame, EventFrame) else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if not isinstance(frame, EventFrame):
            answer = frame
        elif on_event is not None:
            on_event(event)

    def is_complete() -> bool:
        return answer is not None

    def notes() -> list[str]:
        return [f"{limit.dropped} events were dropped, because there were too many"] if limit.dropped else []

    with contextlib.ExitStack() as stack:
        if directory is None:
            temporary = tempfile.TemporaryDirectory(prefix="harness-", ignore_cleanup_errors=True)
            directory = Path(stack.enter_context(temporary))
        log, job_file = directory / LOG, directory / JOB
        write_json(job_file, job)
        stack.callback(_remove, job_file)
        oom_kills = failures.kernel_oom_kills()
        ended = run_process(
            "harness.execute.child_main",
            [f"{function.__module__}:{function.__qualname__}", str(directory.absolute())],
            log=log,
            timeout_s=timeout_s,
            on_line=on_line,
            is_complete=is_complete,
            notes=notes,
            environment=environment,
            lifeline=lifeline,
        )
        if isinstance(answer, FailureFrame) and not ended.timed_out:
            return msgspec.structs.replace(answer.body, log_tail=failures.last_lines(ended.output))
        if answer is None or ended.timed_out or ended.status != 0:
            oom = failures.kernel_oom_kills() > oom_kills
            return failures.from_end(ended, timeout_s, oom=oom, limit_option=limit_option)
        assert isinstance(answer, ResultFrame)
        try:
            result: ResultT = msgspec.json.decode(answer.body, type=typing.get_type_hints(function)["return"])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            message = f"returned an invalid result: {error}"
            return Failure(kind="bad_result", message=message, log_tail=failures.last_lines(ended.output))
        return result


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):  # such as a directory that was replaced by a file
        file.unlink()


@contextlib.contextmanager
def calls_in_children(
    function: Callable[[JobT, ChildContext], ResultT],
    jobs: Sequence[JobT],
    *,
    timeout_s: float,
    environment: Mapping[str, str],
) -> Iterator[list[Future[ResultT | Failure]]]:
    """Start `call_in_child` for every job at the same time and yield one future per job, in order.

    The children that are still running at the end of the context, for example after KeyboardInterrupt, are killed.
    """
    lifeline, held = _pipe()
    # Contexts are closed in reverse order: closing `held` terminates the children, so that the threads that wait for
    # them end.
    with lifeline, ThreadPoolExecutor(len(jobs)) as threads, held:
        yield [
            threads.submit(
                call_in_child, function, job, timeout_s=timeout_s, environment=environment, lifeline=lifeline
            )
            for job in jobs
        ]


def run_program(command: Sequence[str], *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a short external program without input until it ends, and return its exit status and output.

    Raises OSError if the program cannot be started, and TimeoutError, a subclass, if it is killed after `timeout_s`
    seconds.
    """
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{command[0]} did not end within {timeout_s:g} s") from None


def run_process(
    module: str,
    arguments: Sequence[str],
    *,
    log: Path,
    timeout_s: float,
    on_line: Callable[[bytes], None],
    environment: Mapping[str, str],
    is_complete: Callable[[], bool] = lambda: False,
    notes: Callable[[], list[str]] = list,
    lifeline: io.FileIO | None = None,
) -> Ended:
    """Run ``python -m module ARGUMENTS... CHANNEL LIFELINE PARENT`` until it ends.

    CHANNEL and LIFELINE are file descriptors, PARENT is this process's id. `on_line` receives each line of CHANNEL.
    After `is_complete` returns True, the process has `EXIT_WAIT_S` seconds to exit. It is then terminated and treated
    as if it had exited with status 0. `notes` returns the lines to add to the log at the end.
    """
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        received, channel = map(stack.enter_context, _pipe())
        printed, output = map(stack.enter_context, _pipe())
        for pipe in (received, printed):
            os.set_blocking(pipe.fileno(), False)
            _enlarge(pipe.fileno())
        if lifeline is None:
            lifeline, _held = map(stack.enter_context, _pipe())
        kept = stack.enter_context(Log(log))
        passed = (channel.fileno(), lifeline.fileno())
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments, *map(str, passed), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**DEFAULT_ENVIRONMENT, **os.environ, **environment},
            pass_fds=passed,
            start_new_session=True,
        )
        lines = Lines(on_line)
        readers = {received.fileno(): lines.feed, printed.fileno(): kept.feed}
        try:
            with _guard(process.pid, lifeline):
                try:
                    channel.close()
                    output.close()
                    heard = _listen(process, readers, start + timeout_s, is_complete)
                    status = process.wait() if heard == "ended" else end_group(process)
                finally:
                    end_group(process)
        finally:
            # Read what the group wrote since the last reading, including while it was being terminated.
            for fd, feed in readers.items():
                _read(fd, feed, _MAX_PIPE_BYTES)
            seconds, printed_last = time.monotonic() - start, kept.last(failures.LOG_TAIL_BYTES)
            for note in notes():
                kept.note(note)
        if heard == "lingers":
            kept.note(
                f"the process was terminated because it had not exited {EXIT_WAIT_S:g} s after sending its result"
            )
            status = 0
        return Ended(status, heard == "timeout", seconds, printed_last, lines.too_long)


@contextlib.contextmanager
def _guard(group: int, lifeline: io.FileIO) -> Iterator[None]:
    """Start a shell that kills a process group when `lifeline` reaches its end, and end the shell with the context.

    Without a shell, nothing is started.
    """
    script = "trap '' HUP INT TERM; read -r _; kill -s KILL -- \"-$1\""
    try:
        guard = subprocess.Popen(
            ["/bin/sh", "-c", script, "harness-guard", str(group)],
            stdin=lifeline,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
    except OSError:
        yield
        return
    try:
        yield
    finally:
        guard.kill()
        guard.wait()


def _pipe() -> tuple[io.FileIO, io.FileIO]:
    """Create a pipe whose descriptors are greater than 2, even if this process has closed its standard streams. In the
    child, descriptors 0 to 2 are the standard streams."""
    low = os.pipe()
    reading, writing = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in low)
    for fd in low:
        os.close(fd)
    return io.FileIO(reading, "r"), io.FileIO(writing, "w")


def _enlarge(pipe: int) -> None:
    """Set a pipe's capacity to `_MAX_PIPE_BYTES` if the system allows it."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # the user's limit on the capacity of all pipes is reached
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _MAX_PIPE_BYTES)


Readers = Mapping[int, Callable[[bytes], None]]
"""Functions that receive the data read, by file descriptor."""


def _listen(
    process: subprocess.Popen[bytes], readers: Readers, deadline: float, is_complete: Callable[[], bool]
) -> Literal["ended", "timeout", "lingers"]:
    """Read until the process ends, the deadline passes, or the process has been complete for `EXIT_WAIT_S`."""
    at_deadline: Literal["timeout", "lingers"] = "timeout"
    total = 0
    with (
        selectors.DefaultSelector() as selector,
        selectors.DefaultSelector() as exit_selector,
        _exit_signal(process) as exit_fd,
    ):
        for fd in readers:
            selector.register(fd, selectors.EVENT_READ)
        if exit_fd is not None:
            selector.register(exit_fd, selectors.EVENT_READ)
            exit_selector.register(exit_fd, selectors.EVENT_READ)
        while (remaining := deadline - time.monotonic()) > 0:
            # Without an exit signal (macOS), poll the process twice a second. Otherwise wait at most an hour at a time,
            # because epoll rejects timeouts of more than 24 days.
            longest_s = 3600 if exit_fd is not None else 0.5
            ready = {key.fd for key, _ in selector.select(min(longest_s, remaining))}
            ended = process.poll() is not None
            most = 0
            for fd, feed in readers.items():
                if fd in selector.get_map() and (fd in ready or ended):
                    count, at_end = _read(fd, feed, _MAX_PIPE_BYTES)
                    most, total = max(most, count), total + count
                    if at_end:
                        selector.unregister(fd)
            if ended:
                return "ended"
            if at_deadline == "timeout" and is_complete() and time.monotonic() + EXIT_WAIT_S < deadline:
                at_deadline, deadline = "lingers", time.monotonic() + EXIT_WAIT_S
            if most < _SMALL_PIPE_BYTES // 2 or total > _FLOOD_BYTES:
                exit_selector.select(max(0.0, min(BATCH_S, deadline - time.monotonic())))
        return at_deadline


def _read(fd: int, feed: Callable[[bytes], None], limit: int) -> tuple[int, bool]:
    """Read a non-blocking descriptor until it is empty or at least `limit` bytes are read.

    Return the number of bytes, and whether the end was reached.
    """
    count = 0
    while count < limit:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            break
        if not data:
            return count, True
        feed(data)
        count += len(data)
    return count, False


@contextlib.contextmanager
def _exit_signal(process: subprocess.Popen[bytes]) -> Iterator[int | None]:
    """Yield a descriptor that becomes readable when the process ends, or None if the system has no pidfd_open(2)."""
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
    """End the process and its process group, and return its exit status."""
    try:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
                os.killpg(process.pid, signal.SIGCONT)  # a stopped process receives no other signal
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TERM_WAIT_S)
    finally:  # A second Ctrl-C interrupts the wait; end the group in this case too.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    try:
        return process.wait(KILL_WAIT_S)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL
