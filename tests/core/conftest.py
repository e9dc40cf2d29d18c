from __future__ import annotations

from pathlib import Path

import pytest

from harness.plugins import Catalog, load
from harness.types import PluginRef

TOY_REF = PluginRef(name="toy", value="harness_toy", distribution="harness-toy", version="1.0")
FAULTS_REF = PluginRef(name="toy-faults", value="harness_toy_faults", distribution="harness-toy", version="1.0")


@pytest.fixture
def catalog(toy: Path) -> Catalog:
    """The toy's plugins and the core's own metrics; nothing that ships with harness."""
    loaded = load([TOY_REF, FAULTS_REF])
    assert loaded.failures == ()
    return loaded
