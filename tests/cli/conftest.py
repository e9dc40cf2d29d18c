from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click.testing
import pytest
from sample_records import comparison

from harness.plugins import load
from harness.store import Store
from harness.types import PluginRef, RunRecord

MAIN = (sys.executable, "-c", "from harness.cli import main; main()")
"""What the console script ``harness`` does, without the question where it was installed."""

Invoke = Callable[..., click.testing.Result]


@pytest.fixture
def invoke(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in this process, in an empty directory, with no plugins but the toy's."""
    from harness.cli.root import cli

    refs = [
        PluginRef(name=name, value=module, distribution="harness-toy", version="1.0")
        for name, module in (("toy", "harness_toy"), ("toy-faults", "harness_toy_faults"))
    ]
    monkeypatch.setattr("harness.plugins.discover", lambda: load(refs))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_RESULTS", raising=False)
    return lambda *arguments: click.testing.CliRunner().invoke(cli, arguments, prog_name="harness")


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


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results directory that holds `comparison`."""
    store(tmp_path / "results", comparison())
    return tmp_path / "results"
