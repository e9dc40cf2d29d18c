"""Test that a suite whose process is killed at random moments is completed by the same command."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from command_line import MAIN
from processes import gone
from toy_plugin import FAST

from harness.measure.cgroup import available_cores
from harness.plan import suite
from harness.plan.expand import expand_all
from harness.plugins.catalog import Catalog
from harness.records import Success
from harness.records.store import Store

MARK = "HARNESS_TEST_KILLED_SUITE"
"""Environment variable by which the descendants of the killed processes are found."""


def write(folder: Path, seeds: int) -> Path:
    """Write a suite with four quick runs for each seed."""
    path = folder / "suite.toml"
    lines = [
        "threads = 1",
        "[[run]]",
        'task = ["toy-classify", "toy-regress"]',
        'backend = "toy-numpy"',
        f"seed = {list(range(seeds))}",
        f"set = {{ {', '.join(FAST)}, recipe.epochs = 1 }}",
        "matrix = { recipe.batch_size = [16, 32] }",
    ]
    path.write_text("\n".join(lines))
    return path


def descendants(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("seeds", "kills", "jobs"),
    [
        (1, 3, 1),
        pytest.param(10, 20, 1, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
        pytest.param(10, 20, 2, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
    ids=["4 runs", "40 runs", "40 runs, two at a time"],
)
def test_killed_suite_is_completed_by_the_same_command(
    seeds: int, kills: int, jobs: int, toy: Path, tmp_path: Path, catalog: Catalog
) -> None:
    if available_cores() < jobs:
        pytest.skip(f"needs {jobs} cores")
    path = write(tmp_path, seeds)
    command = [*MAIN, "run", "--suite", str(path), "--results", "results", "--quiet", "--jobs", str(jobs)]
    environment = {**os.environ, MARK: str(tmp_path)}
    moments = random.Random(20)
    for number in range(kills):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # The first moment lies before the first run, and others during and between runs.
        end = time.monotonic() + (moments.uniform(0, 1) if number == 0 else moments.uniform(1, 6))
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert all(gone(each.pid, 10) for each in descendants(str(tmp_path)))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    assert descendants(str(tmp_path)) == []
    store = Store(tmp_path / "results")
    loaded = store.load()
    assert loaded.problems == []
    assert all(isinstance(run.record.outcome, Success) for run in loaded.runs)
    planned = Counter(spec.key for spec in expand_all(suite.load(path).selections, catalog))
    assert len(planned) == 4 * seeds
    assert Counter(run.record.request_key for run in loaded.runs) == planned
    names = {run.path.name for run in loaded.runs}
    assert {entry.name for entry in store.path.iterdir()} == {*names, ".plans"}
