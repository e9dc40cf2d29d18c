"""Locks that prevent two harness processes from measuring on the same device at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness.data.cache import cache_dir
from harness.errors import BusyError

FOLDER = "locks"
WAIT_S = 0.5
"""Interval between attempts while waiting for a device, in seconds."""
_ALL = "all"
"""Name of the lock that every process holds.

The lock is exclusive unless the process measures only on named GPUs.
"""


@contextmanager
def measuring_on(
    devices: Iterable[str], *, wait: bool = False, say: Callable[[str], None] = lambda _: None
) -> Iterator[bool]:
    """Hold the locks on `devices`. Devices are specified as in run specs, such as ``auto`` or ``cuda:1``.

    Processes that measure on different named GPUs can hold their locks at the same time. A process that measures on any
    other device, such as ``cpu`` or ``auto``, excludes all other processes. The locks are flock(2) locks on files in
    the cache directory, and are released when the process exits. If the cache directory is not writable, no locks are
    held.

    If another process holds a lock and `wait` is false, a `harness.BusyError` is raised. The error message identifies
    the process that holds the lock. If `wait` is true, this function calls `say` with a message and waits. The context
    manager yields True if it had to wait for the lock.
    """
    chosen = set(devices)
    named = sorted(device for device in chosen if device.startswith("cuda:"))
    alone = chosen != set(named)
    waited = False
    with ExitStack() as stack:
        for name, operation in [
            (_ALL, fcntl.LOCK_EX if alone else fcntl.LOCK_SH),
            *((name, fcntl.LOCK_EX) for name in named),
        ]:
            file = _open(name)
            if file is not None:
                stack.callback(os.close, file)
                waited |= _lock(file, operation, wait=wait, say=say)
                _sign(file)
        yield waited


def _lock(file: int, operation: int, *, wait: bool, say: Callable[[str], None]) -> bool:
    """Lock a file. Return True if the function had to wait for another process."""
    announced = False
    while True:
        try:
            fcntl.flock(file, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file)
            if not wait:
                raise BusyError(
                    f"{holder} is measuring on this device, and simultaneous measurements would affect each other; "
                    "wait until it finishes, or pass --wait"
                ) from None
            if not announced:
                say(f"waiting for {holder}, which is measuring on this device")
                announced = True
            time.sleep(WAIT_S)
        except OSError:  # raised if the file system does not support locks
            return announced
        else:
            return announced


def _open(name: str) -> int | None:
    """Return a file descriptor for a device's lock file, or None if the file cannot be opened."""
    machine = hashlib.sha256(platform.node().encode()).hexdigest()[
        :8
    ]  # The cache directory may be shared between machines.
    with contextlib.suppress(OSError, RuntimeError):
        folder = Path(cache_dir(), FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(
            folder / f"{machine}-{name.replace(':', '')}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644
        )
    return None


def _sign(file: int) -> None:
    """Write the process id and the time to the lock file, so that other processes can report them."""
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()}, started at {time.strftime('%H:%M')}".encode(), 0)


def _holder(file: int) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = os.pread(file, 100, 0).decode("ascii")
        if text.isprintable() and text:
            return f"another harness command ({text})"
    return "another harness command"
