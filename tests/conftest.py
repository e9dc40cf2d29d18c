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


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plugin distribution in ``tests/toy``, installed for this process and its children."""
    monkeypatch.syspath_prepend(str(TOY))
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TOY), *([inherited] if inherited else [])]))
    return TOY
