"""Call functions in child processes.

Each child runs in a separate process group, with a log file and a channel to the parent. The parent sleeps while it
waits for events.

No other module in harness starts a process, as enforced by `tests/architecture/test_processes.py`. `call_in_child`
passes a job (a `msgspec.Struct`) to a function in the child. `call_in_child` returns the function's result or a
`harness.records.Failure`. The child executes `harness.execute.child_main`. `calls_in_children` calls functions in
several children at the same time. `run_program` runs a short external program.

The channel is a private pipe that carries JSON lines. Each line is a frame. A child sends any number of event frames,
and then a frame with a result or a failure. Lines that are not valid frames, such as output written by a plugin, are
ignored. The output of the child goes to a second pipe, and the parent writes the content of this pipe to the log. The
parent stops reading both pipes when the child exits, even if another process still has the pipes open.
`harness.execute.channel` limits the amount of data that is kept.

A child exits when its parent exits, even if the parent is killed by SIGKILL. The child detects that its parent has
exited through the *lifeline*, a pipe whose other end is open only in the parent. On Linux, the kernel also kills the
child (``PR_SET_PDEATHSIG``) when the thread that started the child ends. The thread that starts the child must
therefore also wait for the child. The kernel kills only the child, not the processes that the child started. A shell
process, the *guard*, therefore also waits until the other end of the lifeline is closed, and then kills the child's
process group.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
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
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import msgspec
from msgspec import Struct

from harness.errors import UsageError
from harness.execute import failures
from harness.execute.channel import EventLimit, Lines, Log
from harness.execute.failures import Ended
from harness.execute.memory_limit import MemoryWatch
from harness.records import Failure
from harness.records.store import LOG, write_json

DEFAULT_ENVIRONMENT = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Default environment variables for every child. Values set by the user take precedence. GPUs are numbered in the
driver's order, so that ``cuda:N`` is the same GPU in every framework and in NVML."""
TERM_WAIT_S = 5.0
"""Time between SIGTERM and SIGKILL when a process group is terminated, in seconds."""
EXIT_WAIT_S = 20.0
"""Time that a child may take to exit after sending its result, in seconds. After this time, the child's process group
is terminated. Otherwise, a thread started by a plugin could keep the process alive forever.
"""
KILL_WAIT_S = 30.0
"""Time to wait for a process to exit after SIGKILL, in seconds. A process that is blocked in a system call may take
longer to exit."""
JOB = "job.json"
_MAX_PIPE_BYTES = 2**20
"""Upper bound on the capacity of a pipe and on the number of bytes read after a child has exited. The limit is
sufficient for all of the child's remaining output. The limit also prevents the parent from reading endless output from
a process that outlives the child."""
_SMALL_PIPE_BYTES = 2**16
"""Minimum pipe capacity, which applies if the user has reached the limit for pipes (pipe(7))."""
BATCH_S = 0.1
"""Interval between reads from the pipes, in seconds. The interval prevents a child that sends many small messages from
keeping the parent busy. A pipe that is at least half full is read again immediately, so that the child is not blocked.
After the child has written `_FLOOD_BYTES` bytes, every pipe is read only once per interval."""
_FLOOD_BYTES = 64 * 2**20

JobT = TypeVar("JobT", bound=Struct)
ResultT = TypeVar("ResultT")
AnyT = TypeVar("AnyT")

_EVENT = b'{"type":"event"'
_FRAMES = (_EVENT, b'{"type":"result"', b'{"type":"failure"')
"""Prefixes of the frames that `harness.execute.child_main` writes. Other lines are not decoded."""


@dataclass(frozen=True)
class ChildContext:
    """Context passed to a function in a child process, in addition to the job."""

    directory: Path
    """Directory for this call's large arrays and other files. The caller reads the files after the call has ended."""
    send: Callable[[Struct], None]
    """Function that sends an event to the parent."""
    end: Callable[[Struct], None]
    """Function that sends a result to the parent and then terminates this process immediately. This function can be
    called from any thread, even while the child's main function is blocked."""


class EventFrame(Struct, tag="event"):
    body: msgspec.Raw


class ResultFrame(Struct, tag="result"):
    body: msgspec.Raw


class FailureFrame(Struct, tag="failure"):
    body: Failure
    invalid_request: bool = False
    """True if the function raised a `harness.UsageError`."""


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
    memory_limit_bytes: int | None = None,
    lifeline: io.FileIO | None = None,
    interpreter: str | None = None,
    pass_fds: Sequence[int] = (),
    raise_usage_errors: bool = False,
) -> ResultT | Failure:
    """Call a module-level function in a child process and return the function's result.

    If there is no result, return a `Failure`.

    The function is called as ``function(job, context)``, with a `ChildContext`. The job and the result have the types
    given in the function's annotations. The child's output is written to ``log.txt`` in `directory`, or in a temporary
    directory if `directory` is None. If the child fails, the returned `Failure` contains the last lines of this log.
    The variables in `environment` are added to those of the parent and to `DEFAULT_ENVIRONMENT`.

    `on_event` receives each event that can be decoded as `event_type` as soon as it arrives. The child's process group
    is terminated after `timeout_s` seconds or if an exception such as KeyboardInterrupt is raised. The group is
    terminated with SIGTERM and, if necessary, killed with SIGKILL. `limit_option` is the command-line option that sets
    `timeout_s`, if any, such as ``--timeout``. If the child exceeds the time limit, the failure message recommends this
    option. The child also exits when the other end of the pipe `lifeline` is closed. By default, this function creates
    the pipe. `interpreter` is the path of the Python interpreter that executes the child. By default, the interpreter
    of this process is used. The child inherits the file descriptors in `pass_fds`. Raises `harness.RecordError` if the
    job cannot be written. If `raise_usage_errors` is true, a `harness.UsageError` that the function raises is also
    raised in this process, instead of being returned as a failure.
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
            memory_limit_bytes=memory_limit_bytes,
            lifeline=lifeline,
            interpreter=interpreter,
            pass_fds=pass_fds,
        )
        if isinstance(answer, FailureFrame) and not ended.by_limit:
            if answer.invalid_request and raise_usage_errors:
                raise UsageError(answer.body.message)
            return msgspec.structs.replace(answer.body, log_tail=failures.last_lines(ended.output))
        if answer is None or ended.by_limit or ended.status != 0:
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
    with contextlib.suppress(OSError):  # raised, for example, if the directory was replaced by a file
        file.unlink()


@contextlib.contextmanager
def calls_in_children(
    function: Callable[[JobT, ChildContext], ResultT],
    jobs: Sequence[JobT],
    *,
    timeout_s: float,
    environment: Mapping[str, str],
    event_type: Any = Any,
    on_event: Callable[[int, Any], None] | None = None,
    inputs: Sequence[int] = (),
) -> Iterator[list[Future[ResultT | Failure]]]:
    """Start `call_in_child` for all jobs at the same time.

    Yield a list with one future for each job, in the order of the jobs.

    `on_event` is called in the job's thread for each event that can be decoded as `event_type`. The function is called
    with the index of the job, starting at 0, and the event. `inputs` is either empty or contains one file descriptor
    for each job, which the child inherits. When the context manager exits, for example after KeyboardInterrupt,
    children that are still running are killed.
    """
    with children(len(jobs)) as start:
        yield [
            start(
                functools.partial(
                    call_in_child,
                    function,
                    job,
                    timeout_s=timeout_s,
                    environment=environment,
                    event_type=event_type,
                    on_event=partial(on_event, number) if on_event else None,
                    pass_fds=inputs[number : number + 1],
                )
            )
            for number, job in enumerate(jobs)
        ]


class StartCall(Protocol):
    """Function that `children` yields."""

    def __call__(self, call: Callable[..., AnyT], /) -> Future[AnyT]:
        """Call ``call(lifeline=...)`` in a thread, and return a future for its result."""


@contextlib.contextmanager
def children(count: int) -> Iterator[StartCall]:
    """Yield a function that can run up to `count` calls to `call_in_child` at the same time, each in a separate thread.

    Each call receives the keyword argument `lifeline`, which it passes to `call_in_child`. When the context manager
    exits, for example after KeyboardInterrupt, children that are still running are killed.
    """
    lifeline, held = new_pipe()
    # Contexts are closed in reverse order. Closing `held` first terminates the children and thus ends the threads that
    # wait for the children.
    with lifeline, ThreadPoolExecutor(count) as threads, held:
        yield lambda call: threads.submit(call, lifeline=lifeline)


def run_program(
    command: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run an external program without input and return its exit status and output.

    `environment` contains the program's environment variables. By default, the variables of this process are used.
    Raises OSError if the program cannot be started, and TimeoutError, a subclass of OSError, if the program is killed
    after `timeout_s` seconds.
    """
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{command[0]} did not finish within {timeout_s:g} s") from None


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
    memory_limit_bytes: int | None = None,
    lifeline: io.FileIO | None = None,
    interpreter: str | None = None,
    pass_fds: Sequence[int] = (),
) -> Ended:
    """Run ``python -m module ARGUMENTS... CHANNEL LIFELINE PARENT`` until it exits.

    CHANNEL and LIFELINE are file descriptors, and PARENT is the process id of the parent, which is this process.
    `on_line` is called with each line that the process writes to CHANNEL. After `is_complete` returns True, the process
    has `EXIT_WAIT_S` seconds to exit. After this time, the process is terminated and treated as if it had exited with
    status 0. `notes` returns lines to be added at the end of the log. If the memory of the program's process group
    exceeds `memory_limit_bytes`, the group is terminated. The process inherits `pass_fds`.
    """
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        received, channel = map(stack.enter_context, new_pipe())
        printed, output = map(stack.enter_context, new_pipe())
        for pipe in (received, printed):
            os.set_blocking(pipe.fileno(), False)
            _enlarge(pipe.fileno())
        if lifeline is None:
            lifeline, _held = map(stack.enter_context, new_pipe())
        kept = stack.enter_context(Log(log))
        passed = (channel.fileno(), lifeline.fileno())
        process = subprocess.Popen(
            [interpreter or sys.executable, "-P", "-m", module, *arguments, *map(str, passed), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**DEFAULT_ENVIRONMENT, **os.environ, **environment},
            pass_fds=(*passed, *pass_fds),
            start_new_session=True,
        )
        lines = Lines(on_line)
        readers = {received.fileno(): lines.feed, printed.fileno(): kept.feed}
        watch = None if memory_limit_bytes is None else MemoryWatch(process.pid, memory_limit_bytes)
        try:
            with _guard(process.pid, lifeline):
                try:
                    channel.close()
                    output.close()
                    heard = _listen(process, readers, start + timeout_s, is_complete, watch)
                    status = process.wait() if heard == "ended" else end_group(process)
                finally:
                    end_group(process)
        finally:
            # Read what the group wrote before it was terminated, which includes the phase that it had reached.
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
        over = watch if heard == "memory" else None
        return Ended(status, heard == "timeout", seconds, printed_last, lines.too_long, over)


@contextlib.contextmanager
def _guard(group: int, lifeline: io.FileIO) -> Iterator[None]:
    """Start a shell that kills a process group when the other end of the pipe `lifeline` is closed.

    The shell is stopped when the context manager exits.

    If the system has no shell, the function does nothing.
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


def new_pipe() -> tuple[io.FileIO, io.FileIO]:
    """Create a pipe whose descriptors are greater than 2.

    Descriptors 0 to 2 are the standard streams of the child. These descriptors are not used for the pipe, even if this
    process has closed its standard streams.
    """
    low = os.pipe()
    reading, writing = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in low)
    for fd in low:
        os.close(fd)
    return io.FileIO(reading, "r"), io.FileIO(writing, "w")


def _enlarge(pipe: int) -> None:
    """Set a pipe's capacity to `_MAX_PIPE_BYTES` if the system allows it."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # raised if the user's limit on the capacity of all pipes is reached
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _MAX_PIPE_BYTES)


Readers = Mapping[int, Callable[[bytes], None]]
"""Functions that receive the data read from each file descriptor."""


def _listen(
    process: subprocess.Popen[bytes],
    readers: Readers,
    deadline: float,
    is_complete: Callable[[], bool],
    watch: MemoryWatch | None,
) -> Literal["ended", "timeout", "lingers", "memory"]:
    """Read until the process exits, the deadline passes, or the limit of `watch` is exceeded.

    Reading also stops `EXIT_WAIT_S` seconds after the process has sent its result.
    """
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
            # If the exit of a process cannot be detected (macOS), poll the process twice a second. Otherwise, wait at
            # most an hour at a time, because epoll rejects timeouts of more than 24 days.
            longest_s = 3600 if exit_fd is not None else 0.5
            if watch is not None and not is_complete():
                longest_s = min(longest_s, watch.wait_s)
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
            if watch is not None and not is_complete() and watch.exceeded():
                return "memory"
            if at_deadline == "timeout" and is_complete() and time.monotonic() + EXIT_WAIT_S < deadline:
                at_deadline, deadline = "lingers", time.monotonic() + EXIT_WAIT_S
            if most < _SMALL_PIPE_BYTES // 2 or total > _FLOOD_BYTES:
                exit_selector.select(max(0.0, min(BATCH_S, deadline - time.monotonic())))
        return at_deadline


def _read(fd: int, feed: Callable[[bytes], None], limit: int) -> tuple[int, bool]:
    """Read from a non-blocking descriptor until no data are available or at least `limit` bytes have been read.

    Return the number of bytes, and True if the end of the file was reached.
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
    """Yield a descriptor that becomes readable when the process exits.

    Yield None if the system does not have pidfd_open(2).
    """
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
    """Terminate the process and its process group, and return the process's exit status."""
    try:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
                os.killpg(process.pid, signal.SIGCONT)  # A stopped process handles SIGTERM only after SIGCONT.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TERM_WAIT_S)
    finally:  # Kill the process group even if a second Ctrl-C interrupts the wait.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    try:
        return process.wait(KILL_WAIT_S)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL
