"""Tests that the snippets of the plugin pages run and that the plugin reference is complete."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
from command_line import harness_cli

import harness
import harness.testing
from harness.plugins import hookspecs
from harness.records import PROTOCOLS

PAGES = Path(__file__).parents[2] / "docs" / "plugins"
NEEDS = {
    "README": ("regression", "torch"),
    "backend": ("baselines", "regression", "torch", "vision"),
    "dataset": ("baselines", "regression"),
    "executor": ("baselines", "regression"),
    "model": ("regression", "tensorflow", "torch"),
    "output": ("baselines", "regression", "vision"),
    "task": ("baselines", "regression", "torch"),
}
"""Plugins that the commands of each page use."""
LONG = ("backend", "model")
"""Pages whose commands take about a minute on two cores."""
REFERENCE = (PAGES / "reference.md").read_text()


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Return language, file name (empty if there is none) and content of each code block."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r'^```(\w+)(?: title="(\S+)")?\n(.*?)^```$', text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.plugins(*names), *([pytest.mark.slow] if page in LONG else [])])
        for page, names in NEEDS.items()
    ],
)
def test_every_snippet_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in this process, which is faster than a new one, unless they set environment variables.

    The protocol ``quick`` is shortened, which changes only how long speed is measured.
    """
    frameworks = {"torch", "tensorflow"} & set(NEEDS[page])
    absent = [name for name in sorted(frameworks) if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
    tools = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    monkeypatch.chdir(tmp_path)
    quick = PROTOCOLS["quick"]
    short = msgspec.structs.replace(quick.protocol, throughput_budget_s=0.1, latency_batches=12)
    monkeypatch.setitem(PROTOCOLS, "quick", quick._replace(protocol=short))
    ran = 0
    for language, name, content in blocks(page):
        if language == "sh":
            for command in content.splitlines():
                ran += 1
                if command.startswith("harness "):
                    harness_cli(*shlex.split(command)[1:])
                    continue
                done = subprocess.run(
                    ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                assert "Traceback" not in done.stderr, f"{command}\n{done.stderr}"
        elif language == "toml":
            assert tomllib.loads(content)["project"]["entry-points"]["harness"]
        else:
            assert name, f"a {language} snippet has no title; add its file name as the title"
            (tmp_path / name).write_text(content)
    assert ran


def test_reference_has_every_public_name() -> None:
    names = re.findall(r"^\| `harness\.(\w+)` \| \S", REFERENCE, re.MULTILINE)
    assert names == sorted(harness.__all__, key=str.lower)
    suites = re.findall(r"^\| `harness\.testing\.(\w+)` \| \S", REFERENCE, re.MULTILINE)
    assert suites == sorted(harness.testing.__all__, key=str.lower)


def test_reference_has_every_hook_with_its_arguments() -> None:
    listed = dict(re.findall(r"^\| `(harness_\w+)\((.*?)\)` \| \S", REFERENCE, re.MULTILINE))
    specified = {name: value for name, value in vars(hookspecs).items() if name.startswith("harness_")}
    assert listed == {name: ", ".join(inspect.signature(hook).parameters) for name, hook in specified.items()}


def test_every_page_is_linked() -> None:
    index = (PAGES / "README.md").read_text()
    assert {path.stem for path in PAGES.glob("*.md")} == {*NEEDS, "attributes", "reference"}
    assert all(f"({path.name})" in index for path in PAGES.glob("*.md") if path.stem != "README")
