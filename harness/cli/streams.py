"""Keep errors in the standard streams from terminating a command, and threads from delaying its exit.

Closed streams are replaced, and errors in the final flush are ignored.

Only harness writes to stdout. File descriptor 1 refers to stderr, so the output of plugins and C libraries is not mixed
with tables or JSON output.
"""

from __future__ import annotations

import _thread
import contextlib
import io
import os
import signal
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    import select

THREADS_WAIT_S = 5.0
"""Maximum time to wait for plugin threads before exiting, in seconds."""
_prepared = False


def prepare() -> None:
    """Open any standard streams that are closed, move stdout from descriptor 1 to another descriptor, and ensure that
    no interrupt is lost.
    """
    global _prepared
    _prepared = True
    sys.unraisablehook = _keep_interrupt
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:  # Otherwise, the next file that is opened would become a standard stream.
            os.open(os.devnull, os.O_RDWR)
    # The output of warnings, logging and tracebacks may contain names from untrusted files.
    sys.stderr = cast("TextIO", _Clean(sys.stderr or _text(2, line_buffering=True)))
    old = sys.stdout
    real = os.dup(1)
    sys.stdout = _text(real, old.encoding, old.errors, line_buffering=old.isatty()) if old else _text(real)
    os.dup2(2, 1)


def finish() -> None:
    """Flush the streams.

    Output that cannot be written is discarded, so write errors do not change the exit status.
    """
    for stream in (getattr(sys, "stdout", None), getattr(sys, "stderr", None)):
        try:
            if stream is not None:  # A plugin may have set the stream to None.
                stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                discard(stream.fileno())  # type: ignore[union-attr]  # only a stream raises


def ignore_signals() -> None:
    """Ignore further interrupts, unless this process will run more commands."""
    if _prepared:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def _keep_interrupt(error: sys.UnraisableHookArgs) -> None:
    """Interrupt the main thread again if KeyboardInterrupt was raised where Python ignores exceptions, such as in a
    finalizer or a callback of the import system.
    """
    if error.exc_type is KeyboardInterrupt:
        _thread.start_new_thread(_interrupt_later, ())
    else:
        sys.__unraisablehook__(error)


def _interrupt_later() -> None:
    time.sleep(0.01)  # An exception must not be raised in the hook itself.
    _thread.interrupt_main()


def end_threads(status: int) -> None:
    """Wait for all non-daemon threads. Terminate the process if a thread is still running after `THREADS_WAIT_S`.

    Only plugins start non-daemon threads.
    """
    import threading

    end = time.monotonic() + THREADS_WAIT_S
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.daemon:
            continue
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            from harness.plugins.containment import end_process, report

            report(
                f"the thread {thread.name!r}, which a plugin started, did not finish in time; terminating the process"
            )
            end_process(status)


def end_exit_functions(status: int) -> None:
    """Call the functions that plugins registered with `atexit`. Terminate the process if the functions are still
    running after `THREADS_WAIT_S`.
    """
    if "harness.plugins.containment" not in sys.modules:
        return
    import atexit
    import threading

    from harness.plugins.containment import THREAD, end_process, report

    thread = threading.Thread(target=atexit._run_exitfuncs, name=f"{THREAD}-exit", daemon=True)
    thread.start()
    thread.join(THREADS_WAIT_S)
    if thread.is_alive():
        report("a function that was registered with atexit did not return in time; terminating the process")
        end_process(status)


def discard(fd: int) -> None:
    """Redirect a descriptor to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    if null != fd:  # If `fd` was closed, `os.open` may have returned it.
        os.dup2(null, fd)
        os.close(null)


def screen(*, wait_s: float = 0.0) -> TextIO:
    """Return a stream that writes to stderr, and discards text that cannot be written within `wait_s` seconds.

    With a plain stream, the process that enforces a run's time limit could block on a terminal paused with Ctrl-S or on
    a pipe that no process reads.
    """
    stream = getattr(sys, "stderr", None) or _text(2)
    return cast("TextIO", _Screen(stream.uncleaned if isinstance(stream, _Clean) else stream, wait_s))


class _Clean:
    """A text stream that replaces control characters in its output; see `harness.records.printing.clean`."""

    def __init__(self, stream: TextIO) -> None:
        self.uncleaned = stream

    def write(self, text: str) -> int:
        if not (text.isascii() and text.isprintable()) and text != "\n":
            from harness.records.printing import clean  # This module is slow to import and not needed for help texts.

            return self.uncleaned.write(clean(text))
        return self.uncleaned.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.uncleaned, name)


_PART = 1000
"""Maximum number of characters in one write. In UTF-8, these characters take up at most 4096 bytes (``PIPE_BUF``). A
pipe that is ready for writing accepts ``PIPE_BUF`` bytes without blocking.
"""


class _Screen:
    def __init__(self, stream: TextIO, wait_s: float) -> None:
        import select  # Import `select` here, because most commands do not need it.

        self._stream, self._wait_ms = stream, 1000 * wait_s
        self._poll: select.poll | None = None
        with contextlib.suppress(OSError, ValueError):  # An in-memory stream has no file descriptor.
            poll = select.poll()
            poll.register(stream.fileno(), select.POLLOUT)
            self._poll = poll

    def write(self, text: str) -> int:
        for start in range(0, len(text), _PART):
            if self._poll is not None and not self._poll.poll(self._wait_ms):
                break
            self._stream.write(text[start : start + _PART])
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Do nothing; `write` flushes."""

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        return self._stream.encoding


def _text(fd: int, encoding: str = "utf-8", errors: str | None = "replace", *, line_buffering: bool = False) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(fd, "w", closefd=False)), encoding, errors, line_buffering=line_buffering
    )
