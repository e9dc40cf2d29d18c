"""The ``harness plugin`` commands."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import console, counted, echo, print_json
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog
    from harness.records import PluginRef


@click.group(cls=options.SuggestingGroup, short_help="Create, check and list plugins.")
def plugin() -> None:
    """Create, check and list plugins, which add tasks, datasets, models, backends, metrics and report formats.

    A plugin is an installed package with an entry point in the group `harness`, or a file or module. Pass files and
    modules with `--plugin FILE|MODULE`, or list them in the environment variable HARNESS_PLUGINS, separated by commas.
    Plugins whose names are listed in HARNESS_DISABLE_PLUGINS are not loaded.

    \b
    Examples:
      harness plugin new my-task --kind task
      harness plugin check ./my_plugin.py
      harness plugin list
    """


@plugin.command(short_help="Create a plugin project.")
@click.argument("name")
@click.option(
    "--kind",
    required=True,
    type=click.Choice(("task", "dataset", "model", "backend", "metric", "reporter")),
    help="Kind of plugin.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=options.with_default("Directory to create.", "./NAME"),
)
def new(name: str, kind: str, output: Path | None) -> None:
    """Create a small plugin package that can be installed and passes `harness plugin check`. The package contains a
    module with comments that explain what to change, a test, pyproject.toml and README.md.

    \b
    Examples:
      harness plugin new my-task --kind task
      harness plugin new my-format --kind reporter --output plugins/my-format
    """
    from harness.testing.scaffold import create

    catalog = options.catalog()
    known: dict[str, Mapping[str, object]] = {
        "plugin": {plugin.ref.name: plugin for plugin in catalog.plugins},
        "task": catalog.tasks,
        "dataset": catalog.datasets,
        "model": {**catalog.models, **catalog.variants},
        "backend": catalog.backends,
        "metric": catalog.metrics,
        "report format": catalog.reporters,
        "executor": catalog.executors,
        "tracker": catalog.trackers,
    }
    for what, names in known.items():
        if name in names or name.replace("-", "_") in names:
            raise UsageError(f"a {what} named {name!r} already exists; choose another name")
    folder = output or Path(name)
    for path in create(name, kind, folder):
        echo(path)
    echo(f"\nNext:\n  pip install --editable {shlex.quote(str(folder))}\n  harness plugin check {name}", err=True)


@plugin.command("list", short_help="List plugins, the objects that they provide, and load errors.")
@options.plugins
@options.format_
def list_(format_: str) -> None:
    """List each plugin with its distribution, its module and the objects that it provides. For a plugin that could not
    be loaded, the reason is shown instead.

    \b
    Examples:
      harness plugin list
      harness plugin list --format json
    """
    from harness.testing.check import subjects

    catalog = options.catalog(with_failures=True)
    found: list[tuple[PluginRef, list[str], str]] = []
    for ref in (loaded.ref for loaded in catalog.plugins):
        others = [f"executor {name}" for name, provided in catalog.executors.items() if provided.plugin == ref]
        others += [f"tracker {name}" for name, provided in catalog.trackers.items() if provided.plugin == ref]
        found.append((ref, [*map(str, subjects(ref, catalog)), *others], ""))
    found += [(failure.ref, [], failure.message) for failure in catalog.failures]
    rows = [
        {
            "name": ref.name,
            "distribution": ref.distribution,
            "version": ref.version,
            "module": ref.value,
            "brings": brings,
            "problem": problem,
        }
        for ref, brings, problem in found
    ]
    if format_ == "json":
        print_json({"plugins": rows, "conflicts": list(catalog.conflicts.values())})
        return
    for row in sorted(rows, key=lambda row: str(row["name"])):
        origin = " ".join(filter(None, (str(row["distribution"]), str(row["version"]))))
        echo(f"{row['name']}  ({origin}: {row['module']})")
        if row["problem"]:
            echo(f"    NOT LOADED: {row['problem']}")
        else:
            echo(_filled(", ".join(row["brings"]) or "events only"))
    for explanation in catalog.conflicts.values():
        echo(f"CONFLICT: {explanation}")


def _filled(text: str) -> str:
    import textwrap

    return textwrap.fill(text, 110, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


@plugin.command(short_help="Check a plugin against the conformance kit.")
@options.plugins
@click.argument("which", metavar="[NAME|PATH]", required=False)
@options.format_
def check(which: str | None, format_: str) -> None:
    """Check everything that a plugin provides against the conformance kit's rules. NAME is the name of an installed
    plugin. PATH is a Python file or the directory of an installed project. By default, all plugins that are not part of
    harness are checked.

    Backends and networks are executed in separate processes, and compared with another backend that implements the same
    model. The check takes about a minute for each network. Its progress is shown on stderr. Networks for backends that
    are not installed are not checked. The exit status is 1 if a rule is violated.

    \b
    Examples:
      harness plugin check my-task
      harness plugin check ./my_plugin.py
      harness plugin check .
    """
    from rich.text import Text

    from harness.testing.check import check_plugin

    catalog, chosen = _chosen(which)
    findings, screen = [], console()
    with screen.status("") as status:

        def show(text: str) -> None:
            if screen.is_terminal:
                status.update(Text(f"checking {text}"))
            else:
                echo(f"checking {text}", err=True)

        for ref in chosen:
            for finding in check_plugin(ref, catalog, show):
                findings.append(finding)
                if format_ == "text" and finding.passed is False:
                    echo(str(finding))
    broken = sum(finding.passed is False for finding in findings)
    if format_ == "json":
        print_json(findings)
    else:
        reasons = Counter((finding.subject, finding.seen) for finding in findings if finding.passed is None)
        for (subject, reason), count in reasons.items():
            echo(f"not checked: {subject}, {counted(count, 'rule')}: {reason}")
        passed = sum(finding.passed is True for finding in findings)
        unchecked = len(findings) - passed - broken
        names = ", ".join(ref.name for ref in chosen)
        echo(f"{names}: {passed} rules passed, {broken} broken, {unchecked} not checked")
    if broken:
        raise click.exceptions.Exit(1)


def _chosen(which: str | None) -> tuple[Catalog, list[PluginRef]]:
    """Return the catalog and the plugins to check. Raises `harness.UsageError` if there are no plugins to check."""
    from harness.errors import UnknownNameError, UsageError
    from harness.plugins.find import is_installed, named, no_entry_point, without_entry_point
    from harness.plugins.requirements import DISTRIBUTION

    if which is not None and which.endswith(".py"):
        wanted = named(which).value
        catalog = options.loaded([which])
        refs = [ref for ref in _all(catalog) if ref.value == wanted]
        if not refs:
            raise UsageError(f"{which}: no such plugin was found; pass the path of a Python file")
        return catalog, refs
    catalog = options.catalog(with_failures=True)
    known = _all(catalog)
    if which is None:
        refs = [ref for ref in known if ref.distribution != DISTRIBUTION]
        if not refs:
            raise UsageError(
                "only built-in plugins are installed; pass the name of one of them or the path of your plugin"
            )
        return catalog, refs
    if Path(which).is_dir():
        distribution = _project(Path(which))
        refs = [ref for ref in known if ref.distribution.replace("_", "-").lower() == distribution]
        if not refs:
            if is_installed(distribution):
                raise UsageError(f"{which}: {no_entry_point(distribution)}: pip install --editable {which}")
            raise UsageError(
                f"{which}: the distribution {distribution!r} is not installed; run: pip install --editable {which}"
            )
        return catalog, refs
    refs = [ref for ref in known if ref.name == which]
    if not refs:
        unregistered = without_entry_point(which)
        hint = f"\n  {unregistered}" if unregistered else ""
        raise UnknownNameError("plugin", which, {ref.name for ref in known}, hint=hint)
    return catalog, refs


def _all(catalog: Catalog) -> list[PluginRef]:
    refs = [loaded.ref for loaded in catalog.plugins] + [failure.ref for failure in catalog.failures]
    return sorted(refs, key=lambda ref: ref.name)


def _project(folder: Path) -> str:
    """Return the normalized name of the distribution whose pyproject.toml is in `folder`."""
    import tomllib

    from harness.errors import RecordError, UsageError
    from harness.records.reading import MAX_JSON_BYTES, read_named

    try:
        content = tomllib.loads(read_named(folder / "pyproject.toml", MAX_JSON_BYTES).decode())
        name = str(content["project"]["name"])
    except (RecordError, ValueError, RecursionError, LookupError, TypeError) as error:
        raise UsageError(f"{folder}: cannot read the project name from pyproject.toml ({error})") from None
    return name.replace("_", "-").lower()
