from __future__ import annotations

from pathlib import Path

import click.testing
import pytest
from command_line import Invoke, store
from sample_records import comparison
from toy_plugin import FAULTS_REF, TOY_REF

from harness.plugins import load


@pytest.fixture
def invoke(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in this process, in an empty directory, with no plugins but the toy's."""
    from harness.cli.root import cli

    monkeypatch.setattr("harness.plugins.discover", lambda *_: load([TOY_REF, FAULTS_REF]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_RESULTS", raising=False)
    return lambda *arguments: click.testing.CliRunner().invoke(cli, arguments, prog_name="harness")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results directory that holds `comparison`."""
    store(tmp_path / "results", comparison())
    return tmp_path / "results"
