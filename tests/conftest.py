"""Fixtures that several rooms' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_plugin import TOY, install_toy


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the plugin distribution in ``tests/toy``, which is installed for this test and its children."""
    install_toy(monkeypatch)
    return TOY
