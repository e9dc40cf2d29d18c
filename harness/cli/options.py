"""Option types and options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog

F = TypeVar("F", bound=Callable[..., Any])


class SuggestingGroup(click.Group):
    """Lists its commands in their own order, and answers a misspelt one with the nearest."""

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
    """As `split`, but the path of a file or folder is one value, whatever its name has in it."""
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
    """``all``, or numbers in commas."""
    return "all" if values == ("all",) else split_whole_numbers(ctx, param, values)


def plugins(command: F) -> F:
    """The option ``--plugin``; `catalog` has what it names."""
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
    """Every plugin, and those that the command's ``--plugin`` names.

    Raises `harness.PluginError` where one of these does not load, unless the command shows failures itself.
    """
    from harness.errors import PluginError
    from harness.plugins import discover
    from harness.plugins.find import named

    extra = click.get_current_context().meta.get("harness.plugins", ())
    found = discover(extra)
    wanted = {named(source).value for source in extra}
    for failure in found.failures:
        if failure.ref.value in wanted and not with_failures:
            raise PluginError(f"plugin {failure.ref.name!r} ({failure.ref.value}) is not loaded: {failure.message}")
    return found


def names(option: str, text: str) -> Callable[[F], F]:
    """An option that takes one name or several."""
    return click.option(option, multiple=True, metavar="NAME[,NAME]", callback=split, help=text)


def selection(backend_help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that say what to run; the command takes them as one `harness.plan.Selection`, ``selection``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def collect(
            task: tuple[str, ...],
            backend: tuple[str, ...],
            dataset: tuple[str, ...],
            model: tuple[str, ...],
            device: tuple[str, ...],
            precision: tuple[str, ...],
            compile_: bool,
            deterministic: bool,
            pretrained: str | None,
            threads: int | None,
            protocol: str,
            overrides: tuple[str, ...],
            text_column: str | None,
            path_column: str | None,
            target_column: tuple[str, ...],
            feature_columns: tuple[str, ...],
            split_column: str | None,
            group_column: str | None,
            slice_columns: tuple[str, ...],
            on_bad_row: str | None,
            **others: Any,
        ) -> None:
            from harness.plan import Selection

            chosen = Selection(
                tasks=task,
                backends=backend,
                datasets=dataset,
                models=model,
                devices=device or ("auto",),
                precisions=precision or ("fp32",),
                compile=compile_,
                deterministic=deterministic,
                pretrained=pretrained,
                threads=threads,
                protocol=protocol,
                overrides=(
                    *_as_overrides(
                        text_column=text_column,
                        path_column=path_column,
                        target_column=target_column[0] if len(target_column) == 1 else target_column,
                        feature_columns=feature_columns,
                        split_column=split_column,
                        group_column=group_column,
                        slice_columns=slice_columns,
                        on_bad_row=on_bad_row,
                    ),
                    *overrides,
                ),
            )
            command(selection=chosen, **others)

        for option in reversed(_selecting(backend_help)):
            collect = option(collect)
        return collect

    return decorate


def _as_overrides(**values: str | tuple[str, ...] | None) -> list[str]:
    """What was given of the short options for dataset options, as ``--set`` takes it."""
    import msgspec

    return [f"dataset.{name}={msgspec.json.encode(value).decode()}" for name, value in values.items() if value]


def _column(option: str, text: str) -> Callable[[F], F]:
    return click.option(option, metavar="NAME", help=text)


def _selecting(backend_help: str) -> list[Callable[[F], F]]:
    return [
        names("--task", "What to do; `harness list tasks` names them."),
        names("--backend", backend_help),
        click.option(
            "--dataset",
            multiple=True,
            metavar="NAME[,NAME]|PATH",
            callback=split_datasets,
            help="Data: a dataset, or a file or folder of your own; without it the task's default.",
        ),
        names("--model", "Model or family; without it the task's default."),
        click.option(
            "--pretrained",
            metavar="FOLDER|HUB-ID",
            help="Start from a checkpoint: config.json, model.safetensors, what prepares data.",
        ),
        names("--device", "auto, cpu, cuda or cuda:N [auto]."),
        names("--precision", "fp32, tf32, bf16, fp16 or fp64 [fp32]."),
        click.option("--compile", "compile_", is_flag=True, help="Compile the model by the backend's compiler."),
        click.option("--deterministic", is_flag=True, help="Use only kernels that give the same bits every time."),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            metavar="N",
            help="CPU threads of a run [all available cores].",
        ),
        click.option(
            "--protocol",
            type=click.Choice(["quick", "standard", "publish"]),
            default="standard",
            help="How long and how surely speed is measured; publish: 3 seeds, 5 repeats too [standard].",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change a setting: recipe.epochs=3, model.hidden_size=256, protocol.window_s=1. May be repeated.",
        ),
        _column("--text-column", "Of your own data: the column of texts."),
        _column("--path-column", "Of your own metadata file: the column of paths."),
        names("--target-column", "Of your own data: the label; for regression one number or several."),
        names("--feature-columns", "Of your own table: what to learn from; without it every other column."),
        _column("--split-column", "Of your own data: train, validation or test."),
        _column("--group-column", "Of your own data: rows of one group stay in one split."),
        names("--slice-columns", "Of your own data: score each of its values, or quarter of its numbers, by itself."),
        click.option(
            "--on-bad-row",
            type=click.Choice(["error", "skip"]),
            help="Of your own data: what to do with rows that cannot be used [error].",
        ),
    ]


def results(command: F) -> F:
    return click.option(
        "--results",
        metavar="DIR",
        type=click.Path(file_okay=False),
        help="Where the runs are kept [HARNESS_RESULTS, else ./results].",
    )(command)


def format_(command: F) -> F:
    """``--format text|json``, which the command takes as ``format_``."""
    return click.option(
        "--format", "format_", type=click.Choice(["text", "json"]), default="text", help="text or json [text]."
    )(command)


def price_per_hour(command: F) -> F:
    return click.option(
        "--price-per-hour",
        type=click.FloatRange(min=0, min_open=True),
        metavar="PRICE",
        help="Of the machine, in any currency: adds what a million samples cost.",
    )(command)
