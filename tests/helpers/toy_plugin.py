"""Installation of the plugins in ``tests/toy`` and other directories, for tests and their child processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.records import PluginRef

TOY = Path(__file__).parents[1] / "toy"
PEERS = Path(__file__).parents[1] / "checks" / "parity" / "plugin"
"""Directory of backends for parity checks against the toy backend."""
TOY_REF = PluginRef(name="toy", value="harness_toy", distribution="harness-toy", version="1.0")
FAULTS_REF = PluginRef(name="toy-faults", value="harness_toy_faults", distribution="harness-toy", version="1.0")

FAST = (
    "protocol.window_s=0.005",
    "protocol.throughput_budget_s=0.01",
    "protocol.latency_batches=12",
    "protocol.latency_budget_s=0.02",
)
"""Overrides that make the measurements of a run as short as possible."""
SET_FAST = tuple(word for override in FAST for word in ("--set", override))
"""The same overrides as command-line arguments."""


def install(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Add a directory to the import path of this process and its children until `patch` is undone."""
    patch.syspath_prepend(str(folder))
    patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def install_toy(patch: pytest.MonkeyPatch) -> None:
    install(patch, TOY)


def environment_with(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment variables for a child process that also imports from `folder`."""
    path = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **variables}
