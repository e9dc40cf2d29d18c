"""Intervals of test scores over the examples."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats  # noqa: F401  # draws while it is imported, which a test below must not see
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.measure.quality.builtin import METRICS
from harness.measure.quality.intervals import _classification, _regression, intervals
from harness.plugins import resolve
from harness.records import DataInfo

RNG = np.random.default_rng


def info(objective: str, outputs: int) -> DataInfo:
    return DataInfo(kind="x", inputs={}, objective=objective, outputs=outputs)  # type: ignore[arg-type]


def classified(n: int, classes: int, right: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = RNG(seed)
    targets = rng.integers(0, classes, n)
    said = np.where(rng.random(n) < right, targets, rng.integers(0, classes, n))
    return targets, np.eye(classes)[said]


@pytest.mark.parametrize("objective", ["classification", "regression"])
def test_resamples_are_scored_as_scikit_learn_scores_them(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One draw that takes every example once must give the metrics themselves."""
    if objective == "classification":
        targets, outputs = classified(200, 5, 0.7, 0)
        targets[targets == 4] = 3  # a class that no example has
    else:
        targets = RNG(0).normal(size=(100, 2)) + 1e3
        outputs = targets + RNG(1).normal(size=(100, 2))

    class Once:
        def multinomial(self, n: int, shares: np.ndarray, size: int) -> np.ndarray:
            return np.round(shares * n)[None]

    monkeypatch.setattr("harness.measure.quality.intervals.np.random.default_rng", lambda seed: Once())
    if objective == "classification":
        found = _classification(targets, outputs.argmax(axis=1), outputs.shape[1])
    else:
        found = _regression(targets, outputs)
    for name, values in found.items():
        (metric,) = (metric for metric in METRICS if metric.name == name)
        expected = resolve(metric.function)(targets, outputs, info(objective, outputs.shape[1]))
        assert values[0] == pytest.approx(expected, rel=1e-9), name


@given(st.integers(20, 200), st.integers(2, 6), st.floats(0.1, 0.9), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_intervals_are_ordered_and_within_the_scores_range(n: int, classes: int, right: float, seed: int) -> None:
    for low, high in intervals("classification", *classified(n, classes, right, seed)).values():
        assert 0 <= low <= high <= 1


def test_accuracy_is_covered_about_95_times_in_100() -> None:
    """300 test sets of 400 examples, whose true accuracy is 0.8: coverage 0.95 has a deviation of 0.0126 there."""
    covered = 0
    for seed in range(300):
        rng = RNG(seed)
        right = rng.random(400) < 0.8
        low, high = intervals("classification", np.ones(400, int), np.eye(2)[right.astype(int)])["accuracy"]
        covered += low <= 0.8 <= high
    assert 0.91 <= covered / 300 <= 0.99


def test_more_examples_give_narrower_intervals() -> None:
    widths = []
    for n in (100, 10_000):
        low, high = intervals("classification", *classified(n, 3, 0.7, 1))["accuracy"]
        widths.append(high - low)
    assert widths[0] == pytest.approx(10 * widths[1], rel=0.25)


def test_constant_targets_have_no_r2() -> None:
    outputs = RNG(0).normal(size=(50, 1))
    found = intervals("regression", np.ones((50, 1)), outputs)
    assert set(found) == {"rmse", "mae"}


def test_the_same_examples_give_the_same_interval() -> None:
    data = classified(300, 4, 0.6, 2)
    assert intervals("classification", *data) == intervals("classification", *data)
