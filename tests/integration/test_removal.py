"""Tests that harness and the other plugins work if any one package of ``plugins/`` is removed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").is_file())
QUICK = [
    "--threads",
    "1",
    "--set",
    "protocol.throughput_budget_s=0.1",
    "--set",
    "protocol.latency_budget_s=0.1",
    "--quiet",
]


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python interpreter with the installed packages, except for harness and other editable installations."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("-packages")))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the contents of a wheel of harness."""
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("building the wheel requires setuptools 77 or newer")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("harness", "plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(source)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


@pytest.fixture(params=FOLDERS)
def without(
    request: pytest.FixtureRequest, tmp_path: Path, interpreter: Path, everything: Path
) -> tuple[str, list[str], dict[str, str]]:
    """Name of the removed package, and the command and environment variables of a Python without it."""
    site = tmp_path / "site"
    site.mkdir()
    for path in everything.iterdir():
        if path.name != request.param:
            (site / path.name).symlink_to(path)  # shares the compiled modules
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return request.param, [str(interpreter)], environment | {"PYTHONPATH": str(site)}


def test_other_plugins_are_listed_and_run(without: tuple[str, list[str], dict[str, str]], tmp_path: Path) -> None:
    folder, python, environment = without

    def harness(*arguments: str) -> str:
        command = [*python, "-m", "harness", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    listed = {plugin["name"]: plugin for plugin in json.loads(harness("plugin", "list", "--format", "json"))["plugins"]}
    removed = folder.removeprefix("harness_")
    problems = {name: listed[name]["problem"] for name in listed if listed[name]["module"].startswith("harness_")}
    assert f"No module named {folder!r}" in problems.pop(removed)
    assert set(problems) == {name.removeprefix("harness_") for name in FOLDERS} - {removed}
    assert set(problems.values()) == {""}
    task = "vision" if removed == "regression" else "regression"
    backend = "baseline"
    if removed == "baselines":
        if importlib.util.find_spec("torch") is None:
            pytest.skip("torch is not installed")
        backend = "torch"
    printed = harness("run", "--task", task, "--backend", backend, *QUICK, "--results", str(tmp_path / "results"))
    assert "ok" in printed.split()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fast_tests_pass(without: tuple[str, list[str], dict[str, str]], tmp_path: Path) -> None:
    """Run the fast tests that import neither framework."""
    _, python, environment = without
    for name in ("tests", "docs", "benchmarks", "results", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "test_removal.py"))
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    chosen = ["-m", "not slow and not gpu and not torch and not tensorflow", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*python, "-m", "pytest", "-q", "-n", "auto", "--dist", "loadfile", *chosen, "tests"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
