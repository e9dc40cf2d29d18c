"""The top-level command group, which imports commands and reports errors."""

from __future__ import annotations

import errno
import importlib
from typing import Any

import click

from harness.cli import streams
from harness.cli.options import SuggestingGroup
from harness.cli.output import clean_click_errors, say
from harness.errors import HarnessError

_COMMANDS = {
    "run": "harness.cli.run:run",
    "distill": "harness.cli.distill:distill",
    "tune": "harness.cli.tune:tune",
    "status": "harness.cli.status:status",
    "parity": "harness.cli.parity:parity",
    "evaluate": "harness.cli.evaluate:evaluate",
    "predictions": "harness.cli.predict:predictions",
    "predict": "harness.cli.predict:predict",
    "explain": "harness.cli.explain:explain",
    "export": "harness.cli.export:export",
    "serve": "harness.cli.serve:serve",
    "latency": "harness.cli.latency:latency",
    "list": "harness.cli.list:list_",
    "data": "harness.cli.data:data",
    "show": "harness.cli.show:show",
    "groups": "harness.cli.groups:groups",
    "compare": "harness.cli.compare:compare",
    "baseline": "harness.cli.baseline:baseline",
    "audit": "harness.cli.audit:audit",
    "report": "harness.cli.report:report",
    "history": "harness.cli.history:history",
    "rank": "harness.cli.rank:rank",
    "results": "harness.cli.results:results",
    "track": "harness.cli.track:track",
    "bundle": "harness.cli.bundle:bundle",
    "reproduce": "harness.cli.reproduce:reproduce",
    "plugin": "harness.cli.plugin:plugin",
    "env": "harness.cli.env:env",
    "doctor": "harness.cli.doctor:doctor",
    "selftest": "harness.cli.selftest:selftest",
}


ARGUMENTS = "harness.arguments"
"""Key under which the command's arguments are stored in the context's metadata."""
_FILE_ERRORS = {
    *(errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOSPC),
    *(errno.ENOTDIR, errno.ENOTEMPTY, errno.EPERM, errno.EROFS),
}
"""Errors caused by a file or the machine, not by a bug."""


class _LazyGroup(SuggestingGroup):
    """A command group that imports each command when it is used and reports exceptions as messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **kwargs: Any) -> click.Context:
        words = tuple(args)
        with clean_click_errors():
            context = super().make_context(info_name, args, *more, **kwargs)
        context.meta[ARGUMENTS] = words
        return context

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with clean_click_errors():
                return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            streams.ignore_signals()  # A second Ctrl-C must not change the exit status.
            say("\ninterrupted")
            ctx.exit(130)
        except OSError as error:
            if error.errno == errno.EPIPE:  # If the reader has closed the pipe, click exits silently.
                raise
            if error.errno == errno.ENOSPC and error.filename is None:
                self._report(ctx, HarnessError("cannot write to stdout: no space left on device"))
            if error.errno in _FILE_ERRORS and error.filename is not None:
                self._report(ctx, HarnessError(f"{error.filename}: {error.strerror}"))
            self._report(ctx, error)
        except Exception as error:
            self._report(ctx, error)

    def _report(self, ctx: click.Context, error: Exception) -> None:
        expected = isinstance(error, HarnessError)
        if ctx.params["debug"]:
            import traceback

            say(traceback.format_exc().rstrip("\n"))
        elif expected:
            say(f"Error: {error}")
        else:
            name = type(error).__name__
            say(f"Error: {name}: {error}")
            say("This is a bug. Run `harness --debug ...` for a traceback, and please report it.")
        ctx.exit(error.exit_status if isinstance(error, HarnessError) else 1)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
    epilog="Run `harness COMMAND --help` for the options of a command, with examples.",
)
@click.version_option(package_name="ml-harness", message="harness %(version)s")
@click.option("--debug", is_flag=True, help="Show a traceback if an error occurs.")
def cli(debug: bool) -> None:
    """Benchmark the same model on the same data with different machine-learning frameworks, and compare quality, speed,
    latency and memory.

    \b
    Examples:
      harness run --task nlp
      harness run --task nlp,vision --backend torch,tensorflow --seed 0,1,2
      harness report
    """
