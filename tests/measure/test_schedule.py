"""Learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.schedule import learning_rate
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


@given(st.integers(1, 300), st.sampled_from(["constant", "linear", "cosine"]), st.floats(0, 1), st.floats(1e-6, 10))
def test_schedules_rise_then_fall_within_bounds(steps: int, schedule: Any, warmup: float, rate: float) -> None:
    recipe = Recipe(learning_rate=rate, schedule=schedule, warmup_fraction=warmup)
    drawn = np.array([learning_rate(recipe, step, steps) for step in range(steps)])
    assert (drawn > 0).all()
    assert (drawn <= rate).all()
    top = min(steps, round(warmup * steps))
    assert (np.diff(drawn[: top + 1]) > 0).all()
    assert (np.diff(drawn[top:]) <= 0).all()
