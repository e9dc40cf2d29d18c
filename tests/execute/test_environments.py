"""Tests of named environments: their creation, and runs that are executed in them.

The environments inherit the packages of this one, so that nothing is downloaded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import click.testing
import msgspec
import pytest
from command_line import Invoke
from small_packages import MODULE, PACKAGE, write_plugin, write_wheel
from toy_plugin import SET_FAST, TOY_REF

from harness.errors import HarnessError, UsageError
from harness.execute import environments as creation
from harness.plugins import environments, load
from harness.plugins.environments import DESCRIPTION, LOCK
from harness.records import Success
from harness.records.store import RECORD, Store

RUN = ("run", "--task", "toy-classify", "--backend", "tiny", "--threads", "1", *SET_FAST, "--quiet")
VERSIONS = {"one": "1.0", "two": "2.0"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with wheels of two versions of a small package."""
    folder = tmp_path_factory.mktemp("wheels")
    for version in VERSIONS.values():
        write_wheel(folder, version)
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[Path]:
    """Directory with the environments ``one`` and ``two``, which contain different versions of the package."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("environments")
        use(patch, root, wheels)
        for name, version in VERSIONS.items():
            creation.create(name, [f"{PACKAGE}=={version}"], inherit=True)
        yield root


def use(patch: pytest.MonkeyPatch, root: Path, wheels: Path) -> None:
    patch.setenv("HARNESS_ENVS", str(root))
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(wheels))


@pytest.fixture
def envs(shared: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use(monkeypatch, shared, wheels)
    return shared


@pytest.fixture
def own(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty directory for environments."""
    use(monkeypatch, tmp_path / "own", wheels)
    return tmp_path / "own"


@pytest.fixture
def tiny(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Return a function that runs a command with the toy plugins and the backend that needs the small package."""
    ref = write_plugin(tmp_path)
    monkeypatch.setattr("harness.plugins.discover", lambda *_: load([TOY_REF, ref]))
    return invoke


def succeeded(result: click.testing.Result) -> click.testing.Result:
    assert result.exit_code == 0, result.output
    return result


def test_run_in_two_environments_compares_two_versions_of_a_package(envs: Path, tiny: Invoke) -> None:
    table = succeeded(tiny(*RUN, "--env", "one,two", "--seed", "0,1")).stdout
    records = [run.record for run in Store(Path("results")).load().runs]
    assert [record.spec.env for record in records] == ["one", "two", "two", "one"]
    for record in records:
        assert isinstance(record.outcome, Success), record.outcome
        version = VERSIONS[record.spec.env]
        assert record.environment.packages[PACKAGE] == version
        assert record.provenance.notes["tiny"] == version
        assert record.environment.lock_digest == environments.load(record.spec.env).lock_digest
        lock = (Path("results") / record.run_id / LOCK).read_text()
        assert f"{PACKAGE}=={version}  # sha256:" in lock
        assert "numpy==" in lock
    assert "env=one" in table
    assert "env=two" in table
