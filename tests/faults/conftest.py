"""Runs of toy backends that fail on purpose, and the command line with the toy plugins only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from toy_plugin import FAST, SET_FAST, TOY, environment_with

from harness.execute.runner import run_all
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.records import RunRecord
from harness.records.store import Store

BUILT_IN = "baselines,nlp,ray,regression,speech,tensorflow,torch,vision"


class Runs:
    """Results of toy runs below a temporary directory."""

    def __init__(self, catalog: Catalog, folder: Path) -> None:
        self.catalog, self.folder, self.results = catalog, folder, folder / "results"

    def __call__(self, *backends: str, timeout_s: float = 60, **settings: Any) -> list[RunRecord]:
        """Run the backends one after another, and return their records."""
        selections = [
            Selection(tasks=("toy-regress",), backends=(name,), overrides=FAST, threads=1) for name in backends
        ]
        specs = [spec for selection in selections for spec in expand(selection, self.catalog)]
        return run_all(specs, self.catalog, Store(self.results), timeout_s=timeout_s, **settings)

    def stored(self, results: Path | None = None) -> list[RunRecord]:
        loaded = Store(results or self.results).load()
        assert loaded.problems == []
        return [run.record for run in loaded.runs]


@pytest.fixture
def runs(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Runs in a temporary directory. Runs that cannot be saved there are saved in its subdirectory ``tmp``."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TOY_PID_FILE", str(tmp_path / "pids"))
    return Runs(catalog, tmp_path)


@pytest.fixture
def small_disk(runs: Runs) -> Iterator[Callable[[int], None]]:
    """Return a function that mounts a file system with this number of KiB as the results directory."""
    runs.results.mkdir()

    def mount(size: int) -> None:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(runs.results)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("file systems cannot be mounted here")

    yield mount
    while subprocess.run(["umount", "-l", str(runs.results)], check=False, capture_output=True).returncode == 0:
        pass


class CommandLine:
    """Starts ``harness`` in a new process, in an empty directory, with the toy plugins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = environment_with(
            TOY,
            HARNESS_DISABLE_PLUGINS=BUILT_IN,
            TOY_PID_FILE=str(folder / "pids"),
            COLUMNS="100",
            TMPDIR=str(folder),
        )
        self.started: list[psutil.Popen] = []

    def run_words(self, *backends: str) -> list[str]:
        chosen = ["--task", "toy-regress", "--backend", ",".join(backends), "--threads", "1"]
        return [sys.executable, "-m", "harness", "run", *chosen, *SET_FAST]

    def start(self, *words: str, **options: Any) -> psutil.Popen:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        process = psutil.Popen(words, cwd=self.folder, env=self.environment, **options)
        self.started.append(process)
        return process

    def shell(self, command: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command of bash, in which ``$RUN`` and ``$HARNESS`` stand for the command line."""
        environment = {
            **self.environment,
            "RUN": " ".join(self.run_words("toy-numpy")),
            "HARNESS": f"{sys.executable} -m harness",
        }
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def stored(self) -> list[RunRecord]:
        loaded = Store(self.folder / "results").load()
        assert loaded.problems == []
        return [run.record for run in loaded.runs]

    def partial(self) -> list[str]:
        return [path.name for path in (self.folder / "results").glob(".partial-*")]


@pytest.fixture
def command_line(tmp_path: Path) -> Iterator[CommandLine]:
    made = CommandLine(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_for(condition: Callable[[], Any], within_s: float = 60) -> None:
    """Wait until the condition holds."""
    import time

    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


def pids(path: Path) -> list[int]:
    """Wait for the file to which a backend writes process IDs, and return them."""
    wait_for(lambda: path.exists() and path.read_text())
    return [int(pid) for pid in path.read_text().split()]


def is_root() -> bool:
    return os.geteuid() == 0
