"""Tests of the description of the environment with the commit of the harness."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.execute import environment


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Git checkout from which `harness.execute.environment` seems to be imported."""
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "a"]):
        (tmp_path / "file.py").write_text("1")
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "harness" / "execute" / "environment.py"))
    return tmp_path


def test_commit_of_a_checkout_states_whether_files_changed(checkout: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True)
    assert environment.git_commit() == head.stdout.strip()
    assert environment.collect().git_commit == head.stdout.strip()
    (checkout / "new.py").touch()
    assert environment.git_commit() == head.stdout.strip()
    (checkout / "file.py").write_text("2")
    assert environment.git_commit() == head.stdout.strip() + "+dirty"


def test_commit_of_an_installed_package_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "harness" / "execute" / "environment.py"))
    assert environment.git_commit() is None


def test_commit_without_git_is_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert environment.git_commit() is None
