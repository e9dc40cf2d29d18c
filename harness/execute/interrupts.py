"""Handle Ctrl-C while a plan is being executed.

Ctrl-C stops the current run immediately. The record of the run is always saved, even if Ctrl-C is pressed repeatedly.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A context manager that defers SIGINT.

    Inside the context, KeyboardInterrupt is raised only inside `allowed`. SIGTERM and SIGHUP are also deferred if they
    have the same handler as SIGINT. The context manager has no effect outside the main thread, because only the main
    thread handles signals. A signal that arrives outside `allowed` raises KeyboardInterrupt when the context manager
    exits.
    """

    def __init__(self) -> None:
        self.pending = False
        """True if a signal has arrived but KeyboardInterrupt has not yet been raised."""
        self._allowed = False
        self._handled: list[signal.Signals] = []

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._handled = [n for n in NUMBERS if signal.getsignal(n) is signal.default_int_handler]
            for number in self._handled:
                signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._handled:
            signal.signal(number, signal.default_int_handler)
        if self.pending and error is None:
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Return a context manager in which signals raise KeyboardInterrupt. If a signal is pending, KeyboardInterrupt
        is raised immediately."""
        try:
            self._allowed = True
            self.check()
            yield
        finally:
            self._allowed = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Return a context manager that defers signals again inside an `allowed` block.

        A deferred signal raises KeyboardInterrupt on exit.
        """
        allowed, self._allowed = self._allowed, False
        try:
            yield
        finally:
            self._allowed = allowed
        if allowed:
            self.check()

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal is pending."""
        if self.pending:
            self.pending = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._allowed:
            raise KeyboardInterrupt
        self.pending = True
