"""Finding and loading plugins: `discover` gives a `harness.catalog.Catalog` of what they provide, and of what went
wrong with which. What ships with harness is found exactly as a stranger's plugin."""

from harness.plugins.code import resolve
from harness.plugins.find import discover
from harness.plugins.load import load

__all__ = ["discover", "load", "resolve"]
