"""The command ``harness list``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import click

from harness.cli import options
from harness.cli.output import echo, stdout

if TYPE_CHECKING:
    from harness.interfaces import Backend
    from harness.plugins.catalog import Catalog, Provided

T = TypeVar("T")

_KINDS = ("tasks", "datasets", "models", "backends", "metrics", "reporters", "trackers", "executors", "plugins")


@click.command("list", short_help="List installed tasks, models and other objects.")
@options.plugins
@click.argument("kind", required=False, metavar=f"[{'|'.join(_KINDS)}|options]")
@click.option("--task", metavar="NAME", help="For `harness list options`: task whose settings are listed.")
@click.option("--dataset", metavar="NAME", help="For `harness list options`: dataset of the task.")
@click.option("--model", metavar="NAME", help="For `harness list options`: model whose settings are listed.")
def list_(kind: str | None, task: str | None, dataset: str | None, model: str | None) -> None:
    """List the tasks, models, backends and other objects that the installed plugins provide. Show one kind in detail
    or, by default, an overview of all kinds.

    Entries that are unavailable on this machine are also listed, along with the reason and the command that installs
    the missing package. The kind `options` lists the settings that `harness run --set` can change, with their defaults
    and descriptions.

    \b
    Examples:
      harness list
      harness list models
      harness list options --task nlp --model lstm
    """
    from harness.errors import UnknownNameError, UsageError

    if kind is not None and kind not in (*_KINDS, "options"):
        raise UnknownNameError("kind", kind, (*_KINDS, "options"))
    if kind != "options" and (task or dataset or model):
        raise UsageError("--task, --dataset and --model can only be used with `harness list options`")
    if dataset and not task:
        raise UsageError("--dataset requires --task; add the task that uses the dataset")
    catalog = options.catalog(with_failures=True)
    if kind == "options":
        echo(_options(catalog, task, dataset, model))
        return
    sections = [_section(name, catalog, full=kind is not None) for name in _KINDS if kind in (None, name)]
    echo("\n\n".join(sections))


def _section(kind: str, catalog: Catalog, *, full: bool) -> str:
    from tabulate import tabulate

    header, rows = _TABLES[kind](catalog)
    if not full:
        rows = [[row[0], row[1 if kind == "models" else -1]] for row in rows]
    if not rows:
        return f"{kind}\n  none"
    if full:
        grid = tabulate(_wrapped(header, rows), headers=header, tablefmt="simple")
    else:
        grid = tabulate(_wrapped(["", ""], rows), tablefmt="plain")
    return "\n".join([kind, *(f"  {line}".rstrip() for line in grid.splitlines())])


_NARROWEST = 16
"""Minimum width of a wrapped column, in characters."""


def _wrapped(header: list[str], rows: list[list[str]]) -> list[list[str]]:
    """Wrap the widest columns to fit the table into the terminal. Rows are left unchanged if stdout is not a
    terminal."""
    import shutil
    import textwrap

    if not rows or not _is_terminal():
        return rows
    # tabulate makes each column at least two characters wider than its header.
    widths = [max(len(name) + 2, *map(len, cells)) for name, *cells in zip(header, *rows, strict=True)]
    available = shutil.get_terminal_size().columns - 2 * len(widths)
    while sum(widths) > available and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return [[textwrap.fill(cell, width) for cell, width in zip(row, widths, strict=True)] for row in rows]


def _is_terminal() -> bool:
    return stdout().isatty()


_Rows = tuple[list[str], list[list[str]]]


def _tasks(catalog: Catalog) -> _Rows:
    header = ["name", "objective", "metric", "dataset", "model", "description"]
    values = [catalog.task(name) for name in sorted(catalog.tasks)]
    return header, [[t.name, t.objective, t.metric, t.default_dataset, t.default_model, t.summary] for t in values]


def _datasets(catalog: Catalog) -> _Rows:
    header = ["name", "kind", "objective", "description"]
    values = [catalog.dataset(name) for name in sorted(catalog.datasets)]
    return header, [[d.name, d.kind, d.objective, _available(d.summary, d.requires)] for d in values]


def _models(catalog: Catalog) -> _Rows:
    header = ["name", "variants", "accepts", "backends", "description"]
    rows = []
    for name in sorted(catalog.models):
        model = catalog.models[name].value
        backends = sorted(backend for family, backend in catalog.networks if family == name)
        rows.append([name, _join(model.variants), _join(model.accepts), _join(backends), model.summary])
    return header, rows


def _backends(catalog: Catalog) -> _Rows:
    values = [catalog.backend(name) for name in sorted(catalog.backends)]
    header = ["name", "use", "description"]
    return header, [[b.name, _use(b), _available(b.summary, b.requires)] for b in values]


def _use(backend: Backend) -> str:
    if backend.trains:
        return "training, inference"
    return f"inference of {backend.executes} models" if backend.executes else "inference"


def _metrics(catalog: Catalog) -> _Rows:
    values = [catalog.metric(name) for name in sorted(catalog.metrics)]
    header = ["name", "objective", "better", "description"]
    return header, [[m.name, m.objective, "higher" if m.higher_is_better else "lower", m.summary] for m in values]


def _reporters(catalog: Catalog) -> _Rows:
    return _with_options((each.name, each.options, each.summary, {}) for each in _values(catalog.reporters))


def _trackers(catalog: Catalog) -> _Rows:
    return _with_options((each.name, each.options, each.summary, each.requires) for each in _values(catalog.trackers))


def _executors(catalog: Catalog) -> _Rows:
    return _with_options((each.name, each.options, each.summary, each.requires) for each in _values(catalog.executors))


def _values(provided: Mapping[str, Provided[T]]) -> list[T]:
    return [each.value for _, each in sorted(provided.items())]


def _with_options(rows: Iterable[tuple[str, Mapping[str, str], str, Mapping[str, str]]]) -> _Rows:
    """Return a table with the columns name, options and description. Each item of `rows` consists of a name, options, a
    summary and the required modules.
    """
    header = ["name", "options", "description"]
    return header, [
        [
            name,
            "; ".join(f"{option}: {text}" for option, text in given.items()) or "none",
            _available(summary, requires),
        ]
        for name, given, summary, requires in rows
    ]


def _plugins(catalog: Catalog) -> _Rows:
    loaded = [(plugin.ref, "loaded") for plugin in catalog.plugins]
    failed = [(failure.ref, f"NOT LOADED: {failure.message}") for failure in catalog.failures]
    rows = [[ref.name, ref.distribution, ref.version, ref.value, state] for ref, state in [*loaded, *failed]]
    rows += [["-", "", "", "", f"CONFLICT: {explanation}"] for explanation in catalog.conflicts.values()]
    return ["name", "distribution", "version", "module", "state"], rows


def _options(catalog: Catalog, task: str | None, dataset: str | None, model: str | None) -> str:
    import msgspec
    from tabulate import tabulate

    from harness.plan.setting_list import settings_of

    header = ["option", "default", "meaning"]
    parts = []
    for section, settings in settings_of(catalog, task, dataset, model).items():
        rows = [
            [
                setting.name,
                "required" if setting.default is msgspec.NODEFAULT else msgspec.json.encode(setting.default).decode(),
                setting.meaning,
            ]
            for setting in settings
        ]
        grid = tabulate(_wrapped(header, rows), headers=header, tablefmt="simple", disable_numparse=True)
        parts.append("\n".join([section, *(f"  {line}".rstrip() for line in (grid if rows else "none").split("\n"))]))
    return "\n\n".join(parts)


_TABLES = {
    "tasks": _tasks,
    "datasets": _datasets,
    "models": _models,
    "backends": _backends,
    "metrics": _metrics,
    "reporters": _reporters,
    "trackers": _trackers,
    "executors": _executors,
    "plugins": _plugins,
}


def _available(summary: str, requires: object) -> str:
    from harness.plugins.requirements import missing

    reason = missing(requires)  # type: ignore[arg-type]
    return f"{summary} [unavailable: {reason}]" if reason else summary


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)
