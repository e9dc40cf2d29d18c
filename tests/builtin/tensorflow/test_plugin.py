"""Tests of the hooks of the TensorFlow plugin."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import harness_tensorflow


def test_importing_the_plugin_imports_no_framework() -> None:
    code = (
        "import sys, harness_tensorflow as plugin; list(plugin.harness_backends()); list(plugin.harness_networks());"
        "print([name for name in ('tensorflow', 'keras', 'numpy') if name in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


def test_every_declared_network_has_a_file() -> None:
    folder = Path(importlib.import_module("harness_tensorflow").__file__ or "").parent / "networks"
    references = list(harness_tensorflow.harness_networks())
    assert {reference.model for reference in references} == {
        path.stem for path in folder.glob("*.py") if path.stem != "__init__"
    }
    assert all(reference.backend == "tensorflow" for reference in references)
