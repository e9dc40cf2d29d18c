"""A store in an empty directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "results")
    made.prepare()
    return made
