"""The command as its users start it."""

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


def harness(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with all plugins."""
    return subprocess.run([*MAIN, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def store(path: Path, records: Sequence[RunRecord]) -> list[str]:
    """Put records into a results directory; returns their run ids."""
    kept = Store(path)
    kept.prepare()
    names = []
    for record in records:
        with kept.scratch() as scratch:
            names.append(kept.commit(scratch, record).record.run_id)
    return names
