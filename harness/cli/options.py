"""Command-line options shared by several commands."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.plan.selection import OPTIONS, Option, Selection

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec
    from harness.records.index import Setting

F = TypeVar("F", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """A range of numbers that excludes NaN and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(number):  # NaN is neither below nor above a bound, so click would accept it.
            self.fail(f"{value} is not a finite number.", param, ctx)
        return super().convert(number, param, ctx)


class SuggestingGroup(click.Group):
    """A command group that lists its commands in definition order, and suggests a similar name for an unknown
    command.
    """

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
    """Split comma-separated values and remove duplicates: ``("a,b", "c", "a")`` gives ``("a", "b", "c")``."""
    return tuple(dict.fromkeys(split_all(_ctx, _param, values)))


def split_all(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Split comma-separated values and keep duplicates: ``("a,b", "a")`` gives ``("a", "b", "a")``."""
    names = [name.strip() for value in values for name in value.split(",")]
    if values and not all(names):
        raise click.BadParameter(f"empty name in {','.join(values)!r}")
    return tuple(names)


def split_datasets(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Split values as `split` does, but keep existing paths, which may contain commas."""
    from os.path import exists

    # Path.exists() raises for names that are too long for a path.
    parts = [(value,) if exists(value) else split(ctx, param, (value,)) for value in values]  # noqa: PTH110
    return tuple(dict.fromkeys(name for part in parts for name in part))


def split_whole_numbers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """Split values as `split` does, and convert them to integers."""
    numbers = []
    for name in split(ctx, param, values):
        if not (name.isascii() and name.isdigit()):
            raise click.BadParameter(f"{name!r} is not a non-negative integer")
        if len(name) > 18:
            raise click.BadParameter(f"{name[:30]!r} has more than 18 digits")
        numbers.append(int(name))
    return tuple(dict.fromkeys(numbers))


def split_numbers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...] | str:
    """Split values as `split_whole_numbers` does, but return the keyword ``all`` unchanged."""
    return "all" if values == ("all",) else split_whole_numbers(ctx, param, values)


def plugins(command: F) -> F:
    """Add the ``--plugin`` option to a command. The `catalog` function loads the selected plugins."""
    return click.option(
        "--plugin",
        multiple=True,
        metavar="FILE|MODULE",
        expose_value=False,
        callback=_keep_plugins,
        help="Load a plugin that is not installed, from a Python file or a module. Can be repeated.",
    )(command)


def _keep_plugins(ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> None:
    ctx.meta["harness.plugins"] = (*ctx.meta.get("harness.plugins", ()), *values)


def catalog(*, with_failures: bool = False) -> Catalog:
    """Return the catalog of the installed plugins and those passed with ``--plugin``.

    After this call, plugins cannot write to stdout or terminate this process with `os._exit`. Raises
    `harness.PluginError` if a plugin passed with ``--plugin`` fails to load, unless `with_failures` is true.
    """
    from harness.plugins import check_loaded

    extra = click.get_current_context().meta.get("harness.plugins", ())
    discovered = loaded(extra)
    if not with_failures:
        check_loaded(extra, discovered)
    return discovered


def loaded(extra: Iterable[str]) -> Catalog:
    """Return the catalog of the installed plugins and `extra`.

    The catalog also lists the plugins that were not loaded, with the reasons. The reasons are also printed to stderr,
    because a command that succeeds without a plugin may not do what the user wants. For example, runs would not be
    logged if an experiment tracker's plugin were missing.
    """
    from harness.cli.output import reserve_stdout, say
    from harness.execute.trial import crashing
    from harness.plugins import discover
    from harness.plugins.containment import refuse_exit
    from harness.plugins.find import disabled

    reserve_stdout()
    refuse_exit(whole_process=True)
    discovered = discover(extra, crashing)
    left_out = disabled()
    for failure in discovered.failures:
        if failure.ref.name not in left_out:
            say(f"Warning: plugin {failure.ref.name!r} ({failure.ref.value}) is not loaded: {failure.message}")
    return discovered


def with_default(text: str, default: str) -> str:
    """Return a help text with a default value appended in click's format."""
    return f"{text}  [default: {default}]" if default else text


class CommandWithExecutor(click.Command):
    """A command with the ``--executor NAME`` option. ``--NAME-OPTION VALUE`` is an alternative spelling of
    ``--executor-option OPTION=VALUE``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [*expanded(args)])


def expanded(args: list[str]) -> Iterator[str]:
    """Yield the arguments of a command. If the arguments contain ``--executor NAME``, each ``--NAME-OPTION VALUE`` is
    replaced by ``--executor-option OPTION=VALUE``.
    """
    words = iter(args)
    chosen = [value for word, value in pairwise(args) if word == "--executor"]
    chosen += [word.partition("=")[2] for word in args if word.startswith("--executor=")]
    prefix = f"--{chosen[-1]}-" if chosen and chosen[-1] != "executor" else None
    for word in words:
        name, equals, value = word.partition("=")
        if prefix is None or not name.startswith(prefix) or name == prefix:
            yield word
            continue
        if not equals:
            try:
                value = next(words)
            except StopIteration:
                raise click.BadOptionUsage(name, f"Option {name!r} requires an argument.") from None
        yield from ("--executor-option", f"{name.removeprefix(prefix).replace('-', '_')}={value}")


def executor_options(command: F) -> F:
    """Add the ``--executor-option`` option to a command; see `CommandWithExecutor`."""
    return click.option(
        "--executor-option",
        multiple=True,
        metavar="OPTION=VALUE",
        callback=split_pairs,
        help="Set an option of the executor, such as ray-address=auto. `--ray-address auto` has the same "
        "effect. `harness list executors` lists the options. Can be repeated.",
    )(command)


def split_pairs(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Return the values as a dictionary. Each value has the form ``OPTION=VALUE``."""
    found = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{text!r} is not of the form OPTION=VALUE")
        found[name] = value
    return found


def names(option: str, text: str, default: str = "") -> Callable[[F], F]:
    """Return an option that accepts one or more names."""
    text = with_default(text, default)
    return click.option(option, multiple=True, metavar="NAME[,NAME]", callback=split, help=text)


def filters(*fields: str, **texts: str) -> Callable[[F], F]:
    """Return options that filter runs by the `fields` of their specs, such as ``--task nlp``. `matches` applies the
    filters.

    `texts` overrides the help texts of fields.
    """

    def decorate(command: F) -> F:
        for field in reversed(fields):
            command = names(f"--{field}", texts.get(field, f"Use only runs with this {field}."))(command)
        return command

    return decorate


def status_and_date(command: F) -> F:
    """Add the options ``--status``, ``--since`` and ``--until``; see `is_chosen`."""
    for name, text in (("until", "up to and including"), ("since", "from")):
        command = click.option(
            f"--{name}",
            metavar="DATE",
            callback=_checked_date,
            help=f"Use only runs that started {text} this date or time (UTC), such as 2026-11-30 or 2026-11-30T14:00.",
        )(command)
    return names(
        "--status",
        "Use only runs with this status: success, failure, or a type of failure, such as timeout.",
    )(command)


def _checked_date(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    import re
    from datetime import datetime

    if value is None:
        return None
    try:
        datetime.fromisoformat(value)
        valid = re.fullmatch(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?", value) is not None
    except ValueError:
        valid = False
    if not valid:
        raise click.BadParameter(f"{value!r} is not a date such as 2026-11-30 or a time such as 2026-11-30T14:00")
    return value


def is_within(started_at: str, since: str | None, until: str | None) -> bool:
    """Return whether a start time in ISO 8601 (UTC) is between two dates or times, which may be given with lower
    precision."""
    return (since is None or started_at >= since) and (until is None or started_at[: len(until)] <= until)


def matches(setting: Setting | RunSpec, wanted: Mapping[str, Collection[str]]) -> bool:
    """Return True if each field of `setting` has one of the values in `wanted`.

    A field always matches if `wanted` contains no values for it.
    """
    return all(not values or getattr(setting, field) in values for field, values in wanted.items())


_INFERRED = "inferred from the data"

_DATASET_OPTIONS = (
    Option(name="text-column", help="For your own data: column with the texts.", default=_INFERRED),
    Option(
        name="path-column",
        help="For your own data: column of the metadata file that contains the file paths.",
        default=_INFERRED,
    ),
    Option(
        name="target-column",
        help="For your own data: column with the label. For regression, several columns can be given.",
        default=_INFERRED,
        several=True,
    ),
    Option(
        name="feature-columns",
        help="For your own data: columns to use as features.",
        default="all remaining columns",
        several=True,
    ),
    Option(
        name="split-column",
        help="For your own data: column with the split of each row (train, validation or test).",
        default="split, if present",
    ),
    Option(
        name="group-column",
        help="For your own data: column with the group of each row. The rows of a group are kept in the same split.",
        default="none",
    ),
    Option(
        name="time-column",
        help="For your own data: column of dates, times or numbers. The latest rows form the test split. With "
        "--folds, the latest rows form the folds, and each fold is predicted by a model trained on earlier rows.",
        default="none",
    ),
    Option(
        name="folds",
        help="Number of cross-validation folds; each fold is the test split of a separate run.",
        default="none",
        kind=int,
        metavar="K",
    ),
    Option(
        name="fold-column",
        help="For your own data: column with the cross-validation fold of each row.",
        default="none",
    ),
    Option(
        name="random-splits",
        help="Number of random splits of the same examples; each split is used in a separate run.",
        default="none",
        kind=int,
        metavar="N",
    ),
    Option(
        name="weight-column",
        help="For your own data: column with the weight of each row in the training loss.",
        default="none",
    ),
    Option(
        name="slice-columns",
        help="For your own data: columns used to group the examples. Scores are also reported for each group. Each "
        "value of a column or, for numeric columns, each quartile forms a group. Join names with * to intersect "
        "groups.",
        default="none",
        several=True,
    ),
    Option(
        name="on-bad-row",
        help="For your own data: how to handle invalid rows.",
        default="error",
        choices=("error", "skip"),
    ),
    Option(
        name="encoding",
        help="For your own data: encoding of the file, such as windows-1252 or utf-16.",
        default="utf-8",
    ),
    Option(
        name="separator",
        help="For your own data: character that separates the cells of a CSV file, such as ';'.",
        default="inferred from the header",
        metavar="CHARACTER",
    ),
)
"""Options that are shorthand for ``--set``, such as ``--set dataset.text_column=...``."""

_COLUMNS = [option.name.replace("-", "_") for option in _DATASET_OPTIONS]

SELECTING = frozenset([*(option.name for option in OPTIONS.values()), *_COLUMNS])
"""Parameter names of the options added by `selection`."""


def selection(
    *, leave_out: Collection[str] = (), own_data: bool = True, defaults: Mapping[str, str] | None = None, **texts: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the run-selection options to a command. The command receives a `Selection` as ``selection``.

    `texts` replaces the help texts of options, and `defaults` replaces the descriptions of their default values. If
    `own_data` is false, the options for the user's own data are omitted.
    """
    offered = [option for option in OPTIONS.values() if option.name not in leave_out]
    of_data = _DATASET_OPTIONS if own_data else ()
    shown = defaults or {}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def collect(**given: Any) -> None:
            values = {option.name: given.pop(option.name) for option in offered}
            if own_data:
                values["set"] = (*_own_data(given), *values["set"])
            command(selection=Selection.from_values(values), **given)

        for option in reversed((*offered, *of_data)):
            text = with_default(texts.get(option.name, option.help), shown.get(option.name, option.default))
            collect = _declared(option, text)(collect)
        return collect

    return decorate


def own_data(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--set`` and the options for the user's own data to a command. The command receives the resulting settings
    as ``overrides``.
    """

    @functools.wraps(command)
    def collect(**given: Any) -> None:
        command(overrides=(*_own_data(given), *given.pop("set")), **given)

    changed = click.option(
        "--set",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change a setting of the dataset or the task, such as task.max_length=64. Can be repeated.",
    )
    collect = changed(collect)
    for option in reversed(_DATASET_OPTIONS):
        collect = _declared(option, with_default(option.help, option.default))(collect)
    return collect


def _own_data(given: dict[str, Any]) -> tuple[str, ...]:
    """Remove the options for the user's own data from `given`, and return them as overrides."""
    from harness.plan.overrides import own_data_overrides

    return own_data_overrides({name: given.pop(name) for name in _COLUMNS})


def wait(command: F) -> F:
    """Add the option ``--wait``."""
    return click.option(
        "--wait",
        is_flag=True,
        help="If another harness command is measuring on the same device or executing the same runs, wait until it "
        "finishes.",
    )(command)


def jobs(command: F) -> F:
    """Add the option ``--jobs``."""
    return click.option(
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        default=1,
        show_default=True,
        help="Number of runs to execute at the same time. Each run uses separate cores and a separate GPU.",
    )(command)


def _declared(option: Option, text: str) -> Callable[[F], F]:
    form = f"--{option.name}"
    if option.kind is bool:
        return click.option(form, is_flag=True, help=text)
    if option.choices:
        return click.option(form, type=click.Choice(option.choices), help=text)
    if option.several:
        metavar = option.metavar or "NAME[,NAME]"
        callback = {
            "dataset": split_datasets,
            "set": None,
            "split": split_numbers,
            "seed": split_whole_numbers,
            "devices": split_whole_numbers,
        }
        return click.option(form, multiple=True, metavar=metavar, callback=callback.get(option.name, split), help=text)
    kind = click.IntRange(min=1) if option.kind is int else str
    return click.option(form, type=kind, metavar=option.metavar or "NAME", help=text)


def results_in(help_: str, default: str) -> Callable[[F], F]:
    """Return the ``--results`` option with the given help text and default."""
    return click.option("--results", metavar="DIR", type=click.Path(file_okay=False), help=with_default(help_, default))


def results(command: F) -> F:
    """Add the ``--results`` option to a command."""
    return results_in("Results directory.", "HARNESS_RESULTS, else ./results")(command)


def formats(*known: str) -> Callable[[F], F]:
    """Return the ``--format`` option, which the command receives as ``format_``. The first format is the default."""
    return click.option("--format", "format_", type=click.Choice(known), default=known[0], help="Output format.")


format_ = formats("text", "json")


def computed_by(backend: str = "the backend of the run") -> Callable[[F], F]:
    """Return the options ``--backend`` and ``--device`` of a command that computes predictions with a trained model.
    `backend` describes the default backend."""

    def decorate(command: F) -> F:
        command = click.option(
            "--device",
            metavar="NAME",
            help=with_default("Device: auto, cpu, cuda or cuda:N.", "the device of the run, or auto with --backend"),
        )(command)
        help_ = with_default("Backend that computes the predictions.", backend)
        return click.option("--backend", metavar="NAME", help=help_)(command)

    return decorate


def timeout(text: str, default_s: float = 3600) -> Callable[[F], F]:
    """Return the ``--timeout`` option, whose value is in seconds."""
    return click.option(
        "--timeout",
        type=FiniteRange(min=0, min_open=True),
        metavar="SECONDS",
        default=default_s,
        help=text,
    )


def quiet(command: F) -> F:
    """Add the ``--quiet`` option to a command."""
    return click.option("--quiet", "-q", is_flag=True, help="Print only results and errors, without progress.")(command)


def price_per_hour(command: F) -> F:
    """Add the ``--price-per-hour`` option to a command."""
    return click.option(
        "--price-per-hour",
        type=FiniteRange(min=0, min_open=True),
        metavar="PRICE",
        help="Price of the machine per hour, in any currency. With this option, the cost per million samples is "
        "reported (train_cost_per_million, inference_cost_per_million).",
    )(command)


def trackers(command: F) -> F:
    """Add the option ``--tracker``, which the command receives as ``tracker``."""
    return click.option(
        "--tracker",
        multiple=True,
        metavar="NAME[:OPTION=VALUE]",
        help="Log runs to an experiment tracker; `harness list trackers` lists the trackers and their options. Can be "
        "repeated.",
    )(command)
