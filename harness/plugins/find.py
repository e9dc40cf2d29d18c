"""Find plugins without importing them.

A plugin can be a core plugin, an entry point, or a file or module listed in ``--plugin`` or ``HARNESS_PLUGINS``.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache

from harness.errors import UsageError
from harness.plugins.failures import PluginFailure
from harness.plugins.hookspecs import GROUP
from harness.plugins.requirements import DISTRIBUTION
from harness.records import PluginRef
from harness.records.files import real_path

EXTRA, DISABLED = "HARNESS_PLUGINS", "HARNESS_DISABLE_PLUGINS"
"""Environment variables that contain comma-separated lists. ``HARNESS_PLUGINS`` lists files or modules to load in
addition to the installed plugins, and ``HARNESS_DISABLE_PLUGINS`` lists plugins that must not be loaded."""

CORE = {
    "core-metrics": "harness.measure.quality.builtin",
    "core-formats": "harness.report.builtin",
    "core-executors": "harness.execute.builtin",
}
"""Core plugins, which are part of every catalog. Core plugins are listed here instead of being declared as entry
points, because every child process loads them and looking up entry points is slow."""


def find(extra: Iterable[str] = ()) -> tuple[list[PluginRef], list[PluginFailure]]:
    """Return the plugins to load, sorted by name, and the plugins that must not be loaded, with the reasons.

    `extra` lists files and modules to load in addition to those in ``HARNESS_PLUGINS``. Raises `harness.UsageError` if
    a listed file does not exist.
    """
    refs = {*core(), *installed()}
    modules = {ref.value for ref in refs}
    refs |= {ref for ref in map(named, [*extra, *_listed(EXTRA)]) if ref.value not in modules}
    left_out = disabled()
    chosen, failures = [], []
    by_name: dict[str, list[PluginRef]] = defaultdict(list)
    for ref in sorted(refs, key=lambda ref: (ref.name, ref.distribution, ref.value)):
        by_name[ref.name].append(ref)
    for name, claimants in by_name.items():
        if name in left_out:
            failures += [
                PluginFailure(ref, f"disabled by {DISABLED}", f"remove it from {DISABLED}") for ref in claimants
            ]
        elif len(claimants) > 1:
            who = " and ".join(f"{ref.distribution} ({ref.value})" for ref in claimants)
            reason = f"several plugins are named {name!r}: {who}; uninstall all but one"
            failures += [PluginFailure(ref, reason) for ref in claimants]
        else:
            chosen += claimants
    for name in sorted(left_out - by_name.keys()):
        absent = PluginRef(name=name, value="", distribution="", version="")
        failures.append(PluginFailure(absent, f"listed in {DISABLED}, but no such plugin is installed"))
    return chosen, failures


@cache
def core() -> tuple[PluginRef, ...]:
    """Return the core plugins."""
    version = importlib.metadata.version(DISTRIBUTION)
    return tuple(
        PluginRef(name=name, value=module, distribution=DISTRIBUTION, version=version) for name, module in CORE.items()
    )


def disabled() -> set[str]:
    """Return the names in ``HARNESS_DISABLE_PLUGINS``."""
    return set(_listed(DISABLED))


def installed() -> set[PluginRef]:
    """Return the plugins that installed distributions declare as entry points."""
    return {
        PluginRef(
            name=point.name,
            value=point.value,
            distribution=point.dist.name if point.dist else "unknown",
            version=point.dist.version if point.dist else "unknown",
        )
        for point in importlib.metadata.entry_points(group=GROUP)
    }


def without_entry_point(name: str) -> str:
    """Return a message about an installed distribution that is probably meant to provide `name`, but declares no
    plugin. Return "" if no such distribution is installed.

    The distribution requires harness, and its name contains `name` or is contained in `name`.
    """
    wanted = _plain(name)
    for distribution in importlib.metadata.distributions():
        label = _plain(distribution.metadata["Name"] or "")
        core = label.removeprefix("harness-")
        if not core or not (core in wanted or wanted in label) or label == _plain(DISTRIBUTION):
            continue
        required = {_plain(re.split(r"[^\w.-]", each, maxsplit=1)[0]) for each in distribution.requires or ()}
        if _plain(DISTRIBUTION) in required and not distribution.entry_points.select(group=GROUP):
            return no_entry_point(label)
    return ""


def no_entry_point(distribution: str) -> str:
    """Return the message for an installed distribution that declares no plugin."""
    return (
        f"the distribution {distribution!r} is installed, but declares no plugin; add the table "
        f'[project.entry-points.{GROUP}] with a line such as my-plugin = "my_module" to its pyproject.toml, and '
        "install it again"
    )


def is_installed(distribution: str) -> bool:
    """Return True if a distribution is installed. Letter case and the separators in its name are ignored."""
    return any(
        _plain(each.metadata["Name"] or "") == _plain(distribution) for each in importlib.metadata.distributions()
    )


def _plain(name: str) -> str:
    """Return the normalized name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def named(source: str) -> PluginRef:
    """Return the plugin in a file or module. Raises `harness.UsageError` if the file does not exist."""
    if source.endswith(".py") or os.sep in source:
        path = real_path(source)
        if not path.exists():
            raise UsageError(f"plugin {source!r} does not exist; pass the path of a Python file, or a module name")
        if not path.is_file() or path.suffix != ".py":
            raise UsageError(f"plugin {source!r} is not a Python file; pass the path of one, or a module name")
        return PluginRef(name=path.stem, value=str(path), distribution="file", version="")
    top = source.partition(":")[0].partition(".")[0]
    distribution = next(iter(importlib.metadata.packages_distributions().get(top, [])), "")
    version = importlib.metadata.version(distribution) if distribution else ""
    return PluginRef(name=source, value=source, distribution=distribution or "module", version=version)


def _listed(variable: str) -> list[str]:
    return [name for name in map(str.strip, os.environ.get(variable, "").split(",")) if name]
