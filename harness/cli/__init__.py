"""The command line: one thin file for each command, loaded on first use."""

from __future__ import annotations


def main() -> None:
    """Entry point of ``harness``; exits with 0, 1 (something failed), 2 (wrong usage) or 130 (interrupted)."""
    from harness.cli.root import cli

    cli(prog_name="harness")
