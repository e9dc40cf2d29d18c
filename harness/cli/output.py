"""Output functions shared by several commands."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TextIO, TypeVar, cast

import click

T = TypeVar("T")

_STDOUT = "harness.stdout"


def reserve_stdout() -> None:
    """Let only `echo` write to stdout until the command ends. What plugins print goes to stderr."""
    context = click.get_current_context()
    if _STDOUT in context.meta:
        return
    context.meta[_STDOUT] = real = sys.stdout
    sys.stdout = sys.stderr

    def restore() -> None:
        sys.stdout = real

    context.find_root().call_on_close(restore)


def stdout() -> TextIO:
    """Return stdout, also if it is reserved."""
    context = click.get_current_context(silent=True)
    return cast("TextIO", context.meta.get(_STDOUT, sys.stdout)) if context else sys.stdout


def echo(text: object, *, nl: bool = True) -> None:
    """Print a result to stdout."""
    click.echo(text, file=stdout(), nl=nl)


def say(text: str) -> None:
    """Print a message to stderr, unless stderr cannot be written within a few seconds."""
    from harness.cli.streams import screen

    with contextlib.suppress(OSError, ValueError):
        click.echo(text, file=screen(wait_s=3.0))


def show(value: T, format_: str, render: Callable[[T], str]) -> None:
    """Print `value` as JSON if `format_` is ``json``, else the text that `render` returns for it."""
    if format_ == "json":
        print_json(value)
    else:
        echo(render(value))


def print_json(value: object) -> None:
    """Print `value`, such as a record or a list of records, as indented JSON."""
    import msgspec

    echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, such as ``1 run`` or ``2 runs``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
