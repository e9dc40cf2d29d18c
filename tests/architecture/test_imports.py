"""Tests of the import rules of `harness` and plugins.

The packages of `harness` are ordered and import only from packages to their left; modules have no import cycles;
plugins import public names only. Source code is parsed, not imported. Imports in functions and under
``TYPE_CHECKING`` count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import harness
import harness.testing

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent for path in [*ROOT.glob("plugins/*/__init__.py"), *ROOT.glob("examples/*/*/__init__.py")])
LINE = (
    *("errors", "records", "interfaces", "plugins", "data", "measure", "plan", "execute"),
    *("checks, tuning", "deploy", "analysis"),
    *("report", "testing, api", "cli", "__init__, __main__"),
)
"""Packages and modules of `harness` from left to right. Names in one string do not import each other."""
PLACE = {name: place for place, names in enumerate(LINE) for name in names.split(", ")}

Graph = dict[str, set[str]]
"""Mapping from each module to the modules that it imports, by their full names."""


def imported_names(module: str, path: Path) -> Iterator[str]:
    """Yield the full names that a module imports, such as ``harness.Task`` for ``from harness import Task``."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def modules(package: Path) -> dict[str, Path]:
    """Return a mapping from the full name of each module of the package in this directory to its file."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def import_graph(package: Path) -> Graph:
    """Return the imports among the modules of the package in this directory."""
    files = modules(package)
    graph: Graph = {module: set() for module in files}
    for module, path in files.items():
        for name in imported_names(module, path):
            while name and name not in files:  # the last part is a class or function
                name = name.rpartition(".")[0]
            graph[module] |= {name} if name else set()
    return graph


def wrong_imports(graph: Graph) -> list[str]:
    """Return the imports from packages that are not to the left, and the packages that are not in `LINE`."""
    wrong = [f"{module} is not in LINE" for module in graph if _top(module) not in PLACE]
    for module, imported in sorted(graph.items()):
        for other in sorted(imported):
            here, there = _top(module), _top(other)
            if here != there and PLACE.get(there, 0) >= PLACE.get(here, 0):
                wrong.append(f"{module} imports {other}")
    return wrong


def _top(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def cycle(graph: Graph) -> list[str]:
    """Return the modules of an import cycle, or an empty list if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        modules: list[str] = error.args[1]
        return modules
    return []


def test_packages_import_only_from_the_left() -> None:
    assert wrong_imports(import_graph(ROOT / "harness")) == []


def test_top_level_has_at_most_19_names() -> None:
    top = [path for path in (ROOT / "harness").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    assert {path.stem for path in top} == set(PLACE)
    assert len(top) <= 19


@pytest.mark.parametrize("package", [ROOT / "harness", *PLUGINS], ids=lambda path: path.name)
def test_modules_have_no_import_cycles(package: Path) -> None:
    assert cycle(import_graph(package)) == []


@pytest.mark.parametrize("package", PLUGINS, ids=lambda path: path.name)
def test_plugins_import_public_names_only(package: Path) -> None:
    public = {"harness", *(f"harness.{name}" for name in harness.__all__)}
    public |= {"harness.testing", *(f"harness.testing.{name}" for name in harness.testing.__all__)}
    for module, path in modules(package).items():
        own = {name for name in imported_names(module, path) if name.split(".")[0] == package.name}
        others = {name for name in imported_names(module, path) if name.startswith("harness")} - own
        assert others <= public, f"{path.relative_to(ROOT)} imports {', '.join(sorted(others - public))}"


@pytest.mark.parametrize("folder", ["harness", "plugins"])
def test_strings_name_no_other_plugin(folder: str) -> None:
    """Strings such as ``"module:callable"`` must not refer to the package of another plugin."""
    names = {package.name for package in PLUGINS}
    assert len(names) >= 3
    for file in (ROOT / folder).rglob("*.py"):
        texts = {
            node.value
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        named = {name for name in names for text in texts if name in text and name not in file.parts}
        assert named == set(), f"{file.relative_to(ROOT)} names {', '.join(sorted(named))}"


# ---- tests of the checks, on a small package ----------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Package ``harness`` with allowed imports only."""
    sources = {
        "__init__.py": "from harness.plan import expand",
        "errors.py": "class HarnessError(Exception): ...",
        "records/__init__.py": "from .spec import RunSpec",
        "records/spec.py": "import json\nfrom harness.errors import HarnessError",
        "plan/__init__.py": "from .. import errors\nfrom ..records.spec import RunSpec\ndef expand(): ...",
    }
    for name, source in sources.items():
        path = tmp_path / "harness" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return tmp_path / "harness"


def test_allowed_imports_pass(tree: Path) -> None:
    graph = import_graph(tree)
    assert graph == {
        "harness": {"harness.plan"},
        "harness.errors": set(),
        "harness.records": {"harness.records.spec"},
        "harness.records.spec": {"harness.errors"},
        "harness.plan": {"harness.errors", "harness.records.spec"},
    }
    assert wrong_imports(graph) == []
    assert cycle(graph) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import harness.plan",
        "import harness.plan as planning",
        "from harness.plan import expand",
        "from harness import plan",
        "from ..plan import expand",
        "from .. import plan",
        "def lazy():\n    from harness.plan import expand",
        "if TYPE_CHECKING:\n    from harness.plan import expand",
    ],
)
def test_import_from_the_right_is_reported(statement: str, tree: Path) -> None:
    (tree / "records/store.py").write_text(statement)
    assert wrong_imports(import_graph(tree)) == ["harness.records.store imports harness.plan"]


@pytest.mark.parametrize("statement", ["import harness", "from harness import RunSpec", "from .. import RunSpec"])
def test_import_of_the_public_names_is_reported(statement: str, tree: Path) -> None:
    (tree / "records/store.py").write_text(statement)
    assert wrong_imports(import_graph(tree)) == ["harness.records.store imports harness"]


def test_package_that_is_not_listed_is_reported(tree: Path) -> None:
    (tree / "utils.py").touch()
    assert wrong_imports(import_graph(tree)) == ["harness.utils is not in LINE"]


@pytest.mark.parametrize(
    "statement", ["from harness.records.spec import RunSpec", "def lazy():\n    from . import spec"]
)
def test_import_cycle_is_reported(statement: str, tree: Path) -> None:
    (tree / "records/spec.py").write_text("from .store import Store")
    (tree / "records/store.py").write_text(statement)
    assert set(cycle(import_graph(tree))) == {"harness.records.spec", "harness.records.store"}


def test_import_cycle_through_a_package_is_reported(tree: Path) -> None:
    (tree / "records/spec.py").write_text("from harness.records import SCHEMA_VERSION")
    assert set(cycle(import_graph(tree))) == {"harness.records", "harness.records.spec"}
