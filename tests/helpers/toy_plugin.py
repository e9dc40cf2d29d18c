"""The plugin distribution in ``tests/toy``, and how a test installs it for itself and its children."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.records import PluginRef

TOY = Path(__file__).parents[1] / "toy"
TOY_REF = PluginRef(name="toy", value="harness_toy", distribution="harness-toy", version="1.0")
FAULTS_REF = PluginRef(name="toy-faults", value="harness_toy_faults", distribution="harness-toy", version="1.0")

FAST = (
    "protocol.window_s=0.005",
    "protocol.throughput_budget_s=0.01",
    "protocol.latency_batches=12",
    "protocol.latency_budget_s=0.02",
)
"""Overrides that make a run's measuring as short as it can be."""


def install_toy(patch: pytest.MonkeyPatch) -> None:
    """Put the toy on the path of this process and its children, until `patch` is undone."""
    patch.syspath_prepend(str(TOY))
    patch.setenv("PYTHONPATH", str(TOY), prepend=os.pathsep)


def environment_with(folder: Path, **variables: str) -> dict[str, str]:
    """This process's environment for a child that also imports from `folder`."""
    path = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **variables}
