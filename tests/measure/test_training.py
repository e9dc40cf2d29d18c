"""The timed training loop."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from timed_sessions import Clock, Doubler, make_data, make_spec, order

from harness.errors import BadResultError, PluginError
from harness.interfaces import Batch, PreparedData, Session
from harness.measure.phases import Phases
from harness.measure.quality.builtin import METRICS
from harness.measure.quality.scorer import scorer
from harness.measure.schedule import learning_rate
from harness.measure.training import Training, train
from harness.records import (
    EpochEnded,
    Event,
    PhaseStarted,
    Progress,
    RunSpec,
)


def trained(
    session: Session, spec: RunSpec, data: PreparedData | None = None, *, by_steps: bool = True
) -> tuple[Training, list[Event]]:
    data, events = data or make_data(), []
    judge = scorer(data.info, "rmse", [metric for metric in METRICS if metric.name == "rmse"])
    return train(session, data, spec, judge, Phases(events.append), events.append, by_steps=by_steps), events


def test_every_step_is_in_a_window_and_the_first_is_alone(clock: Clock) -> None:
    session = Doubler(clock, step_s=0.125)
    result, _ = trained(session, make_spec(epochs=3, window_s=0.5))
    assert session.calls.count("train") == 30
    assert 1 + sum(steps for steps, _ in result.timed.windows) == 30 == len(result.losses)
    assert result.first_step_s == 0.125
    assert all(seconds == 0.125 * steps for steps, seconds in result.timed.windows)
    assert result.losses == [1 / step for step in range(1, 31)]


@pytest.mark.parametrize("by_steps", [True, False])
def test_only_models_fitted_in_one_call_receive_the_validation_split(by_steps: bool) -> None:
    validation, sizes = [], []

    class Remembers(Doubler):
        def train_step(self, batch: Batch, rate: float) -> Any:
            validation.append(batch.validation)
            sizes.append(len(batch.targets))
            return super().train_step(batch, rate)

    data = make_data(40)
    result, _ = trained(
        Remembers(), make_spec(epochs=1, batch_size=4, throughput_budget_s=0.1), data, by_steps=by_steps
    )
    result.sample()
    assert len(sizes) > result.steps
    assert all(each is (None if by_steps else data.validation) for each in validation)
    assert set(sizes) == {4 if by_steps else 40}


def test_device_is_synchronized_at_the_edges_of_windows_only() -> None:
    session = Doubler()
    result, _ = trained(session, make_spec(epochs=1))
    in_windows: list[int] = [0]
    for call in session.calls[: session.calls.index("predict")]:
        if call == "train":
            in_windows[-1] += 1
        elif call == "synchronize":
            in_windows.append(0)
    assert in_windows[:-1] == [1, *(steps for steps, _ in result.timed.windows)]


def test_windows_grow_to_their_length(clock: Clock) -> None:
    session = Doubler(clock, step_s=0.25)
    result, _ = trained(session, make_spec(epochs=1, batch_size=1, window_s=5.0), make_data(100))
    assert [steps for steps, _ in result.timed.windows] == [1, 2, 4, 8, 16, 20, 20, 20, 8]


def test_windows_shrink_when_steps_become_slower(clock: Clock) -> None:
    class Slowing(Doubler):
        def train_step(self, batch: Batch, rate: float) -> Any:
            self.step_s = 0.25 if len(self.seen) < 32 else 2.5
            return super().train_step(batch, rate)

    result, _ = trained(Slowing(clock), make_spec(epochs=1, batch_size=1, window_s=5.0), make_data(60))
    assert [steps for steps, _ in result.timed.windows] == [1, 2, 4, 8, 16, 20, 2, 2, 2, 2]


def test_windows_end_with_their_epoch(clock: Clock) -> None:
    result, _ = trained(Doubler(clock, step_s=0.001), make_spec(epochs=4, window_s=1000))
    assert [steps for steps, _ in result.timed.windows] == [1, 2, 4, 2, 8, 2, 10, 10]


def test_time_between_windows_is_not_counted(clock: Clock) -> None:
    """The time to fetch losses, to validate and to report to the parent does not count as training time."""
    result, _ = trained(Doubler(clock, step_s=0.25, predict_s=64, fetch_s=32), make_spec(epochs=2))
    assert result.first_step_s + sum(seconds for _, seconds in result.timed.windows) == 20 * 0.25
    assert [epoch.train_s for epoch in result.curves] == [2.5, 5.0]


def test_epochs_and_rates_and_events() -> None:
    session, spec = Doubler(), make_spec(epochs=2)
    spec = msgspec.structs.replace(spec, recipe=msgspec.structs.replace(spec.recipe, schedule="linear"))
    result, events = trained(session, spec)
    assert session.rates == [learning_rate(spec.recipe, step, 20) for step in range(20)]
    assert session.seen == order(make_data().train, 4, 0, 1) + order(make_data().train, 4, 0, 2)
    assert [epoch.step for epoch in result.curves] == [10, 20]
    assert result.curves[0].train_loss == pytest.approx(sum(1 / step for step in range(1, 11)) / 10)
    expected = {"loss": sum(n * n for n in range(7)) / 7, "rmse": math.sqrt(13)}
    assert result.curves[0].validation == pytest.approx(expected)
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.step for event in progress] == np.cumsum([1, *(steps for steps, _ in result.timed.windows)]).tolist()
    assert {(event.steps, event.epochs) for event in progress} == {(20, 2)}
    assert [event for event in events if isinstance(event, EpochEnded)] == result.curves
    assert [event.phase for event in events if isinstance(event, PhaseStarted)] == ["train", "validate"] * 2


def test_plateau_lowers_the_rate_after_epochs_without_improvement() -> None:
    """The validation score of this session never changes, so every epoch after the first is one without improvement."""
    session, spec = Doubler(), make_spec(epochs=6, throughput_budget_s=0.1)
    changes = {"schedule": "plateau", "plateau_patience": 2, "gamma": 0.5, "learning_rate": 8.0}
    spec = msgspec.structs.replace(spec, recipe=msgspec.structs.replace(spec.recipe, **changes))
    result, _ = trained(session, spec)
    assert session.rates[::10] == [8, 8, 8, 4, 4, 2]
    result.sample()
    assert session.rates[-1] == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_names_its_step(bad: float) -> None:
    session = Doubler(losses=lambda step: bad if step == 13 else 1.0)
    with pytest.raises(
        BadResultError, match=f"the training loss became {bad} at step 13; try a lower recipe.learning_rate"
    ):
        trained(session, make_spec(epochs=3))


def test_loss_that_is_not_finite_before_the_first_update_does_not_blame_the_recipe() -> None:
    session = Doubler(losses=lambda step: math.nan)
    with pytest.raises(BadResultError, match="became nan at step 1; no update has been applied yet; check"):
        trained(session, make_spec(epochs=1))


def test_sampling_goes_on_until_the_protocol_is_satisfied(clock: Clock) -> None:
    session = Doubler(clock, step_s=0.25)
    spec = make_spec(epochs=1, window_s=1.0, min_steady_windows=6, min_steady_s=5.0, throughput_budget_s=1000)
    result, _ = trained(session, spec)
    assert not result.is_enough()
    losses, rates = list(result.losses), session.rates
    result.sample()
    assert result.is_enough()
    assert result.losses == losses == [1 / step for step in range(1, 11)]
    assert {*rates[10:]} == {learning_rate(spec.recipe, 9, 10)}
    sampled = result.timed.windows[result.recipe_windows :]
    assert sampled
    assert all(seconds == 0.25 * steps for steps, seconds in sampled)


def test_sampling_ends_with_its_budget(clock: Clock) -> None:
    session = Doubler(clock, step_s=0.25)
    result, _ = trained(session, make_spec(epochs=1, window_s=1.0, min_steady_windows=999, throughput_budget_s=10.0))
    before = clock.now
    result.sample()
    assert 10.0 <= clock.now - before < 12.5
    assert not result.is_enough()


def test_a_step_alone_is_followed_by_others_for_the_clock(clock: Clock) -> None:
    result, _ = trained(Doubler(clock, step_s=1.0), make_spec(epochs=1, batch_size=40))
    assert (result.first_step_s, result.timed.windows) == (1.0, [])
    result.sample()
    assert result.timed.windows


@pytest.mark.parametrize(
    ("handle", "fetched", "said"),
    [
        (None, 0.0, "Session.train_step returned None"),
        ("handle", None, "Session.fetch returned NoneType for the result of Session.train_step"),
        ("handle", np.zeros(3), r"returned an array of shape \(3,\) for the result of Session.train_step"),
    ],
)
def test_loss_that_is_not_a_number_names_the_method(handle: Any, fetched: Any, said: str) -> None:
    class Returns(Doubler):
        def train_step(self, batch: Batch, rate: float) -> Any:
            return handle

        def fetch(self, handle: Any) -> Any:
            return fetched

    with pytest.raises(PluginError, match=said):
        trained(Returns(), make_spec(epochs=1))


@pytest.mark.parametrize(
    ("by_steps", "step", "said"),
    [
        (True, 1, "check the network's outputs"),
        (True, 2, "try a lower recipe.learning_rate"),
        (False, 1, "Session.train_step must return"),
    ],
)
def test_loss_that_is_not_finite_states_what_to_do(by_steps: bool, step: int, said: str) -> None:
    session = Doubler(losses=lambda number: math.nan if number == step else 1.0)
    with pytest.raises(BadResultError, match=said):
        trained(session, make_spec(epochs=1), by_steps=by_steps)
