"""Discovery and loading of plugins. Built-in plugins are found and loaded exactly like third-party ones."""

from harness.plugins.code import resolve
from harness.plugins.find import discover
from harness.plugins.load import load

__all__ = ["discover", "load", "resolve"]
