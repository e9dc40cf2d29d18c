from __future__ import annotations

import pytest
from toy_plugin import PEERS, install


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin with the planted faults can be imported, in children too."""
    install(monkeypatch, PEERS)
