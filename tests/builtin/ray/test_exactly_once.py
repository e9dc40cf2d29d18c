"""A simulation of a supervisor, the tasks and the commands with random faults, without a cluster."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_records import record
from toy_runs import toy_specs

from harness import Failure, Machine, PlannedRun
from harness.plugins.catalog import Catalog

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.plugins("ray")

RUNS = 2
NODES = 2
PARTS = 3
"""Number of messages from a task: a report and two parts of the result."""


@dataclass(frozen=True)
class Task:
    """A reference to the result of a Ray task."""

    attempt: str


class KilledError(Exception):
    """Exception that represents the end of a killed command."""


class Simulation:
    """A cluster whose processes advance only when a method is called.

    The result of a task contains the id of the attempt. The files are sent in two parts.
    """

    def __init__(self, runs: list[PlannedRun], folder: Path, patch: pytest.MonkeyPatch) -> None:
        import ray

        self.runs, self.folder = runs, folder
        self.sent: dict[str, int] = {}
        """Number of parts that each attempt has sent."""
        self.ended: set[str] = set()
        """Attempts whose tasks have returned."""
        self.lost: set[str] = set()
        """Attempts that were lost before their tasks returned."""
        self.finished: set[int] = set()
        """Runs whose results are in the spool directory or have been stored."""
        self.repeated: set[int] = set()
        """Runs that were started although they were finished."""
        self.stored: dict[int, list[tuple[str, str]]] = {}
        """Attempts and messages of the stored results, by run number."""
        self.kill_after = -1
        """Number of results after which the command is killed, or -1."""
        context = SimpleNamespace(current_actor=None, gcs_address="10.0.0.1:6379")
        patch.setattr(ray, "get_runtime_context", lambda: context)
        patch.setattr("harness_ray.cluster.supervisors", list)
        patch.setattr(ray, "remote", lambda _: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._task)))
        patch.setattr(ray, "get", lambda task: task.attempt in self.ended)
        patch.setattr("harness_ray.supervisor.threading.Thread", lambda **_: SimpleNamespace(start=lambda: None))
        patch.setattr("harness_ray.driver._call", lambda answer: answer)
        patch.setattr("tempfile.tempdir", str(folder))
        self.supervisor: Any = None
        self.start_supervisor()

    def _task(self, run: PlannedRun, attempt: str, *_: object) -> Task:
        self.sent[attempt] = 0
        if run.index in self.finished:
            self.repeated.add(run.index)
        return Task(attempt)

    def start_supervisor(self) -> None:
        """Start the supervisor, or replace it after it was killed."""
        from harness_ray.placement import Node
        from harness_ray.supervisor import Supervisor

        machine = Machine(environment=record().environment, harness_digest="", plugin_digests={})
        if self.supervisor is not None:
            self.lost |= {attempt for attempt, one in self.supervisor._attempts.items() if one.files is None}
        nodes = [Node(f"{n:056x}", f"10.0.0.{n}", 1.0, 0.0, machine) for n in range(NODES)]
        self.supervisor = Supervisor("submission-0", self.runs, machine, nodes, 60, 300)

    def start_runs(self) -> None:
        with self.supervisor._changed:
            self.supervisor._start_runs()

    def send(self, attempt: str) -> None:
        """Send the next part of a result, even if the attempt has been lost in the meantime."""
        from harness_ray.node import RESULT

        content = msgspec.json.encode(Failure(kind="error", message=attempt))
        half, part = len(content) // 2, self.sent[attempt]
        if part == 0:
            self.supervisor.report(attempt, 0, [])
        elif part < PARTS:
            first = part == 1
            self.supervisor.put(attempt, RESULT, 0 if first else half, content[:half] if first else content[half:])
        self.sent[attempt] = part + 1

    def execute(self) -> None:
        """Send all results that have not been sent, and return from the tasks."""
        for attempt, parts in self.sent.items():
            for _ in range(parts, PARTS):
                self.send(attempt)
        self.ended |= set(self.sent)
        for task in [task for task in self.supervisor._tasks if task.attempt in self.ended]:
            self.supervisor._task_ended(task)
            one = self.supervisor._attempts.get(task.attempt)
            if one is not None and one.files is not None:
                self.finished.add(one.run.index)

    def lose(self, attempt: str) -> None:
        with self.supervisor._changed:
            one = self.supervisor._attempts.get(attempt)
            if one is not None and one.files is None:
                self.supervisor._lost(attempt, "the node ended")
                self.lost.add(attempt)

    def remove_files(self) -> None:
        for path in self.folder.glob("harness-ray-spool-*"):
            shutil.rmtree(path)
        self.finished.clear()

    def collect(self) -> bool:
        """Execute a command that stores the available results, and return whether all runs are finished."""
        from harness_ray.driver import follow

        proxy: Any = SimpleNamespace(
            news=SimpleNamespace(remote=self.supervisor.news), read=SimpleNamespace(remote=self.supervisor.read)
        )
        left = self.kill_after

        def finish(attempt: str, result: Failure) -> None:
            nonlocal left
            index = int(attempt)
            if index not in self.stored:  # the coordinator does not store the result of a run twice
                self.stored.setdefault(index, []).append((attempt, result.message))
            left -= 1
            if left == 0:
                raise KilledError

        coordinator: Any = SimpleNamespace(
            start=lambda run: SimpleNamespace(id=str(run.index), directory=self.folder),
            finish=finish,
            message=lambda _: None,
        )
        try:
            return follow(proxy, self.runs, coordinator, wait=False, detached=True).finished
        except KilledError:
            return False

    def finish(self) -> None:
        """Advance without faults until a command reports that all runs are finished."""
        self.kill_after = -1
        for _ in range(100):
            if self.collect():
                return
            self.start_runs()
            self.execute()
        raise AssertionError("the runs do not finish")


def kill_supervisor(simulation: Simulation, _: random.Random) -> None:
    simulation.start_supervisor()


def kill_command(simulation: Simulation, chance: random.Random) -> None:
    simulation.kill_after = chance.randint(1, RUNS)
    simulation.collect()


def lose_attempt(simulation: Simulation, chance: random.Random) -> None:
    if simulation.sent:
        simulation.lose(chance.choice(list(simulation.sent)))


def send_part(simulation: Simulation, chance: random.Random) -> None:
    if simulation.sent:
        simulation.send(chance.choice(list(simulation.sent)))


ACTIONS: dict[str, Callable[[Simulation, random.Random], object]] = {
    "start runs": lambda simulation, _: simulation.start_runs(),
    "send part": send_part,
    "execute": lambda simulation, _: simulation.execute(),
    "collect": lambda simulation, _: simulation.collect(),
    "kill the command": kill_command,
    "kill the supervisor": kill_supervisor,
    "lose an attempt": lose_attempt,
    "remove the files": lambda simulation, _: simulation.remove_files(),
}


@pytest.fixture(scope="module")
def runs() -> list[PlannedRun]:
    from toy_plugin import TOY_REF

    from harness.plugins import load

    with pytest.MonkeyPatch.context() as patch:
        from toy_plugin import install_toy

        install_toy(patch)
        catalog: Catalog = load([TOY_REF])
        specs = toy_specs(catalog, seeds=tuple(range(RUNS)), threads=1, devices=("cpu",))
    return [
        PlannedRun(index=index, total=RUNS, spec=spec, plugins=(), packages=(), timeout_s=60)
        for index, spec in enumerate(specs, start=1)
    ]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions=st.lists(st.sampled_from(sorted(ACTIONS)), min_size=10, max_size=40), seed=st.integers(0, 2**16))
def test_each_run_has_one_result_whatever_fails(runs: list[PlannedRun], actions: list[str], seed: int) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        simulation = Simulation(runs, Path(folder), patch)
        for action in actions:
            ACTIONS[action](simulation, chance)
        simulation.finish()
    assert simulation.repeated == set()
    assert sorted(simulation.stored) == [run.index for run in runs]
    for index, results in simulation.stored.items():
        ((_, message),) = results
        # The message is the id of an attempt of the same run, or the reason why all attempts were lost.
        assert message.startswith((f"{index}-", "5 attempts to execute the run were lost"))
        assert message not in simulation.lost
