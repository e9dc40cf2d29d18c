"""Plugins that a test installs for itself."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plugin_sources import Install

from harness.records import PluginRef

_numbers = itertools.count()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that installs a distribution with one plugin module and returns the plugin's reference."""
    made: list[str] = []

    def install(source: str, *, distribution: str = "made", attribute: str = "", name: str = "") -> PluginRef:
        module = f"made_plugin_{next(_numbers)}"
        made.append(module)
        site = tmp_path / f"site{len(made)}"
        info = site / f"{distribution.replace('-', '_')}-2.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.0\n")
        ref = PluginRef(name=name or module, value=module + attribute, distribution=distribution, version="2.0")
        (info / "entry_points.txt").write_text(f"[harness]\n{ref.name} = {ref.value}\n")
        monkeypatch.syspath_prepend(str(site))
        return ref

    yield install
    for module in made:
        sys.modules.pop(module, None)


@pytest.fixture
def one_file(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    made: list[Path] = []

    def write(source: str, name: str = "") -> Path:
        path = tmp_path / (name or f"one_file_plugin_{next(_numbers)}.py")
        path.write_text(textwrap.dedent(source))
        made.append(path)
        return path

    yield write
    for path in made:
        sys.modules.pop(path.stem, None)
