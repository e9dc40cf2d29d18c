from __future__ import annotations

from pathlib import Path

import pytest
from toy_plugin import FAULTS_REF, TOY_REF

from harness.plugins import load
from harness.plugins.catalog import Catalog


@pytest.fixture
def catalog(toy: Path) -> Catalog:
    """The toy's plugins and the core's own metrics; nothing that ships with harness."""
    loaded = load([TOY_REF, FAULTS_REF])
    assert loaded.failures == ()
    return loaded
