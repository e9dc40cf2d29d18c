"""Find required modules that are not installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping


def missing(requires: Mapping[str, str]) -> str | None:
    """Return a message that lists missing modules and the commands that install them; None if all are installed.

    `requires` maps module names to install commands. The modules are not imported.
    """
    absent = [module for module in requires if not _importable(module)]
    if not absent:
        return None
    commands = dict.fromkeys(requires[module] for module in absent)
    return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed; run: {' && '.join(commands)}"


def _importable(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # for "a.b": the package a is not installed, or is not a package
        return False
