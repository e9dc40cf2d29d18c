"""An event listener that records its calls, and a catalog that contains it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pluggy

import harness
from harness.plugins import hookspecs
from harness.plugins.catalog import Catalog, LoadedPlugin
from harness.records import PluginRef

Call = tuple[str, dict[str, Any]]


class Recording:
    """A listener with the name of each hook that was called and the hook's arguments."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    @harness.hookimpl
    def harness_run_started(self, spec: Any, attempt_id: str, time_s: float) -> None:
        self.calls.append(("started", {"spec": spec, "attempt": attempt_id, "time_s": time_s}))

    @harness.hookimpl
    def harness_steps_ended(self, spec: Any, steps: Any, attempt_id: str, time_s: float) -> None:
        self.calls.append(("steps", {"spec": spec, "steps": steps, "attempt": attempt_id, "time_s": time_s}))

    @harness.hookimpl
    def harness_epoch_ended(self, spec: Any, epoch: Any, attempt_id: str, time_s: float) -> None:
        self.calls.append(("epoch", {"spec": spec, "epoch": epoch, "attempt": attempt_id, "time_s": time_s}))

    @harness.hookimpl
    def harness_run_finished(self, record: Any, directory: Any, attempt_id: str, time_s: float) -> None:
        arguments = {"record": record, "directory": directory, "attempt": attempt_id, "time_s": time_s}
        self.calls.append(("finished", arguments))

    @harness.hookimpl
    def harness_attempt_lost(self, spec: Any, attempt_id: str, time_s: float) -> None:
        self.calls.append(("lost", {"spec": spec, "attempt": attempt_id, "time_s": time_s}))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def values(self, argument: str, hook: str = "") -> list[Any]:
        """Return the values of an argument in the calls of a hook, by default of every hook that has it."""
        return [given[argument] for name, given in self.calls if argument in given and name in (hook or name)]


def listening(catalog: Catalog, listener: Any) -> Catalog:
    """Return a copy of the catalog with the listener of a selected tracker."""
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(listener)
    ref = PluginRef(name="recording", value="recording", distribution="file", version="")
    return replace(catalog, listeners=(*catalog.listeners, LoadedPlugin(ref, listener, manager.hook, kind="tracker")))
