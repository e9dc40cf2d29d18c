"""Finding plugins: entry points, what ``--plugin`` and ``HARNESS_PLUGINS`` name, and what is disabled."""

from __future__ import annotations

import importlib.metadata
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from harness.errors import UsageError
from harness.plugins.catalog import Catalog, PluginFailure
from harness.plugins.hookspecs import GROUP
from harness.plugins.load import load
from harness.records import PluginRef

EXTRA, DISABLED = "HARNESS_PLUGINS", "HARNESS_DISABLE_PLUGINS"
"""Names in commas: files or modules to load as well; plugins to leave out."""


def discover(extra: Iterable[str] = ()) -> Catalog:
    """Load every plugin: the entry points of the group ``harness``, and the files and modules that `extra` and
    ``HARNESS_PLUGINS`` name; without those of the names in ``HARNESS_DISABLE_PLUGINS``. Their order never matters.

    Never raises for a plugin's sake. Raises `harness.UsageError` for a file that is not there.
    """
    refs = installed()
    modules = {ref.value for ref in refs}
    refs |= {ref for ref in map(named, [*extra, *_listed(EXTRA)]) if ref.value not in modules}
    disabled = set(_listed(DISABLED))
    chosen, failures = [], []
    by_name: dict[str, list[PluginRef]] = defaultdict(list)
    for ref in sorted(refs, key=lambda ref: (ref.name, ref.distribution, ref.value)):
        by_name[ref.name].append(ref)
    for name, claimants in by_name.items():
        if name in disabled:
            failures += [PluginFailure(ref, f"disabled by {DISABLED}") for ref in claimants]
        elif len(claimants) > 1:
            who = " and ".join(f"{ref.distribution} ({ref.value})" for ref in claimants)
            reason = f"the name {name!r} is that of several plugins, in {who}; leave out all but one"
            failures += [PluginFailure(ref, reason) for ref in claimants]
        else:
            chosen += claimants
    for name in sorted(disabled - by_name.keys()):
        stranger = PluginRef(name=name, value="", distribution="", version="")
        failures.append(PluginFailure(stranger, f"{DISABLED} names it, and no plugin here is called so"))
    return load(chosen, failures)


def installed() -> set[PluginRef]:
    """The entry points of every distribution."""
    return {
        PluginRef(
            name=point.name,
            value=point.value,
            distribution=point.dist.name if point.dist else "unknown",
            version=point.dist.version if point.dist else "unknown",
        )
        for point in importlib.metadata.entry_points(group=GROUP)
    }


def named(source: str) -> PluginRef:
    """A plugin by its file or module. Raises `harness.UsageError` for a file that is not there."""
    if source.endswith(".py") or os.sep in source:
        path = Path(source).expanduser().resolve()
        if not path.exists():
            raise UsageError(f"plugin {source!r} is not there; give the path of a Python file, or the name of a module")
        if not path.is_file() or path.suffix != ".py":
            raise UsageError(f"plugin {source!r} is no Python file; give the path of one, or the name of a module")
        return PluginRef(name=path.stem, value=str(path), distribution="file", version="")
    top = source.partition(":")[0].partition(".")[0]
    distribution = next(iter(importlib.metadata.packages_distributions().get(top, [])), "")
    version = importlib.metadata.version(distribution) if distribution else ""
    return PluginRef(name=source, value=source, distribution=distribution or "module", version=version)


def _listed(variable: str) -> list[str]:
    return [name for name in map(str.strip, os.environ.get(variable, "").split(",")) if name]
