"""Tests of references to a plugin's code, and of its digest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from plugin_sources import Install, metric

from harness.errors import PluginError
from harness.plugins import resolve
from harness.plugins.code import digest
from harness.plugins.find import named


def test_digest_changes_with_the_code(one_file: Callable[..., Path]) -> None:
    path = one_file(metric("digested"))
    before = digest(str(path))
    assert len(before) == 64
    path.write_text(path.read_text() + "# changed\n")
    assert digest(str(path)) != before


def test_digest_of_a_package_covers_all_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "digested_package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py", "inner/net.py"):
        (package / name).write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = digest("digested_package:plugin")
    (package / "notes.txt").write_text("no code")
    assert digest("digested_package:plugin") == before
    (package / "inner" / "net.py").rename(package / "inner" / "other.py")
    assert digest("digested_package:plugin") != before
    assert digest("digested_package.inner") == digest("digested_package")
    assert "digested_package" not in sys.modules
    assert digest("there_is_no_such_package") == ""


def test_named_module_has_its_distribution() -> None:
    assert named("pluggy").distribution == "pluggy"


def test_resolve_returns_the_object_or_raises() -> None:
    assert resolve("math:sqrt")(9) == 3
    for reference in ("math:no_such", "no_such_module:f", "math", ":f", ""):
        with pytest.raises(PluginError, match=r"no_such|math|''|':f'"):
            resolve(reference)


def test_resolve_of_a_misspelled_function_suggests_the_name() -> None:
    with pytest.raises(PluginError, match="module 'math' has no attribute 'sqr'; did you mean 'sqrt'"):
        resolve("math:sqr")


def test_resolve_of_a_missing_module_says_how_to_provide_it() -> None:
    with pytest.raises(PluginError, match="No module named 'no_such_module'; install the module, add its file to"):
        resolve("no_such_module:f")


def test_resolve_of_a_broken_module_raises_its_error(install: Install) -> None:
    ref = install("import math\nmath.no_such\n")
    with pytest.raises(AttributeError, match="no_such"):
        resolve(f"{ref.value}:build")
