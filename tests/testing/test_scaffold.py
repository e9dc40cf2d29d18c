"""``harness plugin new``: what it makes installs, keeps the kit's rules, passes its own tests and runs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli.root import cli
from harness.errors import UsageError
from harness.testing.scaffold import KINDS, create

RUNS = {
    "task": ["run", "--task", "my-task", "--backend", "torch"],
    "dataset": ["run", "--task", "regression", "--dataset", "my-dataset", "--model", "linear", "--backend", "torch"],
    "model": ["run", "--task", "regression", "--model", "my-model", "--backend", "torch"],
    "backend": ["run", "--task", "regression", "--model", "linear", "--backend", "my-backend"],
}


def installed(kind: str, folder: Path) -> dict[str, str]:
    """The environment of a process that sees the package as installed, without asking pip to build it."""
    name = f"my-{kind}"
    create(name, kind, folder / name)
    project = tomllib.loads((folder / name / "pyproject.toml").read_text())["project"]
    info = folder / name / f"{name.replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["harness"]
    (info / "entry_points.txt").write_text("[harness]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    return {**os.environ, "PYTHONPATH": str(folder / name), "HARNESS_RESULTS": str(folder / "results")}


def command(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", *words]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=280, check=False)


def passes_its_tests(kind: str, folder: Path, environment: dict[str, str]) -> None:
    tests = command(environment, "pytest", "-q", "-p", "no:cacheprovider", str(folder / f"my-{kind}"))
    assert tests.returncode == 0, tests.stdout + tests.stderr


def keeps_every_rule(kind: str, environment: dict[str, str]) -> None:
    checked = command(environment, "harness", "plugin", "check", f"my-{kind}")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert " 0 broken" in checked.stdout


def runs(kind: str, environment: dict[str, str]) -> None:
    ran = command(environment, "harness", *RUNS[kind], "--protocol", "quick", "--threads", "1", "--quiet")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " ok" in ran.stdout


needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("model", "backend")])
def test_what_is_made_passes_its_tests(kind: str, tmp_path: Path) -> None:
    environment = installed(kind, tmp_path)
    passes_its_tests(kind, tmp_path, environment)
    if kind == "metric":  # of the other kinds, the tests have looked at the same rules
        keeps_every_rule(kind, environment)


@needs_torch
@pytest.mark.plugins("regression", "torch")
@pytest.mark.parametrize("kind", ["model", "backend"])
def test_what_is_made_runs(kind: str, tmp_path: Path) -> None:
    runs(kind, installed(kind, tmp_path))


@pytest.mark.slow
@needs_torch
@pytest.mark.plugins("regression", "torch")
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_does_all_that_it_promises(kind: str, tmp_path: Path) -> None:
    """Networks are compared with PyTorch's, which takes up to a minute."""
    environment = installed(kind, tmp_path)
    passes_its_tests(kind, tmp_path, environment)
    keeps_every_rule(kind, environment)
    if kind in RUNS:
        runs(kind, environment)


def test_what_is_made_passes_strict_type_checks(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    modules = []
    for kind in KINDS:
        create(f"my-{kind}", kind, tmp_path / kind)
        modules.append(str(tmp_path / kind / f"my_{kind}.py"))
    # The repository's configuration is strict and skips the frameworks' types, so that nn.Module is Any.
    config = str(Path(__file__).parents[2] / "pyproject.toml")
    options = ["--config-file", config, "--allow-subclassing-any", "--follow-imports=silent", "--cache-dir=/dev/null"]
    report, _, status = api.run([*options, *modules])
    assert status == 0, report


@pytest.mark.parametrize("name", ["My Task", "9lives", "import", "a_b", "", "../x", "a--b"])
def test_names_that_no_package_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be a package's name"):
        create(name, "task", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["json", "numpy", "harness"])
def test_names_of_modules_that_are_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"there is a module '{name}' already"):
        create(name, "task", tmp_path / "new")


def test_names_that_are_taken(tmp_path: Path) -> None:
    result = invoke("plugin", "new", "f1-macro", "--kind", "metric", "--output", str(tmp_path / "new"))
    assert result.exit_code == 2
    assert "a metric named 'f1-macro' already exists; choose another name" in result.stderr


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    result = invoke("plugin", "new", "mine", "--kind", "metric", "--output", str(tmp_path / "mine"))
    assert result.exit_code == 2
    assert "is there already, and not empty; --output names another folder" in result.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_it_tells_what_it_made_and_what_is_next(tmp_path: Path) -> None:
    result = invoke("plugin", "new", "my-format", "--kind", "reporter", "--output", str(tmp_path / "p"))
    assert result.exit_code == 0
    made = {str(path.relative_to(tmp_path / "p")) for path in (tmp_path / "p").rglob("*") if path.is_file()}
    assert made == {"my_format.py", "tests/test_my_format.py", "pyproject.toml", "README.md"}
    assert f"pip install --editable {tmp_path / 'p'}" in result.stderr
    text = "".join((tmp_path / "p" / name).read_text() for name in made)
    assert not any(word in text for word in ("thing-name", "thing_name", "thing_class")), "a word was left in"
