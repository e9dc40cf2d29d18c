"""Selection of experiment trackers. Trackers, like plugins, receive the events of runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pluggy

from harness.errors import HarnessError, PluginError, UnknownNameError, UsageError
from harness.plugins import hookspecs, requirements
from harness.plugins.catalog import Catalog, LoadedPlugin
from harness.plugins.code import resolve
from harness.plugins.containment import contained, report
from harness.plugins.failures import described_with_place

EVENTS = tuple(
    name
    for name in vars(hookspecs)
    if name.startswith(("harness_run_", "harness_steps_", "harness_epoch_", "harness_attempt_"))
)
"""Names of the event hooks."""


def parse(choices: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the options of each tracker, by tracker name.

    Each choice is a name or has the form ``NAME:OPTION=VALUE``. If several choices have the same name, the tracker is
    used only once. Raises `harness.UsageError` if a choice is malformed or sets an option twice.
    """
    chosen: dict[str, dict[str, str]] = {}
    for choice in choices:
        name, colon, setting = choice.partition(":")
        options = chosen.setdefault(name.strip(), {})
        if not colon:
            continue
        option, equals, value = setting.partition("=")
        if not (option and equals and value):
            raise UsageError(f"{choice!r} is not valid; write the option of a tracker as NAME:OPTION=VALUE")
        if option in options:
            raise UsageError(f"the option {option!r} of the tracker {name!r} is set twice; remove one of the settings")
        options[option] = value
    return chosen


def check(catalog: Catalog, choices: Iterable[str], results: Path) -> None:
    """Check the selected trackers without creating their listeners.

    `results` is the results directory. Raises `harness.UnknownNameError` if a tracker or an option does not exist.
    Raises `harness.UsageError` if a choice or the value of an option is not valid, or if a required module is not
    installed. Raises `harness.PluginError` if a tracker's check raises another error.
    """
    for name, options in parse(choices).items():
        tracker = catalog.tracker(name).value
        if problem := requirements.missing(tracker.requires):
            raise UsageError(f"the tracker {name!r} cannot be used: {problem}")
        for option in options:
            if option not in tracker.options:
                raise UnknownNameError(f"{name} tracker option", option, tracker.options)
        if tracker.check:
            with _called(name):
                resolve(tracker.check)(results.absolute(), dict(options))


def with_trackers(catalog: Catalog, choices: Iterable[str], results: Path) -> Catalog:
    """Return a copy of the catalog in which `listeners` contains the listeners of the selected trackers; see `parse`.

    Raises the same errors as `check`, and `harness.UsageError` if the value of an option is not valid. Raises
    `harness.PluginError` if a tracker cannot be used for any other reason.
    """
    choices = tuple(choices)
    check(catalog, choices, results)
    chosen = parse(choices).items()
    return replace(
        catalog, listeners=tuple(_listener(catalog, name, options, results.absolute()) for name, options in chosen)
    )


@contextlib.contextmanager
def _called(name: str) -> Iterator[None]:
    """Call a function of a tracker. Its changes to this process are undone, and its errors name the tracker."""
    try:
        with contextlib.redirect_stdout(sys.stderr), contained() as changes:
            yield
        for change in changes:
            report(f"tracker {name!r} {change} when it was opened; the change was undone")
    except HarnessError:
        raise
    except Exception as error:  # A plugin's code may raise any exception.
        raise PluginError(f"the tracker {name!r} cannot be used: {described_with_place(error)}") from error


def _listener(catalog: Catalog, name: str, options: dict[str, str], results: Path) -> LoadedPlugin:
    provided = catalog.tracker(name)
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    with _called(name):
        listener = resolve(provided.value.listener)(results, options)
        manager.register(listener, name=name)
    found = {caller.name for caller in manager.get_hookcallers(listener) or ()}
    if unknown := sorted(found.difference(EVENTS)):
        raise PluginError(f"the tracker {name!r} implements {unknown[0]}, which is not an event hook")
    if not found:
        raise PluginError(f"the tracker {name!r} implements no event hook; decorate methods with @harness.hookimpl")
    return LoadedPlugin(msgspec.structs.replace(provided.plugin, name=name), listener, manager.hook, kind="tracker")
