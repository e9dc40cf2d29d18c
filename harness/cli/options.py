"""Option types and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def split(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """``("a,b", "c", "a")`` -> ``("a", "b", "c")``: lists in commas or repeated options, each value once, in order."""
    names = [name.strip() for value in values for name in value.split(",")]
    if values and not all(names):
        raise click.BadParameter(f"empty name in {','.join(values)!r}")
    return tuple(dict.fromkeys(names))


def split_whole_numbers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    numbers = []
    for name in split(ctx, param, values):
        if not (name.isascii() and name.isdigit()):
            raise click.BadParameter(f"{name!r} is not a whole number from 0 up")
        numbers.append(int(name))
    return tuple(dict.fromkeys(numbers))


def names(option: str, text: str) -> Callable[[F], F]:
    """An option that takes one name or several."""
    return click.option(option, multiple=True, metavar="NAME[,NAME]", callback=split, help=text)


def results(command: F) -> F:
    return click.option(
        "--results",
        metavar="DIR",
        type=click.Path(file_okay=False),
        help="Where the runs are kept [HARNESS_RESULTS, else ./results].",
    )(command)
