from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from toy_plugin import TOY_REF

from harness.plugins import load
from harness.plugins.catalog import Catalog
from harness.records import PluginRef


@pytest.fixture
def catalog(toy: Path) -> Catalog:
    """Return a catalog with the built-in tasks and the toy backend, which needs no framework."""
    pytest.importorskip("harness_nlp")
    pytest.importorskip("harness_regression")
    built_in = [
        PluginRef(name=name, value=f"harness_{name}", distribution="harness", version="0")
        for name in ("nlp", "vision", "speech", "regression")
        if find_spec(f"harness_{name}")
    ]
    loaded = load([*built_in, TOY_REF])
    assert loaded.failures == ()
    return loaded
