"""Tests of the supervisor and of the directories of attempts, without a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from sample_records import record
from toy_runs import toy_specs

import harness
from harness import Environment, Failure, Machine, PlannedRun
from harness.plugins.catalog import Catalog

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.plugins("ray")


def machine(environment: Environment) -> Machine:
    return Machine(environment=environment, harness_digest="", plugin_digests={})


Start = Callable[..., Any]


@pytest.fixture
def start(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Function that returns a supervisor of two runs on nodes with the given environments. Its thread is not started,
    and its tasks are never executed."""
    import ray
    from harness_ray.placement import Node
    from harness_ray.supervisor import Supervisor

    task = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *_: object()))
    context = SimpleNamespace(current_actor=None, gcs_address="10.0.0.1:6379")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr("harness_ray.cluster.supervisors", lambda: ["run-1"])
    monkeypatch.setattr(ray, "remote", lambda _: task)
    monkeypatch.setattr("harness_ray.supervisor.threading.Thread", lambda **_: SimpleNamespace(start=lambda: None))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    specs = toy_specs(catalog, seeds=(0, 1), threads=1, devices=("cpu",))
    runs = [
        PlannedRun(index=index, total=2, spec=spec, plugins=(), packages=(), timeout_s=60)
        for index, spec in enumerate(specs, start=1)
    ]

    def started(
        *environments: Environment, name: str = "run-0", node_timeout_s: float = 300, active: bool = True
    ) -> Supervisor:
        nodes = [Node(f"{n + 1:056x}", f"10.0.0.{n}", 1.0, 0.0, machine(each)) for n, each in enumerate(environments)]
        here = machine(record().environment)
        return Supervisor(name, runs, here, nodes, 60, node_timeout_s, active=active)

    return started


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every write below a directory of a supervisor fail."""

    def full(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(28, os.strerror(28))

    for method in ("mkdir", "write_bytes", "touch", "open"):
        monkeypatch.setattr(Path, method, full)


def step(supervisor: Any, count: int = 1) -> None:
    """Start the runs that can be started, `count` times."""
    for _ in range(count):
        with supervisor._changed:
            supervisor._start_runs()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Function that advances the supervisor's clock by a number of seconds."""
    now = [1000.0]
    monkeypatch.setattr("harness_ray.supervisor.time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None))

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def check_signs_of_life(supervisor: Any) -> None:
    with supervisor._changed:
        supervisor._check_signs_of_life()


def attempt_nodes(supervisor: Any) -> list[int]:
    """Return the number of the node of each attempt, counted from 1."""
    return [int(one.node, 16) for one in supervisor._attempts.values()]


def failures(supervisor: Any) -> list[Failure]:
    """Return the failures that a command collects."""
    from harness_ray.node import RESULT

    news = supervisor.news({}, 0, [], 0.0)
    found = [supervisor.read(each.attempt, RESULT, 0, 10_000) for each in news.updates if each.files is not None]
    return [msgspec.json.decode(content, type=Failure) for content in found]


def test_runs_without_a_node_fail_although_the_disk_is_full(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = start(node_timeout_s=0)
    fill_disk(monkeypatch)
    step(supervisor, 2)
    assert [(failure.kind, failure.phase) for failure in failures(supervisor)] == [("crash", "executor")] * 2
    news = supervisor.news({}, 0, [], 0.0)
    assert (news.running, news.waiting) == ([], [])
    supervisor.news({}, 0, [each.attempt for each in news.updates], 0.0)
    assert supervisor._attempts == {}


def test_result_that_does_not_fit_on_the_disk_fails_the_run(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = start(record().environment)
    step(supervisor)
    (attempt,) = supervisor._attempts
    fill_disk(monkeypatch)
    assert supervisor.put(attempt, "arrays.npz", 0, b"content") is False
    (failure,) = failures(supervisor)
    place = f"{tmp_path}/harness-ray-spool-10.0.0.1-6379-run-0 on the head node"
    assert failure.message == f"{place}: the files of the run cannot be stored: No space left on device"
    assert failure.phase == "executor"
    assert supervisor.put(attempt, "arrays.npz", 0, b"content") is False
    assert len(failures(supervisor)) == 1


def test_run_whose_attempts_are_all_lost_fails_because_of_the_executor(start: Start) -> None:
    from harness_ray.supervisor import MAX_ATTEMPTS

    supervisor = start(record().environment)
    for _ in range(MAX_ATTEMPTS):
        step(supervisor)
        (attempt,) = (key for key, one in supervisor._attempts.items() if one.files is None)
        with supervisor._changed:
            supervisor._lost(attempt, "the node ended")
    (failure,) = failures(supervisor)
    assert (failure.kind, failure.phase) == ("crash", "executor")


@pytest.mark.parametrize("error", ["TaskUnschedulableError", "NodeDiedError"])
def test_no_run_is_started_on_a_node_that_has_ended(start: Start, monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    """The list of live nodes is up to two seconds old, so that all attempts of all runs could be lost."""
    import ray

    supervisor = start(record().environment)
    (node,) = supervisor._nodes
    facts = {"NodeID": node, "NodeManagerAddress": "10.0.0.0", "Resources": {"CPU": 1.0}, "Alive": True}
    supervisor._living = {node: facts}

    def get(_: object) -> None:
        raise getattr(ray.exceptions, error)("the node ended")

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", lambda tasks, **_: (tasks, []))
    step(supervisor)
    supervisor._step()
    for _ in range(5):
        supervisor._update_nodes()
        step(supervisor)
    assert (supervisor._attempts, supervisor._nodes) == ({}, {})
    assert sorted(run.index for run in supervisor._waiting) == [1, 2]
    assert [len(losses) for losses in supervisor._losses.values()] == [1] * (error == "NodeDiedError")
    assert supervisor.news({}, 0, [], 0.0).messages[-1] == "node 10.0.0.0 ended"


def test_report_of_a_pruned_attempt_returns_true_for_this_attempt_alone(start: Start) -> None:
    supervisor = start(record().environment, record().environment)
    step(supervisor)
    one, other = supervisor._attempts
    assert supervisor.report(one, 0, [b"{}"]) is False
    supervisor.prune(one)
    assert [supervisor.report(attempt, 1, []) for attempt in (one, other, "lost")] == [True, False, False]
    supervisor.prune("lost")


def test_attempt_is_lost_when_it_stops_reporting(start: Start, clock: Callable[[float], None]) -> None:
    supervisor = start(record().environment)
    step(supervisor)
    (attempt,) = supervisor._attempts
    supervisor.report(attempt, 0, [])
    for _ in range(6):
        clock(10)
        check_signs_of_life(supervisor)
    assert list(supervisor._attempts) == [attempt]
    clock(10)
    check_signs_of_life(supervisor)
    assert supervisor._attempts == {}
    assert "no report for 60 s" in supervisor.news({}, 0, [], 0.0).messages[0]


def test_attempts_are_kept_when_the_supervisor_was_suspended(start: Start, clock: Callable[[float], None]) -> None:
    supervisor = start(record().environment, record().environment)
    step(supervisor)
    attempts = list(supervisor._attempts)
    for attempt in attempts:
        supervisor.report(attempt, 0, [])
    clock(10_000)
    check_signs_of_life(supervisor)
    assert list(supervisor._attempts) == attempts
    assert supervisor.news({}, 0, [], 0.0).messages == []


def test_attempt_that_does_not_start_is_moved_to_a_free_node(start: Start, clock: Callable[[float], None]) -> None:
    """The CPUs of a node may be used by another command. The attempt is not lost, because it never started."""
    supervisor = start(*[record().environment] * 3)
    step(supervisor)
    first = attempt_nodes(supervisor)
    assert len(set(first)) == 2
    started, waiting = supervisor._attempts
    supervisor.report(started, 0, [])
    for _ in range(7):
        clock(10)
        check_signs_of_life(supervisor)
        supervisor.report(started, 0, [])
    assert started in supervisor._attempts
    assert waiting not in supervisor._attempts
    assert attempt_nodes(supervisor) == [first[0], ({1, 2, 3} - set(first)).pop()]
    assert (supervisor._losses, supervisor.news({}, 0, [], 0.0).messages) == ({}, [])


def test_attempt_that_has_not_started_is_reported_as_waiting(start: Start) -> None:
    supervisor = start(record().environment)
    step(supervisor)
    (attempt,) = supervisor._attempts
    news = supervisor.news({}, 0, [], 0.0)
    assert (news.updates, news.running, sorted(news.waiting)) == ([], [], [1, 2])
    supervisor.report(attempt, 0, [])
    news = supervisor.news({}, 0, [], 0.0)
    assert [each.attempt for each in news.updates] == [attempt]
    assert len(news.running) == len(news.waiting) == 1


def test_attempt_that_does_not_start_waits_if_no_node_is_free(start: Start, clock: Callable[[float], None]) -> None:
    supervisor = start(record().environment)
    step(supervisor)
    attempts = list(supervisor._attempts)
    for _ in range(20):
        clock(10)
        check_signs_of_life(supervisor)
    assert list(supervisor._attempts) == attempts


def test_new_node_that_does_not_start_a_process_is_refused(
    start: Start, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, the choice of the class of machine would wait for this node forever."""
    import ray
    from harness_ray import cluster

    supervisor = start()
    facts = {"NodeID": "f" * 56, "NodeManagerAddress": "10.0.0.9", "Resources": {"CPU": 1.0}, "Alive": True}

    def get(_: object, timeout: float) -> Any:
        raise ray.exceptions.GetTimeoutError(str(timeout))

    supervisor._living = {facts["NodeID"]: facts}
    monkeypatch.setattr(cluster, "begin_description", lambda *_: object())
    monkeypatch.setattr(ray, "wait", lambda tasks, **_: ([], tasks))
    monkeypatch.setattr(ray, "get", get)
    supervisor._update_nodes()
    clock(cluster.DESCRIBE_S - 1)
    supervisor._update_nodes()
    assert supervisor.news({}, 0, [], 0.0).messages == []
    clock(1)
    supervisor._update_nodes()
    expected = f"node 10.0.0.9 ({'f' * 8}) did not start a process within 120 s"
    assert supervisor.news({}, 0, [], 0.0).messages == [expected]
    supervisor._update_nodes()
    assert supervisor._describing == {}


def test_failure_is_kept_when_the_supervisor_is_restarted(start: Start) -> None:
    supervisor = start(node_timeout_s=0)
    step(supervisor, 2)
    before = failures(supervisor)
    assert len(before) == 2
    assert failures(start()) == before


def test_directories_of_supervisors_that_do_not_exist_are_removed(start: Start, tmp_path: Path) -> None:
    """The supervisor of a killed command does not remove its directory."""
    kept = [tmp_path / f"harness-ray-spool-{name}" for name in ("10.0.0.1-6379-run-1", "10.0.0.2-6379-run-2")]
    orphan = tmp_path / "harness-ray-spool-10.0.0.1-6379-run-2"
    for path in (*kept, orphan):
        path.mkdir()
        (path / "file").touch()
    start()
    assert [path.name for path in kept if (path / "file").exists()] == [path.name for path in kept]
    assert (tmp_path / "harness-ray-spool-10.0.0.1-6379-run-0").is_dir()
    assert not orphan.exists()


def test_directory_of_a_submission_is_kept_for_days_after_its_supervisor_has_ended(
    start: Start, tmp_path: Path
) -> None:
    from harness_ray.spool import KEPT_S

    new, old = (tmp_path / f"harness-ray-spool-10.0.0.1-6379-submission-{name}" for name in ("new", "old"))
    for path in (new, old):
        path.mkdir()
    os.utime(old, (0, time.time() - KEPT_S - 1))
    os.utime(new, (0, time.time() - KEPT_S + 60))
    start()
    assert (new.exists(), old.exists()) == (True, False)


def test_supervisor_that_is_not_active_only_returns_the_results_that_another_has_left(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_ray.node import RESULT

    threads: list[str] = []
    first = start(record().environment, name="submission-0")
    step(first)
    (attempt,) = first._attempts
    assert first.put(attempt, RESULT, 0, b"{}")
    with first._changed:
        first._finish(attempt, first._attempts[attempt])
    monkeypatch.setattr("harness_ray.supervisor.threading.Thread", lambda name, **_: threads.append(name))
    second = start(name="submission-0", active=False)
    news = second.news({}, 0, [], 0.0)
    (update,) = news.updates
    assert (update.attempt, update.files) == (attempt, {RESULT: 2})
    assert second.read(attempt, RESULT, 0, 10) == b"{}"
    assert news.waiting == [3 - update.index]
    assert threads == []


def test_finished_run_is_collected_while_the_head_node_does_not_answer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The query of the nodes would wait until Ray terminates the supervisor."""
    import ray
    from harness_ray import cluster
    from harness_ray.node import RESULT

    def wait_forever() -> None:
        raise AssertionError("the nodes are queried in the thread that collects results")

    monkeypatch.setattr(cluster, "living_nodes", wait_forever)
    monkeypatch.setattr(ray, "wait", lambda tasks, **_: (tasks, []))
    monkeypatch.setattr(ray, "get", lambda _: True)
    supervisor = start(record().environment)
    step(supervisor)
    (attempt,) = supervisor._attempts
    assert supervisor.put(attempt, RESULT, 0, b"{}")
    supervisor._step()
    assert supervisor._attempts[attempt].files == {RESULT: 2}


def test_run_whose_files_were_removed_from_the_head_node_is_repeated(start: Start, tmp_path: Path) -> None:
    """Programs such as systemd-tmpfiles remove old files from the directory of temporary files."""
    from harness_ray.node import RESULT

    supervisor = start(record().environment, record().environment)
    step(supervisor)
    first, second = supervisor._attempts
    for attempt in (first, second):
        assert supervisor.put(attempt, RESULT, 0, b"{}")
    with supervisor._changed:
        supervisor._finish(first, supervisor._attempts[first])
    shutil.rmtree(tmp_path / "harness-ray-spool-10.0.0.1-6379-run-0")
    with supervisor._changed:
        supervisor._finish(second, supervisor._attempts[second])
    assert [run.index for run in supervisor._waiting] == [2]
    assert supervisor.read(first, RESULT, 0, 10) is None
    assert sorted(run.index for run in supervisor._waiting) == [1, 2]
    news = supervisor.news({}, 0, [], 0.0)
    assert (news.updates, sorted(news.waiting)) == ([], [1, 2])
    assert ["removed from the head node" in text for text in news.messages] == [True, False]
    assert supervisor.read("unknown", RESULT, 0, 10) is None


def test_result_without_a_record_is_not_kept_when_the_supervisor_is_restarted(start: Start, tmp_path: Path) -> None:
    first = start(record().environment)
    step(first)
    (attempt,) = first._attempts
    (tmp_path / "harness-ray-spool-10.0.0.1-6379-run-0" / f"finished-{attempt}").mkdir()
    second = start(record().environment)
    assert second._attempts == {}
    assert [run.index for run in second._waiting] == [1, 2]


def test_result_that_cannot_be_written_to_the_results_directory_is_an_error_with_its_path(tmp_path: Path) -> None:
    from harness_ray import driver
    from harness_ray.attempts import Update

    file = tmp_path / "file"
    file.touch()
    update = Update("1-a", 1, [], {"log.txt": 0, driver.RESULT: 2})
    with pytest.raises(harness.UsageError, match=f"^{tmp_path}: cannot be written: File exists; make it writable or"):
        driver._fetch(None, update, file)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device: '{}'"),
        (OSError(2, "No such file or directory", "a"), "[Errno 2] No such file or directory: 'a'"),
        (TimeoutError("no answer"), "no answer"),
    ],
)
def test_error_on_a_node_names_the_path(
    error: OSError, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_ray import node

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(node, "_execute", fail)
    run: Any = None
    with pytest.raises(type(error)) as raised:
        node.execute(run, "1-a", None, 1.0)
    assert str(raised.value) == expected.format(tmp_path)


def test_command_asks_again_for_a_run_whose_files_are_lost(monkeypatch: pytest.MonkeyPatch, catalog: Catalog) -> None:
    """Otherwise, a submission would be removed as finished although one of its runs is repeated."""
    from harness_ray import driver
    from harness_ray.attempts import News, Update

    (spec,) = toy_specs(catalog)
    run = PlannedRun(index=1, total=1, spec=spec, plugins=(), packages=(), timeout_s=60)
    content = msgspec.json.encode(Failure(kind="error", message="no"))
    answers = {"1-a": None, "1-b": content}
    pending = [
        News([Update("1-a", 1, [], {driver.RESULT: len(content)})], [], [], []),
        News([Update("1-b", 1, [], {driver.RESULT: len(content)})], [], [], []),
        News([], [], [], []),
    ]
    supervisor = SimpleNamespace(
        news=SimpleNamespace(remote=lambda *_: pending.pop(0)),
        read=SimpleNamespace(remote=lambda attempt, *_: answers[attempt]),
    )
    monkeypatch.setattr(driver, "_call", lambda answer: answer)
    finished: list[object] = []
    coordinator: Any = SimpleNamespace(
        start=lambda run: SimpleNamespace(id=run.index, directory=None),
        finish=lambda _, result: finished.append(result),
    )
    state = driver.follow(supervisor, [run], coordinator, wait=False, detached=True)
    assert state.finished
    assert finished == [Failure(kind="error", message="no")]
    assert pending == []


def test_class_of_a_group_is_kept_when_the_supervisor_is_restarted(start: Start) -> None:
    """The second process sees another class with more nodes."""
    one = record().environment
    other = msgspec.structs.replace(one, packages={**one.packages, "numpy": "0.1"})
    first = start(one, one, other)
    step(first)
    assert list(first._classes.values()) == [one]
    expected = f"runs on toy-numbers, because the class of machine differs: numpy {one.packages['numpy']} -> 0.1"
    assert first.news({}, 0, [], 0.0).messages == [f"1 node does not execute the {expected}"]
    second = start(one, other, other, other)
    assert second._classes == first._classes
    step(second)
    assert {int(running.node, 16) for running in second._attempts.values()} == {1}


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [("cuda", ["3"], ("cuda:3",)), ("auto", ["3"], ("cpu",)), ("auto", [], ("cpu",)), ("cpu", [], ("cpu",))],
)
def test_run_that_may_use_the_cpu_locks_out_all_other_runs(
    device: str, gpus: list[str], expected: tuple[str, ...], catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other commands may have submitted runs to the same node."""
    import ray
    from harness_ray.node import devices

    context = SimpleNamespace(get_accelerator_ids=lambda: {"GPU": gpus})
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    spec = msgspec.structs.replace(toy_specs(catalog)[0], device=device)
    assert devices(spec) == expected


def test_directories_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, sys, time, harness_ray.node as node\nwith node.scratch() as folder:\n"
    code += "    open(os.path.join(folder, 'file'), 'w').close()\n    print(folder, flush=True)\n    time.sleep(60)"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, alive = (Path(process.stdout.readline().strip()) for process in processes if process.stdout)
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        (tmp_path / "harness-ray-spool-0").mkdir()
        (tmp_path / "harness-ray-attempt-link").symlink_to(tmp_path / "harness-ray-spool-0")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        from harness_ray.node import scratch

        with scratch() as own:
            assert not killed.exists()
            assert (alive / "file").exists()
            assert Path(own).is_dir()
        assert not Path(own).exists()
        assert (tmp_path / "harness-ray-spool-0").is_dir()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
