"""Functions that tests call in child processes."""

from __future__ import annotations

import atexit
import ctypes
import os
import subprocess
import sys
import threading
import time
from typing import Any

from msgspec import Struct

from harness.errors import UnsupportedError
from harness.execute.child import ChildContext

CHANNEL = 3
"""Index of the channel's file descriptor in ``sys.argv`` of a child."""


class Numbers(Struct, frozen=True):
    values: tuple[int, ...]


class Seen(Struct, frozen=True):
    value: int


class Text(Struct, frozen=True):
    text: str


class Total(Struct, frozen=True):
    value: int
    argument: str


def add(job: Numbers, context: ChildContext) -> Total:
    total = 0
    for value in job.values:
        total += value
        context.send(Seen(total))
    (context.directory / "large").write_text(str(total))
    print("adding")
    return Total(total, sys.argv[1])


def send_from_threads(job: Numbers, context: ChildContext) -> Total:
    """Send long events from one thread per value at the same time."""

    def send(value: int) -> None:
        for _ in range(20):
            context.send(Text(str(value) * 100_000))

    threads = [threading.Thread(target=send, args=(value,)) for value in job.values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Total(len(threads), "")


def add_with_noise(job: Numbers, context: ChildContext) -> Total:
    channel = int(sys.argv[CHANNEL])
    os.write(
        channel, b'{"type": "event", "body": ' + 50_000 * b"[" + b"\n"
    )  # exceeds the recursion limit of the parser
    os.write(channel, b'not json\n{"type": "event"}\n\xff\n{"type": "event", "body": {"value": "x"}}\n{')
    return add(job, context)


def device_order(job: Numbers, context: ChildContext) -> Total:
    return Total(0, os.environ["CUDA_DEVICE_ORDER"])


def fail(job: Numbers, context: ChildContext) -> Total:
    context.send(Seen(1))
    raise ValueError("it broke\nand this is its second line")


def refuse(job: Numbers, context: ChildContext) -> Total:
    raise UnsupportedError("not on this machine")


def return_another_type(job: Numbers, context: ChildContext) -> Total:
    wrong: Any = {"value": "many", "argument": ""}
    return wrong  # type: ignore[no-any-return]


def leave(job: Numbers, context: ChildContext) -> Total:
    os._exit(0)


def crash_after_the_result(job: Numbers, context: ChildContext) -> Total:
    atexit.register(os.abort)
    return Total(1, "")


def report_group(job: Numbers, context: ChildContext) -> Total:
    """Write the process IDs of this process and of a child that it starts, then sleep."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    path = context.directory / "pids"
    path.with_suffix(".new").write_text(f"{os.getpid()} {sleeper.pid}")
    path.with_suffix(".new").rename(path)
    time.sleep(600)
    return Total(0, "")


def hold_the_interpreter(job: Numbers, context: ChildContext) -> Total:
    """Sleep in compiled code that holds the GIL, so that no other thread of the process can run."""
    path = context.directory / "pids"
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    ctypes.PyDLL(None).sleep(600)
    return Total(0, "")
