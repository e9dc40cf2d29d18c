"""Tests of the bootstrap intervals of test scores."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats  # noqa: F401  # draws random numbers on import, before a test replaces the generator
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
    predicted = np.where(rng.random(n) < right, targets, rng.integers(0, classes, n))
    return targets, np.eye(classes)[predicted]


@pytest.mark.parametrize("objective", ["classification", "regression"])
def test_resampled_scores_agree_with_scikit_learn(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resample that contains every example once has the scores of the metric functions."""
    if objective == "classification":
        targets, outputs = classified(200, 5, 0.7, 0)
        targets[targets == 4] = 3  # the last class has no examples
    else:
        targets = RNG(0).normal(size=(100, 2)) + 1e3
        outputs = targets + RNG(1).normal(size=(100, 2))

    class Once:
        def multinomial(self, n: int, fractions: np.ndarray, size: int) -> np.ndarray:
            return np.round(fractions * n)[None]

    monkeypatch.setattr("harness.measure.quality.intervals.np.random.default_rng", lambda seed: Once())
    if objective == "classification":
        scores = _classification(targets, outputs.argmax(axis=1), outputs.shape[1])
    else:
        scores = _regression(targets, outputs)
    for name, values in scores.items():
        (metric,) = (metric for metric in METRICS if metric.name == name)
        expected = resolve(metric.function)(targets, outputs, info(objective, outputs.shape[1]))
        assert values[0] == pytest.approx(expected, rel=1e-9), name


@given(st.integers(20, 200), st.integers(2, 6), st.floats(0.1, 0.9), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_intervals_are_ordered_and_within_the_range_of_the_metric(
    n: int, classes: int, right: float, seed: int
) -> None:
    for low, high in intervals("classification", *classified(n, classes, right, seed)).values():
        assert 0 <= low <= high <= 1


def test_coverage_of_the_accuracy_interval_is_about_95_percent() -> None:
    """300 test sets of 400 examples have a true accuracy of 0.8; the standard error of the coverage is 0.0126."""
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


def test_constant_targets_have_no_interval_for_r2() -> None:
    outputs = RNG(0).normal(size=(50, 1))
    bounds = intervals("regression", np.ones((50, 1)), outputs)
    assert set(bounds) == {"rmse", "mae"}


def test_intervals_are_reproducible() -> None:
    data = classified(300, 4, 0.6, 2)
    assert intervals("classification", *data) == intervals("classification", *data)
