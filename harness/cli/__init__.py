"""The command-line interface. Each command is defined in a separate module, which is imported when the command is
used."""

from __future__ import annotations


def main() -> None:
    """Run the command line. The process exits with status 0 (success), 1 (failure), 2 (invalid usage) or 130
    (interruption).
    """
    from harness.cli import streams
    from harness.cli.root import cli

    streams.prepare()
    try:
        cli(prog_name="harness")
    except OSError as error:  # raised when --help or --version writes to stdout
        from harness.cli.output import say

        say(f"Error: cannot write to stdout: {error.strerror}")
        streams.finish()
        raise SystemExit(1) from None
    except SystemExit as end:
        streams.ignore_signals()  # The command has ended, so Ctrl-C must not change its exit status.
        streams.finish()
        status = end.code if isinstance(end.code, int) else 0
        streams.end_threads(status)
        streams.end_exit_functions(status)
        raise
