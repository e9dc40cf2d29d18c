"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TOY = Path(__file__).parent / "toy"

FAST = (
    "protocol.window_s=0.005",
    "protocol.inference_s=0.01",
    "protocol.latency_batches=12",
    "protocol.latency_budget_s=0.02",
)
"""Overrides that make a run's measuring as short as it can be."""


def environment_with(folder: Path, **variables: str) -> dict[str, str]:
    """This process's environment for a child that also imports from `folder`."""
    path = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **variables}


def install_toy(patch: pytest.MonkeyPatch) -> None:
    """Install the plugin distribution in ``tests/toy`` for this process and its children, until `patch` is undone."""
    patch.syspath_prepend(str(TOY))
    patch.setenv("PYTHONPATH", str(TOY), prepend=os.pathsep)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the plugin distribution in ``tests/toy``, which is installed for this test and its children."""
    install_toy(monkeypatch)
    return TOY
