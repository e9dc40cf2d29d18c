"""Fixtures that the tests of several packages share."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import click.testing
import pytest
from command_line import Invoke, store
from hypothesis import settings
from sample_records import comparison
from toy_plugin import FAULTS_REF, TOY, TOY_REF, install_toy

from harness.plugins import load
from harness.plugins.catalog import Catalog

# How long an example takes depends on what else the machine does.
settings.register_profile("harness", deadline=None)
settings.load_profile("harness")


# Each folder of plugins/ may be left out; the folders of builtin/ that need it and the tests marked with it go too.
TASKS = ("nlp", "regression", "speech", "vision")
NEEDS = {name: (name,) for name in (*TASKS, "baselines")} | {
    name: (name, *TASKS)
    for name in ("tensorflow", "torch")  # their networks are those of every task's models
}
ABSENT = {name for name in NEEDS if find_spec(f"harness_{name}") is None}
collect_ignore = [f"builtin/{folder}" for folder, plugins in NEEDS.items() if ABSENT & set(plugins)]


@pytest.fixture(autouse=True, scope="session")
def _one_core_a_worker() -> None:
    """Pin each worker of ``pytest -n`` and its children to a separate core, so that workers do not disturb each other's
    timings and frameworks start one thread."""
    number = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if number and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(number) % len(cores)]})


def pytest_report_header() -> list[str]:
    if not ABSENT:
        return []
    return [f"plugins that are not here: {', '.join(sorted(ABSENT))}; left out with them: {', '.join(collect_ignore)}"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    absent = [name for mark in item.iter_markers("plugins") for name in mark.args if name in ABSENT]
    if absent:
        pytest.skip(f"plugins that are not here: {', '.join(absent)}")


LONG = ("integration", "testing", "docs", "checks", "builtin")
"""Folders whose files take longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, so that where workers share the files, none is left with a long one at the end."""
    folders = [Path(__file__).with_name(name) for name in LONG]
    items.sort(key=lambda item: next((n for n, f in enumerate(folders) if f in item.path.parents), len(folders)))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the plugin distribution in ``tests/toy``, which is installed for this test and its children."""
    install_toy(monkeypatch)
    return TOY


@pytest.fixture
def catalog(toy: Path) -> Catalog:
    """The toy's plugins and the core's own metrics; no built-in task, dataset, model or backend."""
    loaded = load([TOY_REF, FAULTS_REF])
    assert loaded.failures == ()
    return loaded


@pytest.fixture
def invoke(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command in this process, in an empty directory, with no plugins but the toy's."""
    from harness.cli.root import cli

    monkeypatch.setattr("harness.plugins.discover", lambda *_: load([TOY_REF, FAULTS_REF]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_RESULTS", raising=False)
    return lambda *arguments: click.testing.CliRunner().invoke(cli, arguments, prog_name="harness")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results directory that holds `comparison`."""
    store(tmp_path / "results", comparison())
    return tmp_path / "results"


@pytest.fixture(scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, _cache: Path) -> None:
    """Hide the user's settings and cache from the tests and their children, except HARNESS_DATA_MIRROR, which tests on
    real files need."""
    for name in ("HARNESS_RESULTS", "HARNESS_PLUGIN_TIMEOUT", "HARNESS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HARNESS_CACHE", str(_cache))
    for name in ("no_proxy", "NO_PROXY"):  # the tests' servers are on this machine
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The publishers' files, from the directory that ``HARNESS_DATA_MIRROR`` names."""
    if not Path(os.environ.get("HARNESS_DATA_MIRROR", ""), "CATALOG.json").is_file():
        pytest.skip("HARNESS_DATA_MIRROR names no directory with the publishers' files")
    monkeypatch.setenv("HARNESS_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_works() -> None:
    """A shell that runs the tests in the background ignores SIGINT, and every child would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
