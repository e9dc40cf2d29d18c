"""Benchmark the quality and cost of a model on the same data in different machine learning frameworks.

The public interface for scripts and plugins consists of the names in ``__all__``. Public names are listed in
``__init__.pyi`` and imported when they are first used, so that ``import harness`` is fast.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any


@functools.cache
def _modules() -> dict[str, str]:
    """Return a mapping from each public name to the module that defines it."""
    import re
    from pathlib import Path

    stub = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    return {name: module for module, name in re.findall(r"^from (\S+) import \w+ as (\w+)$", stub, re.MULTILINE)}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted([*_modules(), "__version__"])
    if name == "__version__":
        from importlib.metadata import version

        return version("ml-harness")
    if name in _modules():
        value = getattr(importlib.import_module(_modules()[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__getattr__("__all__")]
