from __future__ import annotations

from pathlib import Path

import pytest
from toy_plugin import TOY_REF

from harness.catalog import Catalog
from harness.plugins import load
from harness.types import PluginRef


@pytest.fixture
def catalog(toy: Path) -> Catalog:
    """The tasks that ship with harness, and the toy's backend, which needs no framework."""
    shipped = [
        PluginRef(name=name, value=f"harness_{name}", distribution="harness", version="0")
        for name in ("nlp", "vision", "speech", "regression")
    ]
    loaded = load([*shipped, TOY_REF])
    assert loaded.failures == ()
    return loaded
