"""Dispatch events to plugins. The hooks of each plugin run in a separate thread, so that a hook that raises or hangs
cannot break a run."""

from __future__ import annotations

from functools import partial

from harness.plugins.catalog import Catalog, LoadedPlugin
from harness.plugins.failures import described_with_place
from harness.plugins.threads import PluginThread, TimeLimitError, limit_s
from harness.records import PluginRef
from harness.records.printing import note


class Events:
    """Dispatcher that calls the event hooks of all plugins in a catalog, one after another.

    Each hook call has the same time limit as loading a plugin. A hook that exceeds it is reported on stderr, and its
    plugin receives no further events. A hook that raises an exception is also reported, but its plugin still receives
    later events.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._plugins = list(catalog.plugins)
        self._threads: dict[PluginRef, PluginThread] = {}
        self._limit_s = limit_s()

    def notify(self, hook: str, **arguments: object) -> None:
        """Call a hook of every plugin that implements it."""
        for plugin in list(self._plugins):
            caller = getattr(plugin.hooks, hook)
            if not caller.get_hookimpls():
                continue
            if plugin.ref not in self._threads:
                self._threads[plugin.ref] = PluginThread(self._limit_s)
            try:
                self._threads[plugin.ref].call(partial(caller, **arguments))
            except TimeLimitError as error:
                self._plugins.remove(plugin)
                _report(plugin, hook, f"{error}; it will receive no further events")
            except (Exception, SystemExit) as error:  # an error in a tracker must not end a benchmark
                _report(plugin, hook, described_with_place(error))


def _report(plugin: LoadedPlugin, hook: str, reason: str) -> None:
    note(f"plugin {plugin.ref.name!r} failed in {hook}: {reason}")
