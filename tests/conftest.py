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


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have settings of their own; the tests' children must not see them."""
    for name in ("HARNESS_RESULTS", "HARNESS_PLUGIN_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
