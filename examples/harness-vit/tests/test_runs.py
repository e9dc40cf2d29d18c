"""Tests of runs, reports and parity checks through the command line."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SMALL = ("--set", "model.hidden_size=16", "--set", "model.num_hidden_layers=1", "--set", "model.intermediate_size=32")
QUICK = ("--threads", 1, "-q", "--protocol", "quick", "--set", "recipe.epochs=1")


def harness(*arguments: Any) -> str:
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_run_is_shown_in_every_report_format(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    results = tmp_path / "results"
    harness("run", "--task", "vision", "--model", "vit", "--backend", "torch", *SMALL, *QUICK, "--results", results)
    (path,) = results.glob("*/record.json")
    record = json.loads(path.read_text())
    assert record["spec"]["model"] == "vit-micro-4"
    assert record["outcome"]["scores"]["primary"] == "accuracy"
    for format_ in ("text", "markdown", "csv", "json", "latex"):
        assert "vit-micro-4" in harness("report", "--format", format_, "--results", results)


@pytest.mark.slow
def test_backends_agree(tmp_path: Path) -> None:
    for backend in ("torch", "tensorflow"):
        if importlib.util.find_spec(backend) is None:
            pytest.skip(f"{backend} is not installed")
    output = harness("parity", "--task", "vision", "--model", "vit", *SMALL, "--backend", "torch,tensorflow")
    assert "same" in output
