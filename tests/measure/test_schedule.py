"""Learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.schedule import learning_rate, reductions
from harness.records import (
    Recipe,
)


def rates(steps: int, **recipe: Any) -> list[float]:
    return [learning_rate(Recipe(learning_rate=2.0, **recipe), step, steps) for step in range(steps)]


def test_schedules_by_hand() -> None:
    assert rates(4) == [2, 2, 2, 2]
    assert rates(4, schedule="linear") == [2, 1.5, 1, 0.5]
    assert rates(4, schedule="cosine") == pytest.approx([1 + math.cos(math.pi * step / 4) for step in range(4)])
    assert rates(5, warmup_fraction=0.6) == [0.5, 1, 1.5, 2, 2]
    assert rates(6, warmup_fraction=1 / 3, schedule="linear") == pytest.approx([2 / 3, 4 / 3, 2, 1.5, 1, 0.5])


def test_one_cycle_by_hand() -> None:
    cycle = rates(11, schedule="one_cycle", warmup_fraction=0.4)
    assert cycle[0] == pytest.approx(2 / 25)
    assert cycle[2] == pytest.approx((2 / 25 + 2) / 2)
    assert max(cycle) == cycle[4] == 2
    assert cycle[7] == pytest.approx((2 + 2 / 250_000) / 2)
    assert cycle[10] == pytest.approx(2 / 250_000)
    assert rates(1, schedule="one_cycle", warmup_fraction=0.4) == [2]
    for steps, fraction in ((3, 0.5), (6, 0.9), (10, 0.99)):
        assert rates(steps, schedule="one_cycle", warmup_fraction=fraction)[-1] == pytest.approx(2 / 250_000)


def test_step_schedule_counts_completed_epochs() -> None:
    every, at = (Recipe(schedule="step", **where) for where in ({"step_size": 2}, {"milestones": (1, 4)}))
    assert [reductions(every, epochs, ()) for epochs in range(6)] == [0, 0, 1, 1, 2, 2]
    assert [reductions(at, epochs, ()) for epochs in range(6)] == [0, 1, 1, 1, 2, 2]
    assert learning_rate(Recipe(schedule="step", step_size=2, gamma=0.5, learning_rate=8.0), 0, 1, 3) == 1


def test_plateau_waits_again_after_each_reduction() -> None:
    recipe = Recipe(schedule="plateau", plateau_patience=2)
    scores = [0.5, 0.6, 0.6, 0.5, 0.59, 0.6, 0.7, 0.1, -math.inf]
    assert [reductions(recipe, epochs, scores[:epochs]) for epochs in range(10)] == [0, 0, 0, 0, 1, 1, 2, 2, 2, 3]
    assert reductions(Recipe(), 9, scores) == 0


@given(st.integers(1, 300), st.sampled_from(["constant", "linear", "cosine"]), st.floats(0, 1), st.floats(1e-6, 10))
def test_schedules_rise_then_fall_within_bounds(steps: int, schedule: Any, warmup: float, rate: float) -> None:
    recipe = Recipe(learning_rate=rate, schedule=schedule, warmup_fraction=warmup)
    drawn = np.array([learning_rate(recipe, step, steps) for step in range(steps)])
    assert (drawn > 0).all()
    assert (drawn <= rate).all()
    top = min(steps, round(warmup * steps))
    assert (np.diff(drawn[: top + 1]) > 0).all()
    assert (np.diff(drawn[top:]) <= 0).all()
