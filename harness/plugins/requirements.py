"""Modules that a plugin's object requires, and how to install those that are missing."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping


def missing(requires: Mapping[str, str]) -> str | None:
    """Return which of these modules are not installed, with the command that installs them; None if all are.

    `requires` maps importable modules to install commands. Nothing is imported.
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
    except (ImportError, ValueError):  # of "a.b", the package a is not installed or is a plain module
        return False
