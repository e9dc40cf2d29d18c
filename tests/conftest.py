"""Fixtures that are shared by the tests of several packages."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from functools import cache
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

# The time per example depends on the load of the machine, so examples have no deadline.
settings.register_profile("harness", deadline=None)
settings.load_profile("harness")


# Each package of plugins/ may be missing; tests that need it are skipped or not collected.
TASKS = ("nlp", "regression", "speech", "tabular", "vision")
NEEDS = {name: (name,) for name in (*TASKS, "baselines", "onnxruntime", "ray", "tracking")} | {
    name: (name, *TASKS)
    for name in ("tensorflow", "torch")  # they have networks for the models of every task
}
ABSENT = {name for name in NEEDS if find_spec(f"harness_{name}") is None}
collect_ignore = [f"builtin/{folder}" for folder, plugins in NEEDS.items() if ABSENT & set(plugins)]


@pytest.fixture(autouse=True, scope="session")
def _one_core_a_worker() -> None:
    """Pin each worker of ``pytest -n`` and its children to one core.

    Timed code is then not slowed down by other workers, and frameworks start one thread.
    """
    number = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if number and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(number) % len(cores)]})


def pytest_report_header() -> list[str]:
    if not ABSENT:
        return []
    return [f"missing plugins: {', '.join(sorted(ABSENT))}; ignored: {', '.join(collect_ignore)}"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    absent = [name for mark in item.iter_markers("plugins") for name in mark.args if name in ABSENT]
    if absent:
        pytest.skip(f"missing plugins: {', '.join(absent)}")


LONG = ("integration", "testing", "docs", "checks", "builtin")
"""Folders whose files take longest."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, so that with several workers none starts a long file at the end."""
    folders = [Path(__file__).with_name(name) for name in LONG]

    @cache
    def place(path: Path) -> int:
        return next((n for n, folder in enumerate(folders) if folder in path.parents), len(folders))

    items.sort(key=lambda item: place(item.path))
    gc.freeze()  # What collection has created stays until the end, so later garbage collections need not visit it.


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directory of the plugin distribution in ``tests/toy``, installed for the test and its child processes."""
    install_toy(monkeypatch)
    return TOY


@pytest.fixture
def catalog(toy: Path) -> Catalog:
    """Catalog of the plugins in ``tests/toy`` and the core metrics, without the other built-in plugins."""
    loaded = load([TOY_REF, FAULTS_REF])
    assert loaded.failures == ()
    return loaded


@pytest.fixture
def invoke(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Return a function that runs a command in this process, in an empty directory, with the toy plugins only."""
    from harness.cli.root import cli

    monkeypatch.setattr("harness.plugins.discover", lambda *_: load([TOY_REF, FAULTS_REF]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_RESULTS", raising=False)
    return lambda *arguments: click.testing.CliRunner().invoke(cli, arguments, prog_name="harness")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results directory with the records of `comparison`."""
    store(tmp_path / "results", comparison())
    return tmp_path / "results"


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give each test process its own cache, including for fixtures with a wider scope than one test.

    The cache contains the lock that keeps two processes from measuring on the same device.
    """
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def _isolated_environment(monkeypatch: pytest.MonkeyPatch, _cache: Path) -> None:
    """Hide the user's settings and cache from the tests and their child processes.

    Only HARNESS_DATA_MIRROR is kept, for tests with real data files.
    """
    for name in ("HARNESS_RESULTS", "HARNESS_PLUGIN_TIMEOUT", "HARNESS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HARNESS_CACHE", str(_cache))
    monkeypatch.setenv("XDG_STATE_HOME", str(_cache / "state"))
    for name in ("no_proxy", "NO_PROXY"):  # test servers run on this machine
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow the test to load published data files from the directory ``HARNESS_DATA_MIRROR``; skip it otherwise."""
    if not Path(os.environ.get("HARNESS_DATA_MIRROR", ""), "CATALOG.json").is_file():
        pytest.skip("HARNESS_DATA_MIRROR is not a directory with published data files")
    monkeypatch.setenv("HARNESS_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def _signals_enabled() -> None:
    """Restore SIGINT and SIGQUIT, which a shell disables for background jobs, and which child processes inherit."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
