"""Tests of the loss of the head node. Each test starts its own cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import gone
from ray_cluster import GATED, Nodes, ray_cluster
from toy_plugin import SET_FAST

from harness.records import Success
from harness.records.store import Store

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = [pytest.mark.plugins("ray"), pytest.mark.slow, pytest.mark.timeout(600)]

HARNESS = [sys.executable, "-m", "harness"]


def words(nodes: Nodes, results: Path) -> list[str]:
    selected = ["run", "--plugin", str(GATED), "--task", "toy-regress", "--backend", "toy-gated", "--seed", "0,1,2"]
    settings = ["--threads", "1", *SET_FAST, "--set", "recipe.epochs=1", "--results", str(results)]
    return [*HARNESS, *selected, *settings, "--executor", "ray", "--ray-address", nodes.address]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


def successful_seeds(results: Path) -> list[int]:
    """Return the seeds of the successful runs."""
    runs = Store(results).load().runs
    return sorted(run.record.spec.seed for run in runs if isinstance(run.record.outcome, Success))


def test_command_ends_with_an_error_if_the_head_node_is_lost(tmp_path: Path) -> None:
    results = tmp_path / "results"
    with ray_cluster(tmp_path / "first", 1) as nodes:
        environment = {**os.environ, "RAY_gcs_rpc_server_reconnect_timeout_s": "30"}
        process = subprocess.Popen(words(nodes, results), stderr=subprocess.PIPE, text=True, env=environment)
        (child,) = nodes.gated()
        os.kill(nodes.cluster.head_node.all_processes["gcs_server"][0].process.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        _, errors = process.communicate(timeout=120)
        assert time.monotonic() - killed_at < 60
        assert process.returncode == 2
        assert f"the head node of the Ray cluster at '{nodes.address}' has not accepted connections for" in errors
        assert "start the cluster again, and repeat the command" in errors
    assert gone(child.pid, 60)
    assert successful_seeds(results) == []


def test_submission_is_continued_after_a_restart_of_the_head_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results that have not been collected are stored. Only the other runs are executed."""
    results, spool = tmp_path / "results", tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setenv("TMPDIR", str(spool))
    monkeypatch.setenv("RAY_TMPDIR", tempfile.gettempdir())  # the paths of sockets must be short
    with ray_cluster(tmp_path / "first", 2) as nodes:
        assert command(*words(nodes, results), "--detach").returncode == 0
        nodes.gated(2)
        nodes.open_gate()
        wait_for(lambda: len(list(spool.glob("harness-ray-spool-*/finished-*"))) >= 2)
        nodes.close_gate()
        finished = {path.name for path in spool.glob("harness-ray-spool-*/finished-*")}
        port = int(nodes.address.rpartition(":")[2])
    with ray_cluster(tmp_path / "second", 1, port=port) as nodes:
        shown = command(*HARNESS, "status", "--results", str(results))
        assert f"Saved {len(finished)} runs" in shown.stderr
        assert successful_seeds(results) == sorted(int(name.split("-")[1]) - 1 for name in finished)
        nodes.open_gate()
        again = command(*words(nodes, results))
        assert again.returncode == 0, again.stderr
        assert again.stderr.count("skip: ") == len(finished)
    assert successful_seeds(results) == [0, 1, 2]


def wait_for(condition: Callable[[], bool], within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
