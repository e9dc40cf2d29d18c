"""The command ``harness selftest``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import show

if TYPE_CHECKING:
    from harness.checks.selftest import Check


@click.command(short_help="Check that measurements on this machine are accurate.")
@options.plugins
@options.format_
def selftest(format_: str) -> None:
    """Check the accuracy of measurements on this machine: allocate known amounts of memory on the host and on every
    accelerator, compare the step timer with the wall clock, and print the errors. Memory and time are measured in the
    same way as in a run.

    The exit status is 1 if the memory error exceeds both 1% and 2 MiB, or if the step timer is off by more than
    1 ms over half a second.

    \b
    Examples:
      harness selftest
      harness selftest --format json
    """
    from harness.checks.selftest import run

    checks = run(options.catalog())
    show(checks, format_, render)
    if not all(check.passed for check in checks):
        raise click.exceptions.Exit(1)


def render(checks: list[Check]) -> str:
    from tabulate import tabulate

    rows = [
        [
            check.name,
            _amount(check.expected, check.unit),
            _amount(check.measured, check.unit),
            _amount(check.measured - check.expected, check.unit),
            _amount(check.tolerance, check.unit),
            "ok" if check.passed else "WRONG",
            check.note,
        ]
        for check in checks
    ]
    header = ["check", "expected", "measured", "error", "allowed", "", "counter"]
    return tabulate(rows, headers=header, tablefmt="simple", disable_numparse=True)


def _amount(value: float, unit: str) -> str:
    return f"{value / 2**20:.3f} MiB" if unit == "bytes" else f"{value:.6f} {unit}"
