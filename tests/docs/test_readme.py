"""Tests that the plugin of the README runs and that the published record schema is current."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from toy_plugin import SET_FAST

import harness
from harness.records import Success
from harness.records.store import record_schema

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(language: str, text: str) -> str:
    """Return the first code block of a language that contains `text`."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(content for content in blocks if text in content)


@pytest.mark.plugins("regression")
def test_plugin_of_the_readme_runs(tmp_path: Path) -> None:
    backends = [name for name in ("torch", "tensorflow") if importlib.util.find_spec(name)]
    if not backends:
        pytest.skip("neither torch nor tensorflow is installed")
    site = tmp_path / "site"
    info = site / "sine-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_module.py").write_text(block("python", "class Sine"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sine\nVersion: 1.0\n")
    entry = block("toml", "sine").replace("project.entry-points.harness", "harness").replace('"', "")
    (info / "entry_points.txt").write_text(entry)
    command = re.search(r"`(harness run --task regression --dataset sine[^`]*)`", README)[1].split()  # type: ignore[index]
    short = ["--backend", backends[0], "--set", "recipe.epochs=3", *SET_FAST]
    done = subprocess.run(
        [sys.executable, "-m", *command, *short, "--results", str(tmp_path / "results")],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = harness.load(tmp_path / "results")
    assert isinstance(record.outcome, Success)
    assert [ref.distribution for ref in record.provenance.plugins].count("sine") == 1


def test_published_schema_is_current() -> None:
    published = (ROOT / "docs" / "reference" / "record.schema.json").read_text()
    assert published.strip() == record_schema().strip(), "run: make schema"
