"""Main module of the child processes started by `harness.execute.child`.

The process calls one function with the job and sends the result.

``python -m harness.execute.child_main FUNCTION DIRECTORY CHANNEL LIFELINE PARENT``
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pkgutil
import signal
import sys
import threading
import traceback
import typing
from pathlib import Path

import msgspec
from msgspec import Struct

from harness.errors import UsageError
from harness.execute.child import JOB, ChildContext, EventFrame, FailureFrame, ResultFrame
from harness.execute.failures import from_exception

_PR_SET_PDEATHSIG = 1


def main(function_name: str, directory: str, channel: int, lifeline: int, parent: int) -> None:
    """Call the function with the job in `directory`. Send the function's events, and then its result or failure."""
    end_with_parent(lifeline, parent)
    os.set_inheritable(channel, False)
    os.set_inheritable(lifeline, False)

    sending = threading.RLock()  # The lock is reentrant because a signal handler may also send a frame.

    def send(frame: Struct) -> None:
        # The first newline ends an incomplete line that a plugin may have written to the channel.
        unsent = memoryview(b"\n" + msgspec.json.encode(frame) + b"\n")
        with (
            sending
        ):  # Threads of a plugin may send frames at the same time, and a long frame is written in several parts.
            while unsent:
                unsent = unsent[os.write(channel, unsent) :]

    def send_event(event: Struct) -> None:
        send(EventFrame(msgspec.Raw(msgspec.json.encode(event))))

    def end(result: Struct) -> None:
        send(ResultFrame(msgspec.Raw(msgspec.json.encode(result))))
        os._exit(0)

    try:
        function = pkgutil.resolve_name(function_name)
        job_type = typing.get_type_hints(function)["job"]
        job = msgspec.json.decode(Path(directory, JOB).read_bytes(), type=job_type)
        result = msgspec.json.encode(function(job, ChildContext(Path(directory), send_event, end)))
    except Exception as error:
        traceback.print_exc()
        send(FailureFrame(from_exception(error), invalid_request=isinstance(error, UsageError)))
        sys.exit(1)
    send(ResultFrame(msgspec.Raw(result)))


def end_with_parent(lifeline: int, parent: int) -> None:
    """Ensure that this process and its process group are terminated when the parent exits.

    On Linux, the kernel sends SIGKILL. SIGKILL terminates this process even if this process cannot execute Python code,
    and the guard in `harness.execute.child` terminates the rest of the group. On every system, a thread also waits for
    data from `lifeline`. The parent never writes to the pipe, so the read returns only when the parent exits, and the
    thread then terminates the group.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # The parent died before prctl was called.
            os._exit(1)
    threading.Thread(target=_watch, args=(lifeline,), name="harness-lifeline", daemon=True).start()


def _watch(lifeline: int) -> None:
    """Wait until the other end of `lifeline` is closed, then kill the process group."""
    try:
        os.read(lifeline, 1)
    except OSError:  # raised if a plugin closed the descriptor
        return
    with contextlib.suppress(ProcessLookupError):  # raised if this process is not the leader of a process group
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
