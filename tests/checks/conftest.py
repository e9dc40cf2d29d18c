from __future__ import annotations

import os
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent / "parity" / "plugin"


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin with the planted faults can be imported, in children too."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PLUGIN), *([inherited] if inherited else [])]))
