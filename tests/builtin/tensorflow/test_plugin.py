"""Tests that each network that the plugin names has a file."""

from __future__ import annotations

import importlib
from pathlib import Path

import harness_tensorflow


def test_every_network_named_has_a_file() -> None:
    folder = Path(importlib.import_module("harness_tensorflow").__file__ or "").parent / "networks"
    references = list(harness_tensorflow.harness_networks())
    assert {reference.model for reference in references} == {
        path.stem for path in folder.glob("*.py") if path.stem != "__init__"
    }
    assert all(reference.backend == "tensorflow" for reference in references)
