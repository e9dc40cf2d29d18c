"""Tests of the end of training, the evaluated epoch and the moving average."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
from timed_sessions import Clock, Doubler, make_data, make_spec

from harness.measure.phases import Phases
from harness.measure.quality.builtin import METRICS
from harness.measure.quality.scorer import scorer
from harness.measure.selection import average_weight, best_epoch, is_stale, monitored
from harness.measure.training import Training, train
from harness.records import EpochEnded, Recipe


class Scripted(Doubler):
    """Session whose validation error after each epoch is given. Its only weight is the number of steps."""

    def __init__(self, errors: Sequence[float], clock: Clock | None = None, *, step_s: float = 0.0) -> None:
        super().__init__(clock, step_s=step_s)
        self.errors, self.weights, self.average = errors, 0.0, 0.0
        self.is_averaged = False

    def set_weights(self, weights: Any) -> None:
        self.calls.append("set")
        self.weights = float(weights["steps"])

    def get_weights(self) -> dict[str, Any]:
        self.calls.append("get")
        return {"steps": np.array(self.average if self.is_averaged else self.weights)}

    def train_step(self, batch: Any, rate: float) -> Any:
        self.weights += 1
        return super().train_step(batch, rate)

    def update_average(self, weight: float) -> None:
        self.average += weight * (self.weights - self.average)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        self.is_averaged = True
        yield
        self.is_averaged = False

    def predict(self, inputs: Any) -> Any:
        self.calls.append("predict")
        return inputs["x"] + self.errors[math.ceil(self.weights / 10) - 1]


def trained(session: Scripted, **recipe: Any) -> Training:
    spec, data = make_spec(epochs=len(session.errors), window_s=0.5, throughput_budget_s=0.1), make_data()
    spec = msgspec.structs.replace(spec, recipe=msgspec.structs.replace(spec.recipe, **recipe))
    judge = scorer(data.info, "rmse", [metric for metric in METRICS if metric.name == "rmse"])
    return train(session, data, spec, judge, Phases(lambda event: None), lambda event: None)


def ended(training: Training) -> tuple[str, int, int, int]:
    chosen = training.selection("rmse")
    assert chosen.last == training.curves[-1].validation[chosen.monitor]
    assert chosen.best == training.curves[chosen.best_epoch - 1].validation[chosen.monitor]
    return chosen.ended, chosen.best_epoch, chosen.last_epoch, chosen.evaluated_epoch


ERRORS = (3.0, 2.0, 1.0, 4.0, 2.0, 0.5)


def test_training_without_options_evaluates_the_last_epoch_and_copies_no_weights() -> None:
    session = Scripted((3.0, 1.0, 2.0))
    assert ended(trained(session)) == ("epochs", 2, 3, 3)
    assert {"get", "set"}.isdisjoint(session.calls)


def test_early_stopping_ends_after_epochs_without_improvement() -> None:
    session = Scripted(ERRORS)
    assert ended(trained(session, early_stopping=2)) == ("early_stopping", 3, 5, 5)
    assert session.weights == 50
    assert ended(trained(Scripted(ERRORS), early_stopping=3)) == ("epochs", 6, 6, 6)


@pytest.mark.parametrize(
    ("errors", "weights", "expected"),
    [(ERRORS[:5], 30, ("epochs", 3, 5, 3)), (ERRORS, 60, ("epochs", 6, 6, 6)), ((1.0, 1.0), 10, ("epochs", 1, 2, 1))],
    ids=["earlier", "last", "tie"],
)
def test_best_epoch_is_evaluated(errors: Any, weights: float, expected: Any) -> None:
    session = Scripted(errors)
    result = trained(session, keep_best=True)
    assert ended(result) == expected
    assert session.weights == weights
    result.sample()  # does not change the evaluated weights, which have been read before


def test_best_epoch_with_early_stopping_is_evaluated() -> None:
    session = Scripted(ERRORS)
    assert ended(trained(session, early_stopping=2, keep_best=True)) == ("early_stopping", 3, 5, 3)
    assert session.weights == 30


@pytest.mark.parametrize(("steps", "expected"), [(25, ("max_steps", 3, 3, 3)), (60, ("epochs", 6, 6, 6))])
def test_limit_in_steps_ends_within_an_epoch(steps: int, expected: Any) -> None:
    session = Scripted(ERRORS)
    result = trained(session, max_steps=steps, schedule="linear", learning_rate=1.0)
    assert ended(result) == expected
    assert len(result.losses) == steps == session.weights
    assert [epoch.step for epoch in result.curves][-1] == steps
    assert session.rates[steps - 1] == pytest.approx(1 / steps)
    result.sample()
    assert session.rates[-1] == pytest.approx(1 / steps)


def test_limit_in_seconds_ends_with_a_window(clock: Clock) -> None:
    result = trained(Scripted(ERRORS, clock, step_s=0.25), max_seconds=4.0)
    assert ended(result)[0] == "max_seconds"
    assert len(result.curves) == 2
    assert 4.0 <= result.curves[-1].train_s <= 4.5
    assert result.curves[-1].step == 4 * result.curves[-1].train_s


def test_moving_average_is_validated_and_evaluated() -> None:
    session = Scripted((2.0, 1.0))
    trained(session, ema_decay=0.8)
    powers = [0.8**age for age in range(19, -1, -1)]
    assert session.weights == pytest.approx(np.average(np.arange(1, 21), weights=powers))
    best = Scripted((1.0, 2.0))
    trained(best, ema_decay=0.8, keep_best=True)
    assert best.weights == pytest.approx(np.average(np.arange(1, 11), weights=powers[10:]))


def test_weights_of_the_moving_average_start_at_one() -> None:
    assert average_weight(0.9, 1) == pytest.approx(1)
    assert average_weight(0.9, 2) == pytest.approx(0.1 / 0.19)
    assert average_weight(0.9, 10_000) == pytest.approx(0.1)


def test_undefined_scores_are_never_the_best() -> None:
    curve = [
        EpochEnded(epoch=n, epochs=3, step=n, train_s=1.0, train_loss=1.0, validation={"f1": score, "loss": 4.0 - n})
        for n, score in enumerate((None, 0.5, None), start=1)
    ]
    scores = monitored(curve, Recipe(), "f1", higher_is_better=True)
    assert (best_epoch(scores), is_stale(scores, 1), is_stale(scores, None)) == (2, True, False)
    assert best_epoch(monitored(curve, Recipe(monitor="loss"), "f1", higher_is_better=True)) == 3
    assert best_epoch([-math.inf] * 3) == 3
