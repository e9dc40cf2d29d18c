"""Claims, which prevent two commands from executing the same runs of a results directory at the same time.

A device lock is not sufficient to prevent simultaneous execution: the runs may be executed on other machines, and
several machines may share a results directory.

A claim is a file in a hidden folder of the results directory. The file contains the keys of the claimed runs. The
process that executes the runs holds a lock (flock) on the file, so a claim is released when its process exits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from harness.errors import BusyError, RecordError
from harness.execute.plans import FOLDER
from harness.records.files import make_directory
from harness.records.reading import MAX_JSON_BYTES, decode, read_stored
from harness.records.store import Store

LOCK = "claims.lock"
SUFFIX = ".claim"
WAIT_S = 0.5
"""Interval between attempts while waiting for another command, in seconds."""


class Claim(Struct, frozen=True, kw_only=True):
    """The runs that a process is going to execute, as stored in a file."""

    host: str
    pid: int
    started_at: str
    """Local time at which the runs were claimed, such as ``14:05``."""
    keys: set[str]


@contextmanager
def claimed(
    store: Store, keys: Collection[str], *, wait: bool = False, say: Callable[[str], None] = lambda _: None
) -> Iterator[bool]:
    """Claim the runs with these keys.

    If another process has claimed one of the runs and `wait` is false, a `harness.BusyError` is raised. The error
    message identifies the process. If `wait` is true, this function calls `say` with a message and waits. The context
    manager yields True if it had to wait.

    If the results directory is not writable or its file system does not support locks, no claim is made. Raises
    `harness.RecordError` if the claim of another process cannot be read.
    """
    folder = store.path / FOLDER
    wanted = set(keys)
    waited = False
    with contextlib.ExitStack() as stack:
        while (other := _claim(folder, wanted, stack)) is not None:
            message = (
                f"another harness command (process {other.pid} on {other.host}, started at {other.started_at}) is "
                f"executing {len(other.keys & wanted)} of these runs in this results directory"
            )
            if not wait:
                raise BusyError(f"{message}; wait until it finishes, or pass --wait")
            if not waited:
                say(f"waiting, because {message}")
                waited = True
            time.sleep(WAIT_S)
        yield waited


def _claim(folder: Path, keys: set[str], stack: contextlib.ExitStack) -> Claim | None:
    """Write a claim, and hold it until `stack` is closed. If another process has claimed one of the runs, return that
    process's claim instead."""
    with contextlib.ExitStack() as comparing, contextlib.suppress(OSError):
        make_directory(folder)
        # Hold this lock while comparing claims, so that two processes cannot claim the same run at the same time.
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        comparing.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        for claim in _claims(folder):
            if claim.keys & keys:
                return claim
        claim = Claim(host=platform.node(), pid=os.getpid(), started_at=time.strftime("%H:%M"), keys=keys)
        path = folder / f"{secrets.token_hex(8)}{SUFFIX}"
        file = stack.enter_context(path.open("xb", buffering=0))
        stack.callback(path.unlink, missing_ok=True)
        file.write(msgspec.json.encode(claim))
        fcntl.flock(file, fcntl.LOCK_EX)
    return None


def _claims(folder: Path) -> list[Claim]:
    """Return the claims of running processes, and remove the claims of processes that have exited."""
    found = []
    for path in folder.iterdir():
        if path.suffix == SUFFIX:
            try:
                if _is_locked(path):
                    found.append(decode(read_stored(path, MAX_JSON_BYTES), Claim, path))
                else:
                    path.unlink()
            except FileNotFoundError:
                continue
            except RecordError:
                if path.exists():  # Otherwise, the process has ended in the meantime.
                    raise
    return found


def _is_locked(path: Path) -> bool:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
