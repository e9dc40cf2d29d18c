"""The command-line interface. Each command is a module that is imported when it is first used."""

from __future__ import annotations


def main() -> None:
    """Run the command line. Exits with status 0, 1 (a failure), 2 (invalid usage) or 130 (interrupted)."""
    from harness.cli import streams
    from harness.cli.root import cli

    streams.prepare()
    try:
        cli(prog_name="harness")
    finally:
        streams.finish()
