"""Dispatch events to plugins.

The hooks of each plugin run in a separate thread, so that a hook that raises an exception, hangs or is slow cannot
break or delay a run.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any

from harness.plugins.catalog import Catalog, LoadedPlugin
from harness.plugins.containment import THREAD, Surroundings, end_fork, refuse_exit, report
from harness.plugins.failures import described_with_place
from harness.plugins.threads import limit_s, limit_text

MAX_QUEUED = 1000
"""Maximum length of a plugin's event queue. Epoch and step events are dropped if the queue is full."""
_DROPPABLE = ("harness_epoch_ended", "harness_steps_ended")
_INTERRUPTED_S = 2.0
"""Time limit in seconds for delivering the remaining events after Ctrl-C."""


class Events:
    """Dispatcher that sends events to all plugins and to the selected trackers in a catalog.

    `notify` returns immediately. `drain` waits until the events have been delivered. If the dispatcher is used as a
    context manager, it delivers the remaining events on exit. The same time limit applies to loading a plugin and to
    calling a hook. If a hook exceeds the limit, a message is printed to stderr, and the plugin receives no further
    events. If a hook raises an exception, a message is also printed, but the plugin continues to receive events.
    """

    def __init__(self, catalog: Catalog) -> None:
        limit = limit_s()
        refuse_exit()
        self._surroundings = Surroundings()
        self._deliveries = [
            _Delivery(plugin, limit, self._surroundings) for plugin in (*catalog.plugins, *catalog.listeners)
        ]

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        limit = _INTERRUPTED_S if isinstance(error, KeyboardInterrupt) else None
        for delivery in self._deliveries:
            delivery.drain(limit)
        for delivery in self._deliveries:
            delivery.close()
        # A hook that is still running must not undo changes that the caller makes from now on.
        self._surroundings.close()

    def notify(self, hook: str, **arguments: object) -> None:
        """Queue a call to a hook, with the current time, for every plugin that implements the hook."""
        arguments["time_s"] = time.time()
        for delivery in self._deliveries:
            delivery.put(hook, arguments)

    def drain(self) -> None:
        """Wait until all queued events have been delivered.

        If delivery takes longer than the time limit of a hook, the remaining epoch and step events are dropped.
        """
        for delivery in self._deliveries:
            delivery.drain()


class _Delivery:
    """A plugin's event queue and the thread that calls the plugin's hooks.

    All calls share one thread, because some objects, such as SQLite connections, can be used only in the thread that
    created them. The thread is a daemon thread, so that a call that never returns does not keep the process alive.
    """

    def __init__(self, plugin: LoadedPlugin, limit_s: float, surroundings: Surroundings) -> None:
        self._plugin, self._limit_s, self._surroundings = plugin, limit_s, surroundings
        self._label = f"{plugin.kind} {plugin.ref.name!r}"
        self._advice = "; log the runs later with `harness track`" if plugin.kind == "tracker" else ""
        self._changed = threading.Condition()
        self._queue: deque[tuple[str, dict[str, Any]]] = deque()
        self._thread: threading.Thread | None = None
        self._current = ""
        self._started = 0.0
        """Name and start time of the hook that is running, if any."""
        self._dropped = 0
        self._closed = False

    def put(self, hook: str, arguments: dict[str, Any]) -> None:
        if not self._plugin.handles(hook):
            return
        with self._changed:
            if self._closed or self._abandoned():
                return
            if hook in _DROPPABLE and len(self._queue) >= MAX_QUEUED:
                self._dropped += 1
                return
            self._queue.append((hook, arguments))
            self._changed.notify_all()
            if self._thread is None:
                name = f"{THREAD}-{self._plugin.ref.name}"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()

    def drain(self, limit_s: float | None = None) -> None:
        """Wait until the queue is empty.

        If the queue does not become empty in time, drop the queued epoch and step events. Other events are kept,
        because there are only a few of them.
        """
        limit_s = self._limit_s if limit_s is None else min(limit_s, self._limit_s)
        with self._changed:
            end = time.monotonic() + limit_s
            while (self._queue or self._current) and not self._closed:
                now = time.monotonic()
                if now >= end:
                    if self._abandoned(limit_s):
                        break
                    kept = [call for call in self._queue if call[0] not in _DROPPABLE]
                    self._dropped += len(self._queue) - len(kept)
                    self._queue.clear()
                    self._queue.extend(kept)
                    end = max(now, self._started) + limit_s
                else:
                    self._changed.wait(min(end - now, 60.0))
            if self._dropped:
                noun = "event was" if self._dropped == 1 else "events were"
                report(f"{self._label} is too slow, so {self._dropped} {noun} not reported to it{self._advice}")
                self._dropped = 0

    def close(self) -> None:
        """Stop the thread after the current hook, if any, has returned."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _abandoned(self, limit_s: float | None = None) -> bool:
        """Return True if the current call exceeds its time limit.

        In this case, undo the changes that the call has made so far, print a message and deliver no further events.
        """
        limit_s = self._limit_s if limit_s is None else limit_s
        if not self._current or time.monotonic() - self._started < limit_s:
            return False
        reasons = self._undone()
        for reason in (f"{limit_text('return', limit_s)}; it will receive no further events{self._advice}", *reasons):
            self._failed(self._current, reason)
        self._queue.clear()
        self._closed = True
        return True

    def _work(self) -> None:
        owner = os.getpid()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                hook, arguments = self._queue.popleft()
                self._current, self._started = hook, time.monotonic()
            reasons = []
            try:
                getattr(self._plugin.hooks, hook)(**arguments)
            except BaseException as error:  # An error in a plugin must not end a benchmark.
                reasons.append(described_with_place(error))
            finally:
                end_fork(owner)
                reasons += self._undone()
                for reason in reasons:
                    self._failed(hook, reason)
                with self._changed:
                    self._current = ""
                    self._changed.notify_all()

    def _undone(self) -> list[str]:
        """Undo changes to the whole process, and return a message for each change."""
        return [f"the plugin {change}; the change was undone" for change in self._surroundings.restore()]

    def _failed(self, hook: str, reason: str) -> None:
        report(f"{self._label} failed in {hook}: {reason}")
