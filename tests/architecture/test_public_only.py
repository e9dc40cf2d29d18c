"""What ships as a plugin, and the packages in ``examples/``, use the public interface and nothing of each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
import harness.testing

ROOT = Path(__file__).parents[2]
PACKAGES = [
    path.parent for path in sorted([*ROOT.glob("plugins/*/__init__.py"), *ROOT.glob("examples/*/*/__init__.py")])
]


def imported(file: Path) -> Iterator[str]:
    """Full names: ``from harness import Task`` is ``harness.Task``."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", [pytest.param(path, id=path.name) for path in PACKAGES if path.name != "tests"])
def test_a_plugin_imports_public_names_only(package: Path) -> None:
    public = {"harness", *(f"harness.{name}" for name in harness.__all__)}
    public |= {"harness.testing", *(f"harness.testing.{name}" for name in harness.testing.__all__)}
    files = sorted(package.rglob("*.py"))
    assert files
    for file in files:
        ours = {name for name in imported(file) if name.partition(".")[0].startswith("harness")}
        private = {name for name in ours - public if not name.startswith(f"{package.name}.") and name != package.name}
        assert private == set(), f"{file.relative_to(ROOT)} imports {', '.join(sorted(private))}"


def test_there_are_packages() -> None:
    assert len(PACKAGES) >= 3


@pytest.mark.parametrize("where", ["harness", "plugins"])
def test_no_plugin_is_known_by_name(where: str) -> None:
    """Neither the core nor one plugin names another's package: not in an import, nor in a string."""
    names = {path.name for path in PACKAGES}
    for file in (ROOT / where).rglob("*.py"):
        texts = {
            node.value
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        named = {name for name in names for text in texts if name in text and name not in file.parts}
        assert named == set(), f"{file.relative_to(ROOT)} names {', '.join(sorted(named))}"
