"""Output of commands. Everything that a command prints passes through `echo`, `echo_data` or `console`.

Texts may contain names from untrusted files. They are cleaned here, so that they cannot control the terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from harness.records.printing import clean, escape_json

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text for people to stdout, or to stderr if `err` is true; see `harness.records.printing.clean`."""
    click.echo(clean(str(text)), err=err, nl=nl)


def echo_data(text: str, *, nl: bool = True) -> None:
    """Print data for programs, such as CSV, to stdout: exactly to a pipe or file, and cleaned to a terminal."""
    click.echo(clean(text) if sys.stdout.isatty() else text, nl=nl, color=True)  # click would remove escape sequences


def console() -> Console:
    """Return a console for progress on stderr, which cleans the text of everything that it shows."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class CleanConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(clean(text), style)

    return CleanConsole(stderr=True, highlight=False)


@contextmanager
def clean_click_errors() -> Iterator[None]:
    """Clean the messages of click's exceptions, which quote arguments and which click prints."""
    try:
        yield
    except click.ClickException as error:
        error.message = clean(error.message)  # type: ignore[misc]  # it is only annotated as final
        raise


def show(value: T, format_: str, render: Callable[[T], str]) -> None:
    """Print `value` as JSON if `format_` is ``json``, else the text that `render` returns for it."""
    if format_ == "json":
        print_json(value)
    else:
        echo(render(value))


def print_json(value: object) -> None:
    """Print `value`, such as a record or a list of records, as indented JSON."""
    import msgspec

    click.echo(escape_json(msgspec.json.format(msgspec.json.encode(value), indent=1).decode()))


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, such as ``1 run`` or ``2 runs``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
