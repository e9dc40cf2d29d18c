"""Tests of effect sizes and the coverage of their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.compare.effects import of_examples, of_pairs, of_samples

finite = st.floats(-1e3, 1e3)
samples = st.lists(finite, min_size=3, max_size=12)


def test_of_pairs_matches_hand_calculation() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t(0.975, 2) = 4.302653."""
    effect = of_pairs([1.0, 2.0, 3.0], 0.95)
    assert (effect.low, effect.high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    assert effect.detectable == pytest.approx((4.302653 + 2.919986) / math.sqrt(3))


def test_of_samples_matches_scipy() -> None:
    from scipy.stats import ttest_ind

    base, new = [3.1, 2.9, 3.4, 3.3], [3.9, 4.4, 3.2]
    wanted = ttest_ind(new, base, equal_var=False).confidence_interval(0.99)
    effect = of_samples(base, new, 0.99)
    assert (effect.low, effect.high) == pytest.approx((wanted.low, wanted.high))


@given(samples, samples)
def test_of_samples_exchanged_sides_negates_the_interval(base: list[float], new: list[float]) -> None:
    there, back = of_samples(base, new, 0.99), of_samples(new, base, 0.99)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    assert there.low <= there.value <= there.high


@given(samples)
def test_of_samples_equal_sides_includes_zero(values: list[float]) -> None:
    effect = of_samples(values, values, 0.99)
    assert effect.low <= 0 <= effect.high


def test_of_pairs_resolution_widens_equal_differences() -> None:
    step = 1 / 500
    assert of_pairs([step, step, step], 0.99).low > 0
    assert of_pairs([step, step, step], 0.99, resolution=step).low < 0


@pytest.mark.parametrize("paired", [True, False])
def test_false_positive_rate_is_at_most_nominal(paired: bool) -> None:
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(4000):
        base, new = rng.normal(0, 1, (2, 5))
        effect = of_pairs(list(new - base), 0.99) if paired else of_samples(list(base), list(new), 0.99)
        wrong += not effect.low <= 0 <= effect.high
    assert wrong / 4000 <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 4000)


def test_detectable_difference_is_found_with_nominal_power() -> None:
    rng = np.random.default_rng(2)
    noise, found = 0.01, 0
    true = of_samples(list(rng.normal(0, noise, 2000)), list(rng.normal(0, noise, 2000)), 0.99)
    per_run = true.detectable * math.sqrt(1000)  # one standard error of 2 x 2000 is noise / sqrt(1000)
    size = 12
    for _ in range(1000):
        base = rng.normal(0, noise, size)
        new = rng.normal(
            per_run / math.sqrt(size / 2) * 1.15, noise, size
        )  # the quantile of t with 22 degrees of freedom is up to 15% larger
        found += of_samples(list(base), list(new), 0.99).low > 0
    assert found / 1000 > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_of_examples_matches_normal_approximation() -> None:
    """60 of 1000 examples improve and 20 get worse: 0.04, with standard error sqrt(0.08 - 0.04^2) / sqrt(1000)."""
    base, new = np.zeros(1000), np.zeros(1000)
    new[:60], base[60:80] = 1, 1
    effect = of_examples(base, new, lambda means: means, 0.95)
    error = math.sqrt((0.08 - 0.04**2) / 1000)
    assert effect.value == pytest.approx(0.04)
    assert (effect.low, effect.high) == pytest.approx((0.04 - 1.96 * error, 0.04 + 1.96 * error), abs=0.1 * error)


def test_of_examples_equal_predictions_is_zero() -> None:
    errors = np.linspace(0, 3, 50)
    effect = of_examples(errors, errors, lambda means: means**0.5, 0.99)
    assert effect == (0.0, 0.0, 0.0, 0.0)
