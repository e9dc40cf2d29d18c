"""Tests that all commands of the tutorial succeed."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "getting-started.md").read_text(encoding="utf-8")
FAST = "--protocol quick --set protocol.throughput_budget_s=0.2 --set protocol.latency_budget_s=0.2"
HARNESS = f"""
harness() {{
  if [ "$1" = run ]; then command harness "$@" {FAST}; else command harness "$@"; fi
}}
"""
"""Shell function that makes the measurements of ``harness run`` short."""


def script() -> str:
    """Return the commands of the tutorial, except for the installation, with one seed and the installed frameworks."""
    blocks = [block for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) if "pip install" not in block]
    commands = "".join(blocks).replace("--seed 0,1,2", "--seed 0")
    if importlib.util.find_spec("tensorflow") is None:
        commands = commands.replace("torch,tensorflow,baseline", "torch,baseline").replace(" --parity", "")
    return f"set -e\n{HARNESS}{commands}"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.plugins("regression", "baselines", "torch")
def test_every_command_of_the_tutorial_succeeds(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    clone = tmp_path / "clone"
    clone.mkdir()
    done = subprocess.run(
        ["bash", "-c", script()],
        cwd=clone,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert {path.name for path in (tmp_path / "my-benchmark").iterdir()} == {
        "comparison.md",
        "comparison.tex",
        "comparison.zip",
        "new-wines.csv",
        "pareto.svg",
        "predictions.csv",
        "results",
        "site",
        "wine.csv",
    }
    assert (tmp_path / "my-benchmark" / "site" / "index.html").is_file()


def test_script_has_every_command() -> None:
    assert script().count("\nharness ") > 8
    assert "pip install" not in script()
