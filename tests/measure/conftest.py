"""Fixtures of the timed loops."""

from __future__ import annotations

import pytest
from timed_sessions import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in ("training", "inference", "checkpoints"):
        monkeypatch.setattr(f"harness.measure.{module}.time", made)
    return made
