"""Gates (file locks) at which child processes wait until their parent process lets them continue."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Gate:
    """A file that the parent locks with flock(2) until the gate opens. The kernel releases the lock if the parent
    process dies."""

    def __init__(self, path: Path) -> None:
        """Create the file and close the gate."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._closing = threading.Lock()
        self._is_open = False
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def open(self) -> None:
        """Let all waiting processes continue. Processes that reach the gate later do not wait."""
        with self._closing:
            if not self._is_open:
                os.close(self._file)
                self._is_open = True


@contextmanager
def gates(*paths: Path) -> Iterator[list[Gate]]:
    """Create closed gates. All gates are opened when the context manager exits."""
    with contextlib.ExitStack() as stack:
        created = []
        for path in paths:
            gate = Gate(path)
            stack.callback(gate.open)
            created.append(gate)
        yield created


def wait_at(path: str) -> None:
    """Wait until the gate at `path` is open. If `path` is empty, return immediately."""
    if path:
        with Path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
