"""Tests of faults in a Ray cluster: killed workers, raylets, nodes, supervisors and commands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import msgspec
import psutil
import pytest
from processes import gone
from ray_cluster import GATED, Log, Nodes, gated_specs, ray_catalog, ray_cluster, run_on
from toy_plugin import SET_FAST

import harness
from harness.api import carry_out
from harness.errors import UsageError
from harness.execute.runner import run_all
from harness.records import Failure, RunRecord, Success
from harness.records.store import Store

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = [pytest.mark.plugins("ray"), pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with ray_cluster(tmp_path_factory.mktemp("cluster"), 2) as nodes:
        yield nodes


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    """The cluster, with two nodes and a closed gate."""
    cluster.at_least(2)
    cluster.close_gate()
    return cluster


@contextmanager
def meanwhile(function: Callable[[], object]) -> Iterator[None]:
    """Call a function in another thread, and raise the exception that it raises."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        if raised:
            raise raised[0]


def stored(path: Path) -> list[RunRecord]:
    """Return the records, after checking that nothing else is left in the directory."""
    loaded = Store(path).load()
    assert loaded.problems == []
    assert [entry.name for entry in path.iterdir() if entry.name.startswith(".partial")] == []
    return [run.record for run in loaded.runs]


def assert_each_once(records: list[RunRecord], count: int) -> None:
    assert [type(record.outcome) for record in records] == [Success] * count
    assert Counter(record.spec.seed for record in records) == Counter(range(count))


def test_removal_of_two_nodes_repeats_their_runs_elsewhere(nodes: Nodes, tmp_path: Path) -> None:
    """A hundred runs on four nodes, two of which are removed after a quarter and a half of the runs."""
    nodes.at_least(4)
    nodes.open_gate()

    def remove(finished: int) -> None:
        if finished in (25, 50):
            nodes.remove(nodes.nodes[0])

    log = Log(remove)
    returned = run_on(nodes, gated_specs(ray_catalog(), "toy-numpy", 100), Store(tmp_path), log)
    assert_each_once(returned, 100)
    assert_each_once(stored(tmp_path), 100)
    assert len([text for text in log.messages if text.startswith("node ") and text.endswith("ended")]) == 2


def test_raylet_killed_alone_leaves_a_valid_result_with_a_note(nodes: Nodes, tmp_path: Path) -> None:
    def kill_raylet() -> None:
        (child,) = nodes.gated()
        worker = child.parent()
        os.kill(worker.ppid(), signal.SIGKILL)
        time.sleep(4)  # Ray has noticed the end of the raylet
        assert child.is_running()
        nodes.open_gate()

    log = Log()
    with meanwhile(kill_raylet):
        (record,) = run_on(nodes, gated_specs(ray_catalog()), Store(tmp_path), log)
    assert_each_once(stored(tmp_path), 1)
    assert log.started == [1], log.messages
    assert (
        record.provenance.notes["executor"] == "the node's raylet exited during the run, but the run was not affected"
    )


def test_late_result_of_a_silent_node_is_dropped(nodes: Nodes, tmp_path: Path) -> None:
    """The raylet, the worker and the run of one node are stopped, and continue when another node has been chosen."""
    stopped: list[psutil.Process] = []

    def stop() -> None:
        (child,) = nodes.gated()
        worker = child.parent()
        stopped.extend([psutil.Process(worker.ppid()), worker, child])
        for process in stopped:
            process.suspend()
        nodes.gated(known=[child])
        for process in reversed(stopped):
            process.resume()
        nodes.open_gate()

    log = Log()
    with meanwhile(stop):
        (record,) = run_on(nodes, gated_specs(ray_catalog()), Store(tmp_path), log, lost_after="8")
    assert stored(tmp_path) == [record]
    assert log.started == [1, 1]
    assert any("no report for 8 s" in text for text in log.messages)
    assert gone(stopped[2].pid, 30)


def test_supervisor_that_is_killed_continues(nodes: Nodes, tmp_path: Path) -> None:
    """Uncollected results of a submission are kept, and the run in progress is repeated."""
    carry_out_on(nodes, tmp_path, detach=True)
    first = nodes.gated(2)
    (supervisor,) = [one for one in psutil.process_iter(["name"]) if "Supervisor" in (one.info["name"] or "")]
    nodes.open_gate()
    wait_for(lambda: not any(child.is_running() for child in first))
    nodes.close_gate()
    running = nodes.gated(2)
    supervisor.kill()
    assert all(gone(child.pid, 20) for child in running)
    nodes.open_gate()
    assert_each_once(carry_out_on(nodes, tmp_path), 4)
    assert_each_once(stored(tmp_path), 4)


def test_command_that_is_killed_is_continued_by_another(nodes: Nodes, tmp_path: Path) -> None:
    """A detached plan is collected by a command that is killed, by ``harness status``, and by the same command."""
    command = harness_words(nodes, tmp_path)
    assert "4 runs submitted" in run_command(*command, "--detach").stderr
    first = nodes.gated(2)
    collecting = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert collecting.stderr is not None
    assert "waiting for 4 detached runs" in collecting.stderr.readline()
    collecting.kill()
    collecting.communicate()
    assert all(child.is_running() for child in first)
    status = run_command(*command[:3], "status", "--results", str(tmp_path)).stdout
    assert "running (detached)" in status
    assert "4 runs: 0 done, 2 running, 0 failed, 2 remaining" in status
    assert (
        "0 runs submitted to the executor ray; unfinished runs submitted earlier: 4"
        in run_command(*command, "--detach").stderr
    )
    nodes.open_gate()
    wait_for(lambda: "4 done" in run_command(*command[:3], "status", "--results", str(tmp_path)).stdout)
    records = stored(tmp_path)
    assert_each_once(records, 4)
    again = run_command(*command)
    assert again.stderr.count("skip: ") == 4
    assert stored(tmp_path) == records
    assert list((tmp_path / ".submitted").glob("*.json")) == []


def test_canceled_submission_ends_its_runs(nodes: Nodes, tmp_path: Path) -> None:
    command = harness_words(nodes, tmp_path)
    run_command(*command, "--detach")
    children = nodes.gated(2)
    shown = run_command(*command[:3], "status", "--results", str(tmp_path), "--cancel")
    assert "canceled 4 runs" in shown.stderr
    assert "interrupted" in shown.stdout
    assert all(gone(child.pid, 20) for child in children)
    assert stored(tmp_path) == []


def test_interrupted_command_ends_its_runs(nodes: Nodes, tmp_path: Path) -> None:
    process = subprocess.Popen(harness_words(nodes, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = nodes.gated(2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert all(gone(child.pid, 20) for child in children)
    assert [record.outcome.kind for record in stored(tmp_path) if isinstance(record.outcome, Failure)] == [
        "interrupted"
    ] * 2


def test_killed_command_without_detach_ends_its_runs(nodes: Nodes, tmp_path: Path) -> None:
    process = subprocess.Popen(harness_words(nodes, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = nodes.gated(2)
    process.kill()
    process.wait()
    assert all(gone(child.pid, 60) for child in children)


def test_nodes_that_share_a_device_execute_one_run_at_a_time(nodes: Nodes, tmp_path: Path) -> None:
    for node in list(nodes.nodes):
        nodes.remove(node)
    nodes.add(2, cache="shared")
    nodes.open_gate()
    returned = run_on(nodes, gated_specs(ray_catalog(), "toy-numpy", 4), Store(tmp_path), Log())
    assert_each_once(returned, 4)
    spans = sorted((datetime.fromisoformat(one.started_at), timedelta(seconds=one.wall_s)) for one in returned)
    for (start, length), (following, _) in pairwise(spans):  # the child process sets the start, after its own start
        assert following - start > 0.6 * length
    for node in list(nodes.nodes):
        nodes.remove(node)


def test_time_budget_starts_no_further_runs(nodes: Nodes, tmp_path: Path) -> None:
    nodes.open_gate()
    catalog = ray_catalog()
    executor = catalog.executor("ray", {"address": nodes.address})
    specs = gated_specs(catalog, "toy-numpy", 30)
    log = Log()
    returned = run_all(specs, catalog, Store(tmp_path), executor=executor, budget_s=1.0, listener=log)
    assert 1 <= len(returned) < 30
    assert len(stored(tmp_path)) == len(returned)


def test_node_with_other_code_is_an_error_before_the_first_run(nodes: Nodes, tmp_path: Path) -> None:
    other = nodes.folder / "other"
    shutil.copytree(Path(harness.__file__).parent, other / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "harness" / "errors.py").open("a") as file:
        file.write("# another version\n")
    nodes.add(PYTHONPATH=f"{other}:{os.environ['PYTHONPATH']}")
    try:
        with pytest.raises(UsageError, match=r"node .* cannot execute runs: the code of harness differs from that of"):
            carry_out_on(nodes, tmp_path / "results")
    finally:
        nodes.remove(nodes.nodes[-1])
    nodes.add(PYTHONPATH="")
    try:
        with pytest.raises(UsageError, match=r"cannot execute runs: the plugin 'toy' is not installed there; install"):
            carry_out_on(nodes, tmp_path / "results")
    finally:
        nodes.remove(nodes.nodes[-1])
    assert not (tmp_path / "results").exists()


def test_run_that_no_node_can_execute_is_an_error_before_the_first_run(nodes: Nodes, tmp_path: Path) -> None:
    (spec,) = gated_specs(ray_catalog())
    for change, message in [
        ({"threads": 2}, "pass at most --threads 1"),
        ({"device": "cuda"}, "add nodes with GPUs"),
        ({"device": "cuda:1"}, "replace --device cuda:1 with --device cuda"),
    ]:
        changed = msgspec.structs.replace(spec, **change)
        with pytest.raises(harness.PluginError, match=message):
            run_on(nodes, [changed], Store(tmp_path), Log())


def test_unreachable_cluster_is_an_error(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "harness",
        "run",
        "--plugin",
        str(GATED),
        "--task",
        "toy-regress",
        "--threads",
        "1",
    ]
    command += [
        "--backend",
        "toy-gated",
        "--executor",
        "ray",
        "--ray-address",
        "127.0.0.1:9",
        "--results",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the Ray cluster at '127.0.0.1:9' cannot be reached" in done.stderr


# ---- helpers ------------------------------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool], within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def harness_words(nodes: Nodes, results: Path) -> list[str]:
    words = [sys.executable, "-m", "harness", "run", "--plugin", str(GATED), "--task", "toy-regress"]
    words += ["--backend", "toy-gated", "--seed", "0,1,2,3", "--threads", "1", *SET_FAST, "--set", "recipe.epochs=1"]
    return [*words, "--executor", "ray", "--ray-address", nodes.address, "--results", str(results)]


def run_command(*words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done


def carry_out_on(nodes: Nodes, results: Path, *, detach: bool = False) -> list[RunRecord]:
    """Execute, or submit, four gated runs as a command does."""
    catalog = ray_catalog()
    options = {"address": nodes.address}
    specs = gated_specs(catalog, seeds=4)
    return list(
        carry_out(specs, catalog, Store(results), executor="ray", executor_options=options, detach=detach, rerun=False)
    )
