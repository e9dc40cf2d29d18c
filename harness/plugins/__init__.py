"""Discovery and loading of plugins. Built-in plugins are discovered and loaded like third-party plugins."""

from harness.plugins.code import resolve
from harness.plugins.load import discover, load

__all__ = ["discover", "load", "resolve"]
