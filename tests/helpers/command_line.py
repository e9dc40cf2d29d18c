"""Functions that run the command line, in this process or in a new one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click.testing

from harness.records import RunRecord
from harness.records.store import Store

MAIN = (sys.executable, "-m", "harness")

Invoke = Callable[..., click.testing.Result]


def harness_cli(*arguments: object, results: Path | None = None, status: int = 0) -> click.testing.Result:
    """Run the command in this process, with every installed plugin, and assert that it exits with `status`.

    Runs and checks still compute in child processes.
    """
    from harness.cli.root import cli

    words = [*map(str, arguments), *(["--results", str(results)] if results else [])]
    result = click.testing.CliRunner().invoke(cli, words, prog_name="harness")
    assert result.exit_code == status, result.output
    return result


def harness_process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a new process, as a user does."""
    return subprocess.run([*MAIN, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def store(path: Path, records: Sequence[RunRecord]) -> list[str]:
    """Write records to a results directory and return their run IDs."""
    results = Store(path)
    results.prepare()
    names = []
    for record in records:
        with results.scratch() as scratch:
            names.append(results.commit(scratch, record).record.run_id)
    return names
