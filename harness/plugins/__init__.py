"""Discovery and loading of plugins. Built-in plugins are discovered and loaded like third-party plugins."""

from harness.plugins.code import resolve
from harness.plugins.load import check_loaded, discover, load

__all__ = ["check_loaded", "discover", "load", "resolve"]
