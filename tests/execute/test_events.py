"""Tests of the events that listeners receive during runs, and of their replay from stored runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from recording_tracker import Recording, listening
from toy_runs import toy_specs

from harness.errors import PluginError, RecordError
from harness.execute.attempt import execute_run
from harness.execute.replay import replay
from harness.execute.runner import planned_runs, run_all
from harness.interfaces import Coordinator, Executor, PlannedRun
from harness.measure import steps as steps_module
from harness.measure.steps import StepEvents
from harness.plugins.catalog import Catalog
from harness.records import Event, Failure, Recipe, RunRecord, RunSpec, StepsEnded, Success
from harness.records.arrays import read_arrays, write_arrays
from harness.records.store import ARRAYS, Store, StoredRun

PLATEAU = ("recipe.epochs=4", "recipe.schedule=plateau", "recipe.plateau_patience=1", "recipe.gamma=0.5")

STEP = ("recipe.epochs=3", "recipe.schedule=step", "recipe.step_size=1", "recipe.gamma=0.5")
LIMITS: dict[str, Any] = {"timeout_s": 60, "memory_limit_bytes": None, "save_weights": False}


def live(
    specs: Sequence[RunSpec], catalog: Catalog, folder: Path, **settings: Any
) -> tuple[Recording, list[RunRecord]]:
    """Execute runs, and return the calls of a listener and the records."""
    recording = Recording()
    records = run_all(specs, listening(catalog, recording), Store(folder), **settings)
    return recording, records


def replayed(run: StoredRun, catalog: Catalog) -> Recording:
    recording = Recording()
    replay(run, listening(catalog, recording))
    return recording


@pytest.mark.parametrize(
    ("overrides", "settings"),
    [
        ((*PLATEAU, "recipe.batch_size=8"), {}),
        (STEP, {}),
        (
            ("recipe.epochs=3", "recipe.schedule=one_cycle", "recipe.warmup_fraction=0.3", "recipe.max_steps=7"),
            {"quality_only": True},
        ),
        (("recipe.epochs=2",), {"trial": "speed"}),
        (("recipe.epochs=2",), {"trial": "quality"}),
    ],
)
def test_replay_has_the_same_events_as_the_run_except_times(
    catalog: Catalog, tmp_path: Path, overrides: tuple[str, ...], settings: dict[str, Any]
) -> None:
    recording, (record,) = live(toy_specs(catalog, *overrides), catalog, tmp_path, **settings)
    assert not isinstance(record.outcome, Failure), record.outcome
    epochs = len(record.outcome.curves)
    assert recording.names == ["started", *["steps", "epoch"] * epochs, "finished"]
    assert len(set(recording.values("attempt"))) == 1
    again = replayed(StoredRun(tmp_path / record.run_id, record), catalog)
    assert again.names == recording.names
    assert again.values("steps") == recording.values("steps")
    assert again.values("epoch") == recording.values("epoch") == record.outcome.curves
    assert again.values("record") == recording.values("record") == [record]
    assert again.values("directory") == recording.values("directory") == [tmp_path / record.run_id]
    times = again.values("time_s")
    assert times == sorted(times)
    assert times[-1] - times[0] == pytest.approx(record.wall_s)


def test_step_events_contain_the_losses_rates_and_windows_of_all_steps(catalog: Catalog, tmp_path: Path) -> None:
    start_s = time.time()
    recording, (record,) = live(toy_specs(catalog, *STEP), catalog, tmp_path)
    arrays = read_arrays(tmp_path / record.run_id / ARRAYS)
    events = recording.values("steps")
    assert [loss for event in events for loss in event.losses] == arrays["train_losses"].tolist()
    assert [count for event in events for count in event.window_steps] == arrays["train_window_steps"].tolist()
    assert [seconds for event in events for seconds in event.window_s] == arrays["train_window_s"].tolist()
    assert [event.first_windows for event in events] == [(0,), *[()] * (len(events) - 1)]
    assert [event.step for event in events] == [0, *(epoch.step for epoch in recording.values("epoch")[:-1])]
    rate = record.spec.recipe.learning_rate
    assert [set(event.learning_rates) for event in events] == [{rate}, {rate / 2}, {rate / 4}]
    assert start_s <= recording.values("time_s")[0] <= recording.values("time_s")[-1] <= time.time()


def test_throughput_omits_the_first_step_of_a_process() -> None:
    event = StepsEnded(
        epoch=1,
        step=0,
        losses=(1.0, 0.5, 0.25),
        learning_rates=(0.1,) * 3,
        batch_size=4,
        window_steps=(1, 2),
        window_s=(8.0, 0.5),
        first_windows=(0,),
    )
    assert event.throughput == [(3, 16.0)]
    assert msgspec.structs.replace(event, step=3).throughput == [(6, 16.0)]
    assert msgspec.structs.replace(event, step=3, first_windows=()).throughput == [(4, 0.5), (6, 16.0)]


def test_no_steps_are_sent_without_a_listener(catalog: Catalog, tmp_path: Path) -> None:
    specs = toy_specs(catalog)
    received: list[Event] = []
    (run,) = planned_runs(specs, catalog, **LIMITS)
    assert isinstance(execute_run(run, tmp_path, received.append).outcome, Success)
    assert not any(isinstance(event, StepsEnded) for event in received)
    (run,) = planned_runs(specs, listening(catalog, Recording()), **LIMITS)
    assert run.step_events


def test_long_epoch_sends_its_steps_in_several_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_module, "SEND_S", 0.0)
    events: list[Event] = []
    collector = StepEvents(events.append, Recipe(epochs=1, learning_rate=0.25), batch_size=8, steps=5)
    losses: list[float] = []
    for count in (1, 2, 2):
        losses += [float(len(losses))] * count
        collector.add(1, losses, count, 0.5, reductions=0)
    collector.send(1, losses, reductions=0)
    assert [(event.step, event.losses) for event in events if isinstance(event, StepsEnded)] == [
        (0, (0.0,)),
        (1, (1.0, 1.0)),
        (3, (3.0, 3.0)),
    ]


class Losing(Executor):
    """An executor that loses its first attempt."""

    name = "losing"
    summary = ""

    def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
        coordinator.start(runs[0])
        attempt = coordinator.start(runs[0])
        coordinator.finish(attempt.id, Failure(kind="error", message="no machine"))


def test_lost_attempt_is_reported_before_the_next_attempt(catalog: Catalog, tmp_path: Path) -> None:
    recording, (record,) = live(toy_specs(catalog), catalog, tmp_path, executor=Losing())
    assert recording.names == ["started", "lost", "started", "finished"]
    first, lost, second, finished = recording.values("attempt")
    assert first == lost != second == finished
    assert replayed(StoredRun(tmp_path / record.run_id, record), catalog).names == ["started", "finished"]


class Stopping(Executor):
    """An executor that is interrupted while a run is open."""

    name = "stopping"
    summary = ""

    def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
        coordinator.start(runs[0])
        raise KeyboardInterrupt


def test_interrupted_run_is_finished_with_its_record(catalog: Catalog, tmp_path: Path) -> None:
    recording = Recording()
    with pytest.raises(KeyboardInterrupt):
        run_all(toy_specs(catalog), listening(catalog, recording), Store(tmp_path), executor=Stopping())
    assert recording.names == ["started", "finished"]
    (record,) = recording.values("record")
    assert record.outcome.kind == "interrupted"
    assert [record] == [run.record for run in Store(tmp_path).load().runs]


class Full(Store):
    """A results directory that becomes full."""

    def commit(self, scratch: Path, record: RunRecord) -> StoredRun:
        raise RecordError("no space left")


def test_attempt_whose_record_is_not_stored_is_lost(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.execute.runner.Store", Full)
    recording = Recording()
    with pytest.raises(RecordError, match="no space left"):
        run_all(toy_specs(catalog), listening(catalog, recording), Full(tmp_path), executor=Losing())
    assert recording.names == ["started", "lost", "started", "lost"]


class TestReplay:
    @pytest.fixture
    def run(self, catalog: Catalog, tmp_path: Path) -> StoredRun:
        _, (record,) = live(toy_specs(catalog, "recipe.epochs=2"), catalog, tmp_path)
        return StoredRun(tmp_path / record.run_id, record)

    def test_run_without_arrays_has_no_steps(self, run: StoredRun, catalog: Catalog) -> None:
        (run.path / ARRAYS).unlink()
        assert replayed(run, catalog).names == ["started", "epoch", "epoch", "finished"]

    def test_arrays_of_another_run_are_an_error(self, run: StoredRun, catalog: Catalog) -> None:
        arrays = {**read_arrays(run.path / ARRAYS)}
        for change in ({"train_losses": arrays["train_losses"][:-1]}, {"train_window_steps": np.array([1])}):
            changed = arrays | change
            changed["train_window_s"] = arrays["train_window_s"][: len(changed["train_window_steps"])]
            write_arrays(run.path / ARRAYS, changed)
            with pytest.raises(RecordError, match=r"arrays\.npz: the number of training steps differs"):
                replayed(run, catalog)

    def test_tracker_that_fails_is_named(self, run: StoredRun, catalog: Catalog) -> None:
        broken = Recording()
        broken.calls = None  # type: ignore[assignment]
        with pytest.raises(PluginError, match=f"the tracker 'recording' failed for the run {run.record.run_id}: "):
            replay(run, listening(catalog, broken))
