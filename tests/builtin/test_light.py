"""Listing what the built-in plugins provide imports no large package."""

from __future__ import annotations

import subprocess
import sys

import pytest

PLUGINS = (
    "nlp",
    "vision",
    "speech",
    "regression",
    "tabular",
    "baselines",
    "ray",
    "tracking",
    "torch",
    "tensorflow",
    "onnxruntime",
)
HEAVY = {
    *("numpy", "scipy", "sklearn", "torch", "tensorflow", "keras", "transformers", "tokenizers", "babel"),
    *("espeakng_loader", "ray", "onnx", "onnxruntime", "tensorboard", "mlflow"),
}
LIST = """
import importlib, sys
plugin = importlib.import_module(sys.argv[1])
hooks = [hook for name, hook in vars(plugin).items() if name.startswith("harness_") and callable(hook)]
print(sum(len(list(hook())) for hook in hooks), *sys.modules)
"""


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.plugins(name)) for name in PLUGINS])
def test_listing_a_plugin_imports_nothing_heavy(name: str) -> None:
    command = [sys.executable, "-c", LIST, f"harness_{name}"]
    count, *modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(count) > 0
    assert HEAVY & set(modules) == set()
