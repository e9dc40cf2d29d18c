"""Output of commands. All output of a command is written by `echo`, `echo_data` or `console`.

The printed text may contain names from untrusted files. To keep the text from controlling the terminal, these functions
replace control characters.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, TypeVar, cast

import click

if TYPE_CHECKING:
    from rich.console import Console


T = TypeVar("T")

_STDOUT = "harness.stdout"


def clean(text: str) -> str:
    """Return text without terminal control characters; see `harness.records.printing.clean`."""
    from harness.records import printing  # This module is slow to import and not needed for help texts.

    return printing.clean(text)


def reserve_stdout() -> None:
    """Reserve stdout for `echo` until the command has finished. Output from plugins goes to stderr."""
    context = click.get_current_context()
    if _STDOUT in context.meta:
        return
    context.meta[_STDOUT] = real = sys.stdout
    sys.stdout = sys.stderr

    def restore() -> None:
        sys.stdout = real

    context.find_root().call_on_close(restore)


def stdout() -> TextIO:
    """Return stdout, even if it is reserved for `echo`."""
    context = click.get_current_context(silent=True)
    return cast("TextIO", context.meta.get(_STDOUT, sys.stdout)) if context else sys.stdout


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print human-readable text to stdout, or to stderr if `err` is true; see `harness.records.printing.clean`."""
    if err:
        say(str(text), nl=nl)
    else:
        click.echo(clean(str(text)), file=stdout(), nl=nl)


def say(text: str, *, nl: bool = True) -> None:
    """Print a message to stderr. The message is discarded if stderr is blocked for a few seconds."""
    from harness.cli.streams import screen

    with contextlib.suppress(OSError, ValueError):
        click.echo(clean(text), file=screen(wait_s=3.0), nl=nl)


def show_progress(text: str, stream: TextIO) -> None:
    """Print a progress line."""
    click.echo(clean(text), file=stream)


def echo_data(text: str, *, nl: bool = True) -> None:
    """Print machine-readable data, such as CSV, to stdout.

    The data are printed unchanged, unless stdout is a terminal. On a terminal, control characters are replaced.
    """
    out = stdout()
    # By default, `click.echo` removes escape sequences.
    click.echo(clean(text) if out.isatty() else text, file=out, nl=nl, color=True)


def console() -> Console:
    """Return a console that prints progress to stderr and replaces control characters in all text."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    from harness.cli.streams import screen

    class CleanConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(clean(text), style)

    return CleanConsole(file=screen(), highlight=False)


@contextmanager
def clean_click_errors() -> Iterator[None]:
    """Replace control characters in the messages of click's exceptions, because the messages quote command-line
    arguments. If an argument is passed to a command that takes no arguments, recommend the option ``--results``.
    """
    try:
        yield
    except click.ClickException as error:
        error.message = clean(error.message + _advice(error))  # type: ignore[misc]  # it is only annotated as final
        raise


def _advice(error: click.ClickException) -> str:
    """Return advice for a user who passed a results directory as an argument to a command that takes no arguments."""
    command = error.ctx.command if isinstance(error, click.UsageError) and error.ctx is not None else None
    if command is None or not error.message.startswith("Got unexpected extra argument"):
        return ""
    has_arguments = any(isinstance(parameter, click.Argument) for parameter in command.params)
    has_results = any(parameter.name == "results" for parameter in command.params)
    return "; pass a results directory with --results" if has_results and not has_arguments else ""


def show(value: T, format_: str, render: Callable[[T], str]) -> None:
    """Print `value` as JSON if `format_` is ``json``, and as the text returned by `render` otherwise."""
    if format_ == "json":
        print_json(value)
    else:
        echo(render(value))


def print_json(value: object) -> None:
    """Print `value`, such as a record or a list of records, as indented JSON."""
    import msgspec

    from harness.records.printing import escape_json

    echo_data(escape_json(msgspec.json.format(msgspec.json.encode(value), indent=1).decode()))


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, such as ``1 run`` or ``2 runs``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
