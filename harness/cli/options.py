"""Options that several commands share, each declared once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.plan.selection import OPTIONS, Option, Selection

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec

F = TypeVar("F", bound=Callable[..., Any])


class SuggestingGroup(click.Group):
    """Lists its commands in their own order, and answers a misspelled one with the nearest."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            from harness.errors import UnknownNameError

            ctx.fail(str(UnknownNameError("command", args[0], known)))
        return super().resolve_command(ctx, args)


def split(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """``("a,b", "c", "a")`` -> ``("a", "b", "c")``: lists in commas or repeated options, each value once, in order."""
    names = [name.strip() for value in values for name in value.split(",")]
    if values and not all(names):
        raise click.BadParameter(f"empty name in {','.join(values)!r}")
    return tuple(dict.fromkeys(names))


def split_datasets(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Split as `split` does, but keep the path of a file or folder whole, whatever characters it has."""
    from pathlib import Path

    parts = [(value,) if Path(value).exists() else split(ctx, param, (value,)) for value in values]
    return tuple(dict.fromkeys(name for part in parts for name in part))


def split_whole_numbers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    numbers = []
    for name in split(ctx, param, values):
        if not (name.isascii() and name.isdigit()):
            raise click.BadParameter(f"{name!r} is not a whole number from 0 up")
        numbers.append(int(name))
    return tuple(dict.fromkeys(numbers))


def split_numbers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...] | str:
    """Return ``all`` as it is, and numbers as `split_whole_numbers` does."""
    return "all" if values == ("all",) else split_whole_numbers(ctx, param, values)


def plugins(command: F) -> F:
    """Add ``--plugin``; `catalog` loads what it names."""
    return click.option(
        "--plugin",
        multiple=True,
        metavar="FILE|MODULE",
        expose_value=False,
        callback=_keep_plugins,
        help="A plugin that is not installed: a Python file, or a module; may be repeated.",
    )(command)


def _keep_plugins(ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> None:
    ctx.meta["harness.plugins"] = (*ctx.meta.get("harness.plugins", ()), *values)


def catalog(*, with_failures: bool = False) -> Catalog:
    """Return every installed plugin, and those that the command's ``--plugin`` names.

    Raises `harness.PluginError` where one of these does not load, unless the command shows failures itself.
    """
    from harness.errors import PluginError
    from harness.plugins import discover
    from harness.plugins.find import named

    extra = click.get_current_context().meta.get("harness.plugins", ())
    discovered = discover(extra)
    wanted = {named(source).value for source in extra}
    for failure in discovered.failures:
        if failure.ref.value in wanted and not with_failures:
            raise PluginError(f"plugin {failure.ref.name!r} ({failure.ref.value}) is not loaded: {failure.message}")
    return discovered


def names(option: str, text: str) -> Callable[[F], F]:
    """Return an option that takes one name or several."""
    return click.option(option, multiple=True, metavar="NAME[,NAME]", callback=split, help=text)


def filters(*fields: str, **texts: str) -> Callable[[F], F]:
    """Return options that keep only runs with these values in `fields` of their spec, as in ``--task nlp``.

    `texts` replaces the help of a field. `matches` applies what they give.
    """

    def decorate(command: F) -> F:
        for field in reversed(fields):
            command = names(f"--{field}", texts.get(field, f"Only these {field}s."))(command)
        return command

    return decorate


def matches(spec: RunSpec, wanted: Mapping[str, Collection[str]]) -> bool:
    """Return whether `spec` has one of the wanted values in each field; any value will do where none is wanted."""
    return all(not values or getattr(spec, field) in values for field, values in wanted.items())


_DATASET_OPTIONS = (
    Option(name="text-column", help="User data: column of the texts."),
    Option(name="path-column", help="User data: column of the file paths in a metadata file."),
    Option(name="target-column", help="User data: column of the label; for regression, one or several.", several=True),
    Option(
        name="feature-columns", help="User data: columns of a table to learn from [all other columns].", several=True
    ),
    Option(name="split-column", help="User data: column that says train, validation or test."),
    Option(name="group-column", help="User data: rows with the same value stay in one split."),
    Option(
        name="slice-columns",
        help="User data: also score each value of these columns, or each quarter of their numbers, alone.",
        several=True,
    ),
    Option(
        name="on-bad-row",
        help="User data: what to do with rows that cannot be used [error].",
        choices=("error", "skip"),
    ),
)
"""Short forms of ``--set dataset.text_column=...`` and the like."""

_COLUMNS = [option.name.replace("-", "_") for option in _DATASET_OPTIONS]

SELECTING = frozenset([*(option.name for option in OPTIONS.values()), *_COLUMNS])
"""Names of the parameters that `selection` collects."""


def selection(*, leave_out: Collection[str] = (), **texts: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the options that say what to run, which the command takes as one `Selection` called ``selection``.

    `texts` replaces the help of an option.
    """
    offered = [option for option in OPTIONS.values() if option.name not in leave_out]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def collect(**given: Any) -> None:
            values = {option.name: given.pop(option.name) for option in offered}
            columns = {name: given.pop(name) for name in _COLUMNS}
            values["set"] = (*_dataset_overrides(columns), *values["set"])
            command(selection=Selection.from_values(values), **given)

        for option in reversed((*offered, *_DATASET_OPTIONS)):
            collect = _declared(option, texts.get(option.name, option.help))(collect)
        return collect

    return decorate


def _dataset_overrides(columns: dict[str, Any]) -> tuple[str, ...]:
    from harness.plan.overrides import as_overrides

    if len(columns["target_column"]) == 1:
        (columns["target_column"],) = columns["target_column"]
    return as_overrides({f"dataset.{name}": value for name, value in columns.items() if value})


def _declared(option: Option, text: str) -> Callable[[F], F]:
    form = f"--{option.name}"
    if option.kind is bool:
        return click.option(form, is_flag=True, help=text)
    if option.choices:
        return click.option(form, type=click.Choice(option.choices), help=text)
    if option.several:
        metavar = option.metavar or "NAME[,NAME]"
        callback = {"dataset": split_datasets, "set": None, "split": split_numbers, "seed": split_whole_numbers}
        return click.option(form, multiple=True, metavar=metavar, callback=callback.get(option.name, split), help=text)
    kind = click.IntRange(min=1) if option.kind is int else str
    return click.option(form, type=kind, metavar=option.metavar or "NAME", help=text)


def results(command: F) -> F:
    return click.option(
        "--results",
        metavar="DIR",
        type=click.Path(file_okay=False),
        help="Results directory [HARNESS_RESULTS, else ./results].",
    )(command)


def formats(*known: str) -> Callable[[F], F]:
    """Return ``--format``, which the command takes as ``format_``; the first of `known` is the default."""
    text = f"{', '.join(known[:-1])} or {known[-1]} [{known[0]}]."
    return click.option("--format", "format_", type=click.Choice(known), default=known[0], help=text)


format_ = formats("text", "json")


def timeout(text: str, default_s: float = 3600.0) -> Callable[[F], F]:
    """Return ``--timeout``, in seconds."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        default=default_s,
        help=f"{text} [{default_s:g}].",
    )


def quiet(command: F) -> F:
    return click.option("--quiet", "-q", is_flag=True, help="Print only the results and errors.")(command)


def price_per_hour(command: F) -> F:
    return click.option(
        "--price-per-hour",
        type=click.FloatRange(min=0, min_open=True),
        metavar="PRICE",
        help="Price of the machine, in any currency: adds the cost of a million samples.",
    )(command)
