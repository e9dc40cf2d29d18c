"""Intervals that hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.compare.effects import of_examples, of_pairs, of_samples

finite = st.floats(-1e3, 1e3)
samples = st.lists(finite, min_size=3, max_size=12)


def test_pairs_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.302653."""
    effect = of_pairs([1.0, 2.0, 3.0], 0.95)
    assert (effect.low, effect.high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    assert effect.detectable == pytest.approx((4.302653 + 2.919986) / math.sqrt(3))


def test_samples_agree_with_scipy() -> None:
    from scipy.stats import ttest_ind

    base, new = [3.1, 2.9, 3.4, 3.3], [3.9, 4.4, 3.2]
    wanted = ttest_ind(new, base, equal_var=False).confidence_interval(0.99)
    effect = of_samples(base, new, 0.99)
    assert (effect.low, effect.high) == pytest.approx((wanted.low, wanted.high))


@given(samples, samples)
def test_sides_may_be_exchanged(base: list[float], new: list[float]) -> None:
    there, back = of_samples(base, new, 0.99), of_samples(new, base, 0.99)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    assert there.low <= there.value <= there.high


@given(samples)
def test_what_is_the_same_is_not_told_apart(values: list[float]) -> None:
    effect = of_samples(values, values, 0.99)
    assert effect.low <= 0 <= effect.high


def test_equal_differences_of_one_example_are_no_certainty() -> None:
    step = 1 / 500
    assert of_pairs([step, step, step], 0.99).low > 0
    assert of_pairs([step, step, step], 0.99, resolution=step).low < 0


@pytest.mark.parametrize("paired", [True, False])
def test_no_difference_is_called_one_as_rarely_as_promised(paired: bool) -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(4000):
        base, new = rng.normal(0, 1, (2, 5))
        effect = of_pairs(list(new - base), 0.99) if paired else of_samples(list(base), list(new), 0.99)
        wrong += not effect.low <= 0 <= effect.high
    assert wrong / 4000 <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 4000)


def test_the_detectable_difference_is_found_as_often_as_promised() -> None:
    rng = np.random.default_rng(2)
    noise, found = 0.01, 0
    true = of_samples(list(rng.normal(0, noise, 2000)), list(rng.normal(0, noise, 2000)), 0.99)
    per_run = true.detectable * math.sqrt(1000)  # one standard error of 2 x 2000 is noise / sqrt(1000)
    size = 12
    for _ in range(1000):
        base = rng.normal(0, noise, size)
        new = rng.normal(per_run / math.sqrt(size / 2) * 1.15, noise, size)  # t of 22 degrees reaches 15% further
        found += of_samples(list(base), list(new), 0.99).low > 0
    assert found / 1000 > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_examples_by_the_binomial() -> None:
    """Of 1000 examples 60 are won and 20 lost: 0.04 more, with a standard error of sqrt(0.08 - 0.04^2) / sqrt(1000)."""
    base, new = np.zeros(1000), np.zeros(1000)
    new[:60], base[60:80] = 1, 1
    effect = of_examples(base, new, lambda means: means, 0.95)
    error = math.sqrt((0.08 - 0.04**2) / 1000)
    assert effect.value == pytest.approx(0.04)
    assert (effect.low, effect.high) == pytest.approx((0.04 - 1.96 * error, 0.04 + 1.96 * error), abs=0.1 * error)


def test_equal_predictions_differ_by_nothing() -> None:
    errors = np.linspace(0, 3, 50)
    effect = of_examples(errors, errors, lambda means: means**0.5, 0.99)
    assert effect == (0.0, 0.0, 0.0, 0.0)
