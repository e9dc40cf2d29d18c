from __future__ import annotations

import pytest
from toy_plugin import PEERS, install


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the plugin with the planted faults importable, including in child processes.

    In this process, data are prepared once for all tests.
    """
    from planted_faults import prepared_once

    from harness.execute import preparation

    install(monkeypatch, PEERS)
    monkeypatch.setattr(preparation, "_prepared", prepared_once)
