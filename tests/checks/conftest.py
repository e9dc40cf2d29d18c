from __future__ import annotations

import pytest
from toy_plugin import PEERS, install


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the plugin with the planted faults importable, including in child processes."""
    install(monkeypatch, PEERS)
