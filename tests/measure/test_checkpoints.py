"""Checkpoints of the training loop, with sessions that are killed at chosen steps."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sample_records import record as sample_record
from timed_sessions import Clock, Doubler, make_data, make_spec

from harness.errors import RecordError
from harness.interfaces import Batch
from harness.measure.checkpoints import Checkpoints, decoded_readings, encoded_readings
from harness.measure.machine import Reading
from harness.measure.phases import Phases
from harness.measure.quality.builtin import METRICS
from harness.measure.quality.scorer import scorer
from harness.measure.training import Training, train
from harness.records import CheckpointFailed, CheckpointPlan, CheckpointUse, Event, Recipe, RunSpec
from harness.records import checkpoint as files
from harness.records.checkpoint import Identity
from harness.records.checkpointing import interval

STEPS = 40
EVERY = ("1", "2", "3steps", "7steps", "10steps", "0.5s", "1h")


class Killed(BaseException):
    """The end of a process."""


class Walker(Doubler):
    """A session whose loss and predictions depend on all batches, rates and averages so far."""

    def __init__(self, clock: Clock | None = None, *, kill_at: int | None = None) -> None:
        super().__init__(clock, step_s=0.125, predict_s=0.25)
        self.kill_at, self.taken = kill_at, 0
        self.set_weights({"w": np.ones(3)})

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        self.w, self.moment, self.average = weights["w"].copy(), np.zeros(3), np.zeros(3)

    def get_weights(self) -> dict[str, Any]:
        return {"w": self.w.copy()}

    def state(self) -> dict[str, Any]:
        return {"w": self.w.copy(), "moment": self.moment.copy(), "average": self.average.copy()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.w, self.moment, self.average = (state[name].copy() for name in ("w", "moment", "average"))

    def train_step(self, batch: Batch, rate: float) -> Any:
        self.taken += 1
        if self.taken == self.kill_at:
            raise Killed
        super().train_step(batch, rate)
        self.moment = 0.9 * self.moment + np.resize(batch.inputs["x"], 3) * np.sin(self.w)
        self.w = self.w - rate * self.moment
        return float(np.abs(self.w).sum())

    def update_average(self, weight: float) -> None:
        self.average = self.average + weight * (self.w - self.average)

    def averaged(self) -> Any:
        session = self

        class Averaged:
            def __enter__(self) -> None:
                self.kept = session.w
                session.w = session.average.copy()

            def __exit__(self, *_: object) -> None:
                session.w = self.kept

        return Averaged()

    def predict(self, inputs: Any) -> Any:
        super().predict(inputs)
        return inputs["x"] * np.float32(np.cos(self.w).sum())


def identity(spec: RunSpec) -> Identity:
    return Identity(
        key=spec.key,
        spec=spec,
        device="cpu",
        plugins=[],
        environment=sample_record().environment,
        dataset_digest="data",
        initial_weights_digest="weights",
    )


def checkpoints(folder: Path, spec: RunSpec, every: str, events: list[Event], *, number: int = 0) -> Checkpoints:
    directory = folder / files.FOLDER / "run"
    plan = CheckpointPlan(
        directory=str(directory), every=interval(every), resume=(directory / files.DESCRIPTION).exists()
    )
    return Checkpoints(plan, identity(spec), f"process {number}", Phases(events.append))


def trained(session: Walker, spec: RunSpec, saved: Checkpoints | None = None) -> Training:
    data, events = make_data(), list[Event]()
    judge = scorer(data.info, "rmse", [metric for metric in METRICS if metric.name == "rmse"])
    phases = Phases(events.append) if saved is None else saved._phases
    return train(session, data, spec, judge, phases, events.append, checkpoints=saved)


def spec_of(**recipe: Any) -> RunSpec:
    # With ``max_seconds``, training ends with a window, so that results are equal only if each window is one step.
    spec = make_spec(epochs=4, window_s=0.01 if "max_seconds" in recipe else 0.5)
    return msgspec.structs.replace(
        spec, recipe=Recipe(**{"epochs": 4, "batch_size": 4, "learning_rate": 0.01} | recipe)
    )


def facts(training: Training, session: Walker) -> dict[str, Any]:
    """Return everything that must not depend on interruptions."""
    return {
        "losses": training.losses,
        "ended": training.ended,
        "scores": training.scores,
        "curves": [(point.epoch, point.step, point.train_loss, point.validation) for point in training.curves],
        "weights": session.w.tolist(),
        "best": {name: array.tolist() for name, array in training.best.items()},
    }


RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "best": {"keep_best": True},
    "average": {"ema_decay": 0.9},
    "best average": {"ema_decay": 0.9, "keep_best": True},
    "plateau": {"schedule": "plateau", "plateau_patience": 1, "gamma": 0.5},
    "step": {"schedule": "step", "milestones": (1, 3)},
    "one cycle": {"schedule": "one_cycle", "warmup_fraction": 0.3},
    "early stopping": {"early_stopping": 1, "keep_best": True, "learning_rate": 0.5},
    "steps": {"max_steps": 23, "schedule": "linear"},
    "seconds": {"max_seconds": 3.5},
}


@pytest.fixture(autouse=True)
def _no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not search for child processes at the end of each phase, which takes most of the time of a short run."""
    monkeypatch.setattr("harness.measure.memory.started_processes", list)


CASES = [(recipe, "7steps") for recipe in RECIPES] + [("best average", every) for every in EVERY if every != "7steps"]


@pytest.mark.parametrize(("recipe", "every"), CASES)
def test_training_killed_before_each_step_gives_the_results_of_an_undisturbed_run(
    recipe: str, every: str, tmp_path: Path, clock: Clock
) -> None:
    spec = spec_of(**RECIPES[recipe])
    undisturbed = Walker(clock)
    expected = facts(trained(undisturbed, spec), undisturbed)
    for kill_at in (1, 2, 10, 11, 16, 25, 40):
        folder = tmp_path / str(kill_at)
        session = Walker(clock, kill_at=kill_at)
        try:
            training = trained(session, spec, checkpoints(folder, spec, every, []))
        except Killed:
            session = Walker(clock)
            training = trained(session, spec, checkpoints(folder, spec, every, [], number=1))
        assert facts(training, session) == expected


def test_training_killed_many_times_records_each_interruption(tmp_path: Path, clock: Clock) -> None:
    """The second and third processes continue from the same checkpoint, and only the last one gets further."""
    spec, events = spec_of(), list[Event]()
    undisturbed = Walker(clock)
    expected = facts(trained(undisturbed, spec), undisturbed)
    for number, kill_at in enumerate((13, 3, 4, 12)):
        with pytest.raises(Killed):
            trained(Walker(clock, kill_at=kill_at), spec, checkpoints(tmp_path, spec, "5steps", [], number=number))
    saved = checkpoints(tmp_path, spec, "5steps", events, number=4)
    session = Walker(clock)
    training = trained(session, spec, saved)
    assert facts(training, session) == expected
    use = saved.use()
    assert use == CheckpointUse(
        every=interval("5 steps"),
        written=9,
        write_s=use.write_s,
        resumed_at=[10, 10, 10, 20],
        earlier_s=use.earlier_s,
    )
    assert training.curves[-1].train_s == STEPS * 0.125 == training.train_s
    windows = training.all_windows()
    assert sum(window.batches for window in windows) == STEPS
    starts = [0, *itertools.accumulate(window.batches for window in windows)]
    assert [step.seconds for step in training.first_steps] == [0.125] * 3
    assert {0, 10, 20} <= set(starts)
    assert [windows[starts.index(step)].batches for step in (0, 10, 20)] == [1, 1, 1]


def test_training_that_was_complete_is_not_repeated(tmp_path: Path, clock: Clock) -> None:
    spec = spec_of(keep_best=True, ema_decay=0.5)
    first = Walker(clock)
    expected = facts(trained(first, spec, checkpoints(tmp_path, spec, "3", [])), first)
    again = Walker(clock, kill_at=1)
    training = trained(again, spec, checkpoints(tmp_path, spec, "3", [], number=1))
    assert facts(training, again) == expected
    again.kill_at = None
    training.sample()
    assert training.timed.windows[training.recipe_windows :]
    assert sum(window.batches for window in training.all_windows()) == STEPS


def test_windows_without_checkpoints_are_those_with_checkpoints_after_epochs(tmp_path: Path, clock: Clock) -> None:
    spec = spec_of()
    plain = trained(Walker(clock), spec)
    saved = trained(Walker(clock), spec, checkpoints(tmp_path, spec, "1", []))
    assert saved.all_windows() == plain.all_windows()


def test_writing_is_measured_as_a_phase_outside_of_training(tmp_path: Path, clock: Clock) -> None:
    spec, events = spec_of(), list[Event]()
    saved = checkpoints(tmp_path, spec, "5steps", events)
    trained(Walker(clock), spec, saved)
    phases = saved._phases
    assert list(phases.seconds) == ["train", "checkpoint", "validate"] == list(phases.memory.by_phase_bytes)
    assert phases.seconds["checkpoint"] > 0


class Faults:
    """Calls of the operating system and of safetensors that write a checkpoint, one of which fails."""

    CALLS = ("os.open", "safetensors.numpy.save_file", "os.fsync", "os.replace", "pathlib.Path.unlink")

    def __init__(self, patch: pytest.MonkeyPatch, name: str, number: int, error: BaseException) -> None:
        self.count, self.reached = 0, False
        module, _, attribute = name.rpartition(".")
        target = Path if module == "pathlib.Path" else __import__(module, fromlist=[attribute])
        actual = getattr(target, attribute)

        def call(*arguments: Any, **options: Any) -> Any:
            if name == "os.open" and not arguments[1] & os.O_CREAT:
                return actual(*arguments, **options)
            self.count += 1
            if self.count == number:
                self.reached = True
                raise error
            return actual(*arguments, **options)

        patch.setattr(target, attribute, call)


@pytest.mark.parametrize("killed", [False, True], ids=["full disk", "killed"])
@pytest.mark.parametrize("name", Faults.CALLS)
def test_previous_checkpoint_survives_a_fault_at_each_step_of_writing(
    name: str, killed: bool, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, events = spec_of(), list[Event]()
    undisturbed = Walker(clock)
    expected = facts(trained(undisturbed, spec), undisturbed)
    error: BaseException = Killed() if killed else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for number in range(1, 30):
        folder = tmp_path / str(number)
        directory = folder / files.FOLDER / "run"
        with pytest.raises(Killed):
            trained(Walker(clock, kill_at=12), spec, checkpoints(folder, spec, "1", events))
        assert files.read(directory).step == 10
        with monkeypatch.context() as patch:
            faults = Faults(patch, name, number, error)
            session = Walker(clock, kill_at=12)
            with pytest.raises(Killed):
                trained(session, spec, checkpoints(folder, spec, "1", events, number=1))
        step = files.read(directory).step
        assert step in (10, 20)
        session = Walker(clock)
        training = trained(session, spec, checkpoints(folder, spec, "1", events, number=2))
        assert facts(training, session) == expected
        assert [path.suffix for path in directory.iterdir()].count(files.SUFFIX) == 1
        if not faults.reached:
            break
    assert number > 1
    failed = [event for event in events if isinstance(event, CheckpointFailed)]
    assert bool(failed) == (not killed and name != "pathlib.Path.unlink")


def test_checkpoint_that_cannot_be_written_is_reported_once(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, events = spec_of(), list[Event]()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    saved = checkpoints(tmp_path, spec, "1", events)
    session = Walker(clock)
    training = trained(session, spec, saved)
    assert len(training.losses) == STEPS
    assert (saved.use().written, saved.use().problems) == (0, ["No space left"])
    failed = [event for event in events if isinstance(event, CheckpointFailed)]
    assert failed == [CheckpointFailed(step=step, reason="No space left") for step in (10, 20, 30, 40)]
    assert list((tmp_path / files.FOLDER / "run").iterdir()) == []


@pytest.mark.parametrize("place", [files.FOLDER, f"{files.FOLDER}/run", f"{files.FOLDER}/run/{files.DESCRIPTION}"])
def test_planted_link_is_not_followed(place: str, tmp_path: Path, clock: Clock) -> None:
    elsewhere, link, events = tmp_path / "elsewhere", tmp_path / "results" / place, list[Event]()
    elsewhere.mkdir()
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    spec = spec_of()
    saved = checkpoints(tmp_path / "results", spec, "1", events)
    saved._resume = False
    trained(Walker(clock), spec, saved)
    assert list(elsewhere.iterdir()) == []
    assert saved.use().written == 0
    assert any("symbolic link" in problem for problem in saved.use().problems)


@pytest.mark.parametrize("field", ["key", "device", "dataset_digest", "initial_weights_digest"])
def test_checkpoint_of_another_run_is_refused(field: str, tmp_path: Path, clock: Clock) -> None:
    spec = spec_of()
    trained(Walker(clock), spec, checkpoints(tmp_path, spec, "1", []))
    saved = checkpoints(tmp_path, spec, "1", [])
    saved._identity = msgspec.structs.replace(saved._identity, **{field: "other"})
    with pytest.raises(RecordError, match="pass --no-resume to start from the beginning"):
        trained(Walker(clock), spec, saved)


def test_readings_round_trip() -> None:
    readings = [Reading(1.5, None, 0.1), Reading(*range(9)), Reading()]
    assert decoded_readings(encoded_readings(readings)) == readings
    assert decoded_readings(encoded_readings([])) == []
