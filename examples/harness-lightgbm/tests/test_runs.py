"""Tests of runs and reports through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def harness(*arguments: Any) -> str:
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_run_is_scored_and_shown_in_every_report_format(tmp_path: Path) -> None:
    results = tmp_path / "results"
    harness(
        "run", "--task", "tabular", "--backend", "lightgbm", "--protocol", "quick", "--threads", 1, "-q",
        "--results", results,
    )  # fmt: skip
    (path,) = results.glob("*/record.json")
    record = json.loads(path.read_text())
    assert record["spec"]["model"] == "lightgbm"
    assert record["outcome"]["scores"]["test"]["accuracy"] > 0.9
    assert record["outcome"]["speed"]["by_steps"] is False
    for format_ in ("text", "markdown", "csv", "json", "latex"):
        assert "lightgbm" in harness("report", "--format", format_, "--results", results)
    shown = harness("show", path.parent.name, "--results", results)
    assert "lightgbm" in shown
    assert "adamw" not in shown
