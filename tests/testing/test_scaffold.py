"""Tests of ``harness plugin new``: the created packages install, follow the rules, pass their own tests and run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from toy_plugin import SET_FAST

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
    """Create a package, register it as installed without pip, and return the environment for processes that use it."""
    name = f"my-{kind}"
    create(name, kind, folder / name)
    project = tomllib.loads((folder / name / "pyproject.toml").read_text())["project"]
    info = folder / name / f"{name.replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["harness"]
    (info / "entry_points.txt").write_text("[harness]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    return {**os.environ, "PYTHONPATH": str(folder / name), "HARNESS_RESULTS": str(folder / "results")}


def run_python(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", *words]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=280, check=False)


def passes_its_tests(kind: str, folder: Path, environment: dict[str, str]) -> None:
    tests = run_python(environment, "pytest", "-q", "-p", "no:cacheprovider", str(folder / f"my-{kind}"))
    assert tests.returncode == 0, tests.stdout + tests.stderr


def keeps_every_rule(kind: str, environment: dict[str, str]) -> None:
    checked = run_python(environment, "harness", "plugin", "check", f"my-{kind}")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert " 0 broken" in checked.stdout


def runs(kind: str, environment: dict[str, str]) -> None:
    ran = run_python(environment, "harness", *RUNS[kind], *SET_FAST, "--threads", "1", "--quiet")
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


def test_created_package_passes_strict_type_checks(tmp_path: Path) -> None:
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
def test_create_with_a_name_that_is_not_valid_raises(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a valid package name"):
        create(name, "task", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["json", "numpy", "harness"])
def test_create_with_the_name_of_a_module_raises(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"a module named '{name}' already exists"):
        create(name, "task", tmp_path / "new")


def test_new_with_the_name_of_another_object_fails(tmp_path: Path) -> None:
    result = invoke("plugin", "new", "f1-macro", "--kind", "metric", "--output", str(tmp_path / "new"))
    assert result.exit_code == 2
    assert "a metric named 'f1-macro' already exists; choose another name" in result.stderr


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_new_does_not_overwrite_files(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    result = invoke("plugin", "new", "mine", "--kind", "metric", "--output", str(tmp_path / "mine"))
    assert result.exit_code == 2
    assert "already exists and is not empty; choose another folder with --output" in result.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_new_lists_files_and_next_commands(tmp_path: Path) -> None:
    result = invoke("plugin", "new", "my-format", "--kind", "reporter", "--output", str(tmp_path / "p"))
    assert result.exit_code == 0
    created = {str(path.relative_to(tmp_path / "p")) for path in (tmp_path / "p").rglob("*") if path.is_file()}
    assert created == {"my_format.py", "tests/test_my_format.py", "pyproject.toml", "README.md"}
    assert f"pip install --editable {tmp_path / 'p'}" in result.stderr
    text = "".join((tmp_path / "p" / name).read_text() for name in created)
    assert not any(word in text for word in ("thing-name", "thing_name", "thing_class")), (
        "a placeholder was not replaced"
    )
