"""Tests of means, confidence intervals and percentiles."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.measure.stats import MINIMUM_SAMPLES, mean, percentile

values = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30)


def test_mean_of_a_textbook_sample() -> None:
    # s = 2.1381, n = 8, t(0.975, 7) = 2.364624
    result = mean([2, 4, 4, 4, 5, 5, 7, 9])
    assert result.value == 5
    assert result.ci95 == pytest.approx(2.364624 * 2.1380899 / math.sqrt(8), rel=1e-6)
    assert result.n == 8


def test_one_value_has_no_interval() -> None:
    assert mean([3.5]) == (3.5, None, 1)


@given(st.floats(-1e9, 1e9), st.integers(2, 20))
@settings(deadline=None)
def test_equal_values_have_an_interval_of_exactly_zero(value: float, n: int) -> None:
    assert mean([value] * n) == (value, 0.0, n)


@given(values)
@settings(deadline=None)  # the first example imports scipy
def test_mean_is_within_the_values_and_agrees_with_scipy(sample: list[float]) -> None:
    result = mean(sample)
    slack = 1e-12 * max(map(abs, sample))
    assert min(sample) - slack <= result.value <= max(sample) + slack
    if len(sample) > 1 and max(sample) - min(sample) > 1e-6:
        from scipy import stats

        low, high = stats.t.interval(0.95, len(sample) - 1, loc=result.value, scale=stats.sem(sample))
        assert result.ci95 == pytest.approx((high - low) / 2, rel=1e-6)


def test_mean_over_overlapping_splits_has_the_interval_of_nadeau_and_bengio() -> None:
    # 10 random splits with 20% test examples: t(0.975, 9) = 2.262157, variance s^2 (1/10 + 0.2/0.8)
    sample = [0.8 + 0.01 * number for number in range(10)]
    deviation = 0.030276504
    assert mean(sample, 0.25).ci95 == pytest.approx(2.262157 * deviation * math.sqrt(0.35), rel=1e-6)


@pytest.mark.parametrize("wrong", [[], [1.0, float("nan")], [float("inf")]])
def test_mean_without_finite_values_is_an_error(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="cannot compute the mean"):
        mean(wrong)


@pytest.mark.parametrize(("percent", "least"), [(50, 11), (90, 64), (95, 130), (99, 662), (99.9, 6636)])
def test_percentile_requires_a_minimum_number_of_samples(percent: float, least: int) -> None:
    assert percentile(range(least - 1), percent) is None
    assert percentile(range(1, least + 1), percent) == math.ceil(round(percent / 100 * least, 9))


@pytest.mark.parametrize("percent", MINIMUM_SAMPLES)
def test_minimum_samples_follow_the_documented_rule(percent: float) -> None:
    def probability_that_the_second_largest_is_too_small(n: int) -> float:
        q = percent / 100
        return q**n + n * (1 - q) * q ** (n - 1)

    least = MINIMUM_SAMPLES[percent]
    assert probability_that_the_second_largest_is_too_small(least) <= 0.01
    assert probability_that_the_second_largest_is_too_small(least - 1) > 0.01


def test_rank_is_computed_exactly() -> None:
    assert percentile(range(1, 10_001), 99.9) == 9990
    assert percentile(range(1, 1001), 99) == 990


@given(st.lists(st.floats(0, 1e6), min_size=64, max_size=200))
def test_percentile_is_a_sample_with_enough_samples_on_both_sides(samples: list[float]) -> None:
    result = percentile(samples, 90)
    assert result in samples
    assert sum(sample <= result for sample in samples) >= 0.9 * len(samples)
    assert sum(sample >= result for sample in samples) >= 0.1 * len(samples)


def test_unsupported_percentile_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"must be one of 50, 90, 95, 99, 99\.9, got 42"):
        percentile(range(1000), 42)
