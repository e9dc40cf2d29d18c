"""Packages that a plugin requires."""

from __future__ import annotations

import sys

from harness.plugins.requirements import missing


def test_missing_returns_the_install_command() -> None:
    assert missing({}) is None
    assert missing({"json": "pip install json"}) is None
    assert missing({"no_such_thing": "pip install a"}) == "no_such_thing is not installed; run: pip install a"
    both = missing({"no_such_thing": "pip install a", "json": "pip install j", "no_other": "pip install a"})
    assert both == "no_such_thing and no_other are not installed; run: pip install a"


def test_missing_finds_submodules() -> None:
    assert missing({"importlib.metadata": "x"}) is None
    assert missing({"no_such_thing.inside": "pip install a"}) is not None
    assert missing({"json.decoder.inside": "pip install a"}) is not None


def test_missing_imports_nothing() -> None:
    sys.modules.pop("this", None)
    assert missing({"this": "x"}) is None
    assert "this" not in sys.modules
