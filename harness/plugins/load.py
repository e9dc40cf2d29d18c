"""Load plugins, each in a separate thread with a time limit.

A plugin that is broken, slow or incompatible is listed with the reason, and does not affect other plugins.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pluggy

from harness.errors import PluginError, UnknownNameError
from harness.plugins import hookspecs
from harness.plugins.catalog import Catalog, LoadedPlugin
from harness.plugins.code import check_api_version, import_object
from harness.plugins.containment import contained, report
from harness.plugins.failures import PluginFailure, described_with_place
from harness.plugins.find import core, disabled, find, named
from harness.plugins.offers import YIELDS, Offer, check_offer, check_result, enter
from harness.plugins.threads import PluginThread, limit_s
from harness.records import PluginRef

Trial = Callable[[Sequence[PluginRef]], list[PluginFailure]]
"""Type of functions that return the plugins whose loading crashes the process, such as
`harness.execute.trial.crashing`.
"""


def discover(extra: Iterable[str] = (), trial: Trial | None = None) -> Catalog:
    """Load every plugin that is not listed in ``HARNESS_DISABLE_PLUGINS``.

    The loaded plugins are the core plugins, the entry points in the group ``harness``, and the files and modules listed
    in `extra` and ``HARNESS_PLUGINS``. The order of the plugins has no effect.

    Broken plugins, including those that `trial` returns, are listed in `Catalog.failures`. No exception is raised for
    these failures. Raises `harness.UsageError` if a file does not exist.
    """
    refs, failures = find(extra)
    return load(refs, [*failures, *(trial(refs) if trial else ())])


def check_loaded(extra: Iterable[str], catalog: Catalog) -> None:
    """Raise `harness.PluginError` if a file or module in `extra` is not loaded as a plugin."""
    requested = {named(source).value for source in extra}
    for failure in catalog.failures if requested else ():
        if failure.ref.value in requested:
            raise PluginError(f"plugin {failure.ref.name!r} ({failure.ref.value}) is not loaded: {failure.message}")


def load(refs: Iterable[PluginRef], failures: Iterable[PluginFailure] = ()) -> Catalog:
    """Load the core plugins and the plugins in `refs`.

    Plugins that are disabled or already listed in `failures` are skipped.

    Broken plugins are listed in `Catalog.failures`. No exception is raised for these failures. Raises
    `harness.UsageError` if ``HARNESS_PLUGIN_TIMEOUT`` is not a positive number of seconds.
    """
    limit, failed = limit_s(), list(failures)
    excluded = {failure.ref for failure in failed} | {ref for ref in core() if ref.name in disabled()}
    plugins: list[LoadedPlugin] = []
    offers: list[Offer] = []
    for ref in dict.fromkeys((*core(), *refs)):
        if ref in excluded:
            continue
        thread = PluginThread(limit)
        try:
            # Redirect stdout, which is reserved for tables and JSON.
            with contextlib.redirect_stdout(sys.stderr), contained() as changes:
                plugin, offered = thread.call(partial(_load_one, ref), verb="load")
            for change in changes:
                report(f"plugin {ref.name!r} {change} when it was loaded; the change was undone")
            for other in plugins:
                if other.module is plugin.module:
                    raise PluginError(
                        f"plugin {other.ref.name!r} provides the same module; remove one of the two plugins"
                    )
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # A plugin's code may raise any exception, including SystemExit.
            failed.append(PluginFailure(ref, described_with_place(error)))
        else:
            plugins.append(plugin)
            offers += offered
        finally:
            thread.close()
    catalog = Catalog(plugins=tuple(plugins), failures=tuple(failed))
    enter(offers, catalog)
    return catalog


def _load_one(ref: PluginRef) -> tuple[LoadedPlugin, list[Offer]]:
    plugin = import_object(ref.value)
    check_api_version(plugin)
    # Use a separate manager for each plugin, so that a plugin that fails or hangs during registration does not leave
    # hooks behind, and so that the hooks of each plugin can be called in a separate thread.
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name=f"{ref.distribution}:{ref.name}")
    _check_hook_names(manager, plugin)
    offers = []
    for hook in YIELDS:
        for values in getattr(manager.hook, hook)():
            check_result(hook, values)
            for value in values:
                check_offer(hook, value)
                offers.append(Offer(ref, hook, value))
    return LoadedPlugin(ref, plugin, manager.hook), offers


def _check_hook_names(manager: pluggy.PluginManager, plugin: Any) -> None:
    """Raise `harness.PluginError` if a function is marked as a hook but does not have the name of a hook, or vice
    versa."""
    known = {name for name in vars(hookspecs) if name.startswith("harness_")}
    for caller in manager.get_hookcallers(plugin) or ():
        if not caller.has_spec():
            raise UnknownNameError("hook", caller.name, known)
    for name in sorted(known.intersection(dir(plugin))):
        if callable(getattr(plugin, name, None)) and manager.parse_hookimpl_opts(plugin, name) is None:
            raise PluginError(f"{name} is not marked as a hook; decorate it with @harness.hookimpl")
