"""Telling plugins what happens: each hears in a thread of its own, and one that raises or hangs harms nobody."""

from __future__ import annotations

import inspect
import queue
import sys
import threading
from typing import Any

from harness.plugins.catalog import Catalog, LoadedPlugin, described_with_place
from harness.plugins.load import limit_s


class Events:
    """Calls the event hooks of every plugin of a catalog.

    A hook is waited for, so that it may read what it is told of, for as long as a plugin may take to load; one that
    takes longer is reported on stderr and hears no more. One that raises is reported and hears on.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._plugins = list(catalog.plugins)
        self._threads: dict[str, _Thread] = {}
        self._limit_s = limit_s()

    def notify(self, hook: str, **arguments: object) -> None:
        for plugin in list(self._plugins):
            function = getattr(plugin.module, hook, None)
            if function is None:
                continue
            if plugin.ref.name not in self._threads:
                self._threads[plugin.ref.name] = _Thread()
            try:
                wanted = inspect.signature(function).parameters
                given = {name: value for name, value in arguments.items() if name in wanted}
                if not self._threads[plugin.ref.name].call(lambda f=function, g=given: f(**g), self._limit_s):
                    self._plugins.remove(plugin)
                    told = f"did not return within {self._limit_s:g} s (HARNESS_PLUGIN_TIMEOUT sets the limit)"
                    _report(plugin, hook, f"{told}; it hears no more")
            except (Exception, SystemExit) as error:  # a tracker's trouble must not end a benchmark
                _report(plugin, hook, described_with_place(error))


def _report(plugin: LoadedPlugin, hook: str, what: str) -> None:
    print(f"harness: plugin {plugin.ref.name!r} failed in {hook}: {what}", file=sys.stderr)


class _Thread:
    """One thread for all calls of a plugin, which may hold what belongs to a thread, such as a database."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def call(self, function: Any, limit_s: float) -> bool:
        """Whether it returned in time; raises what it raised."""
        self._calls.put(function)
        try:
            error = self._results.get(timeout=limit_s)
        except queue.Empty:
            return False
        if error is not None:
            raise error
        return True

    def _work(self) -> None:
        while True:
            function = self._calls.get()
            try:
                function()
            except BaseException as error:
                self._results.put(error)
            else:
                self._results.put(None)
