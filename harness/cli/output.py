"""Output functions shared by several commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

T = TypeVar("T")


def show(value: T, format_: str, render: Callable[[T], str]) -> None:
    """Print `value` as JSON if `format_` is ``json``, else the text that `render` returns for it."""
    if format_ == "json":
        print_json(value)
    else:
        click.echo(render(value))


def print_json(value: object) -> None:
    """Print `value`, such as a record or a list of records, as indented JSON."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, such as ``1 run`` or ``2 runs``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
