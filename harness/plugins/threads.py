"""Run plugin code in threads with a time limit, so that a plugin that hangs does not block the command."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from harness.errors import PluginError, UsageError
from harness.plugins.containment import THREAD, end_fork, refuse_exit

T = TypeVar("T")

LIMIT = "HARNESS_PLUGIN_TIMEOUT"
DEFAULT_LIMIT_S = 10.0


def limit_s() -> float:
    """Return the time limit, in seconds, for loading a plugin and for each call to one of its event hooks.

    Raises `harness.UsageError` if ``HARNESS_PLUGIN_TIMEOUT`` is not a positive number of seconds.
    """
    text = os.environ.get(LIMIT) or DEFAULT_LIMIT_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise UsageError(f"{LIMIT} must be a positive number of seconds, got {text!r}")
    return seconds


class TimeLimitError(PluginError):
    """Error raised if a plugin's code does not return within the time limit."""


def limit_text(verb: str, limit_s: float) -> str:
    return f"did not {verb} within {limit_s:g} s ({LIMIT} sets the limit)"


class PluginThread:
    """A thread for plugin code, in which `os._exit` raises an exception.

    The thread is a daemon thread, so that a call that never returns does not keep the process alive.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        refuse_exit()
        threading.Thread(target=self._work, name=THREAD, daemon=True).start()

    def call(self, function: Callable[[], T], *, verb: str = "return") -> T:
        """Call a function in the thread. Return the function's result or raise its exception.

        Raises `TimeLimitError` if the call exceeds the time limit. After a `TimeLimitError`, the thread cannot be
        reused.
        """
        self._calls.put(function)
        try:
            outcome, error = self._outcomes.get(timeout=self._limit_s)
        except queue.Empty:
            raise TimeLimitError(limit_text(verb, self._limit_s)) from None
        if isinstance(
            error, KeyboardInterrupt
        ):  # Ctrl-C interrupts only the main thread, so the plugin raised this exception.
            raise PluginError("it raised KeyboardInterrupt") from error
        if error is not None:
            raise error
        result: T = outcome
        return result

    def close(self) -> None:
        """Stop the thread after the current call."""
        self._calls.put(None)

    def _work(self) -> None:
        owner = os.getpid()
        while (function := self._calls.get()) is not None:
            outcome: tuple[Any, BaseException | None]
            try:
                outcome = (function(), None)
            except BaseException as error:
                outcome = (None, error)
            end_fork(owner)
            self._outcomes.put(outcome)
