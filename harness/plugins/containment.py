"""Undo changes that a plugin's code makes to the whole process, such as closing the standard streams.

The module also prevents plugin code from terminating the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from harness.errors import PluginError
from harness.records.printing import note

THREAD = "harness-plugin"
"""Name prefix of threads that run only plugin code."""
_exit = os._exit
_whole_process = False


class EndedProcessError(PluginError):
    """Error raised when a plugin's code calls `os._exit`. The process is not terminated."""


def refuse_exit(*, whole_process: bool = False) -> None:
    """Make `os._exit` raise `EndedProcessError` in plugin threads, or in all threads if `whole_process` is true.

    Forked processes can still call `os._exit`.
    """
    global _whole_process
    _whole_process = _whole_process or whole_process
    if os._exit is not _exit:
        return
    owner = os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() == owner and (_whole_process or threading.current_thread().name.startswith(THREAD)):
            raise EndedProcessError(f"the plugin called os._exit({status}), which would have terminated this process")
        _exit(status)

    os._exit = refuse


def end_fork(owner: int) -> None:
    """Terminate this process unless it is the process `owner`.

    Without this check, a plugin that forks and returns in both processes would leave a child process that keeps the
    streams open.
    """
    if os.getpid() != owner:
        _exit(0)


def end_process(status: int) -> NoReturn:
    """Terminate the process with `os._exit`, even if plugins are not allowed to call it."""
    _exit(status)


class Surroundings:
    """Process-wide state that plugins may change and that `restore` resets.

    The state consists of the current directory, the standard streams, the file mode creation mask, the recursion limit,
    and the entries of `sys.path` and `os.environ`. Plugins may add entries, but may not remove any. The state is stored
    in one object that all threads share.
    """

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._here = _opened(self._open, ".")
        self._streams = {fd: copy for fd in (0, 1, 2) if (copy := _copied(self._open, fd)) is not None}
        self._expected = dict(self._streams)
        self._stderr = sys.stderr
        self._mask = os.umask(0o077)
        os.umask(self._mask)
        self._recursion, self._path, self._environment = sys.getrecursionlimit(), list(sys.path), dict(os.environ)
        self._restoring = threading.Lock()
        self._closed = False

    def redirect_stdout(self) -> None:
        """Redirect file descriptor 1 to stderr until the next call to `restore`."""
        if 1 in self._streams and 2 in self._streams:
            os.dup2(2, 1)
            self._expected[1] = self._streams[2]

    def restore(self) -> list[str]:
        """Restore the state, and return descriptions of the undone changes.

        A redirection by `redirect_stdout` is also undone, but is not included in the descriptions. After `close`,
        nothing is restored.
        """
        with self._restoring:
            changes: list[str] = []
            if self._closed:
                return changes
            for fd, copy in list(self._streams.items()):
                if not _same(fd, self._expected[fd]):
                    changes.append(f"closed or replaced descriptor {fd}")
                if not _same(fd, copy):
                    try:
                        os.dup2(copy, fd)
                    except OSError:  # raised if the plugin has also closed the copy
                        del self._streams[fd]
                self._expected[fd] = copy
            if self._reopen_stderr():
                changes.append("closed or removed sys.stderr")
            if self._here is not None and not _is_current(self._here):
                changes.append("changed the current directory")
                try:
                    os.fchdir(self._here)
                except OSError:
                    self._here = None
            if os.umask(self._mask) != self._mask:
                changes.append("changed the umask")
            if sys.getrecursionlimit() < self._recursion:
                changes.append("lowered the recursion limit")
                sys.setrecursionlimit(self._recursion)
            if not set(self._path) <= set(sys.path):
                changes.append("removed entries of sys.path")
                sys.path[:] = [*(entry for entry in sys.path if entry not in self._path), *self._path]
            if removed := self._environment.keys() - os.environ.keys():
                changes.append(f"removed {len(removed)} environment variables")
                os.environ.update({name: self._environment[name] for name in removed})
            return changes

    def _reopen_stderr(self) -> bool:
        """Reopen `sys.stderr` if it is closed or missing. Return True if `sys.stderr` was reopened."""
        current = getattr(sys, "stderr", None)
        if (current is not None and not current.closed) or self._stderr is None:
            return False
        if self._stderr.closed:
            opened = open(2, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
            # The command line wraps stderr in a class that replaces control characters.
            self._stderr = type(self._stderr)(opened) if hasattr(self._stderr, "uncleaned") else opened  # type: ignore[call-arg]
        sys.stderr = self._stderr
        if getattr(sys, "stdout", None) is None or sys.stdout.closed:
            sys.stdout = self._stderr
        return True

    def close(self) -> None:
        with self._restoring:
            self._closed = True
            self._open.close()


@contextmanager
def contained() -> Iterator[list[str]]:
    """Run a plugin's code with its output redirected to stderr, and then restore the process's directory and streams.

    Output written by C libraries is also redirected. The context manager yields a list, to which a description of each
    undone change is added on exit.
    """
    changes: list[str] = []
    with contextlib.closing(Surroundings()) as surroundings:
        surroundings.redirect_stdout()
        try:
            yield changes
        finally:
            changes += surroundings.restore()


def _opened(stack: contextlib.ExitStack, path: str) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # raised if the directory was removed or is not accessible
        return None
    stack.callback(os.close, fd)
    return fd


def _copied(stack: contextlib.ExitStack, fd: int) -> int | None:
    try:
        copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        return None
    stack.callback(os.close, copy)
    return copy


def _same(fd: int, copy: int) -> bool:
    try:
        return os.path.sameopenfile(fd, copy)
    except OSError:
        return False


def _is_current(directory: int) -> bool:
    try:
        return os.path.samestat(os.fstat(directory), os.stat("."))  # noqa: PTH116
    except OSError:
        return False


def report(text: str) -> None:
    """Print a message about a plugin to stderr, unless stderr is missing."""
    if getattr(sys, "stderr", None) is not None:
        with contextlib.suppress(OSError, ValueError):
            note(text)
