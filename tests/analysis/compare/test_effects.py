"""Tests of effect sizes and the coverage of their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from harness.analysis.compare.effects import of_hits, of_pairs, of_samples, of_sessions, of_squares, of_turns

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


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 0), (9, 1), (0, 8), (0, 9), (60, 20), (300, 290)])
@pytest.mark.parametrize("confidence", [0.95, 0.99, 0.999])
def test_of_hits_includes_zero_if_mcnemars_exact_test_is_not_significant(
    gained: int, lost: int, confidence: float
) -> None:
    base, new = np.zeros(1000), np.zeros(1000)
    new[:gained], base[gained : gained + lost] = 1, 1
    effect = of_hits(base, new, confidence)
    assert effect.low <= effect.value == (gained - lost) / 1000 <= effect.high
    significant = gained + lost > 0 and binomtest(gained, gained + lost).pvalue < 1 - confidence
    assert significant or effect.low <= 0 <= effect.high


def test_of_hits_matches_normal_approximation() -> None:
    """60 of 1000 examples improve and 20 get worse: 0.04, with standard error sqrt(0.08 - 0.04^2) / sqrt(1000)."""
    base, new = np.zeros(1000), np.zeros(1000)
    new[:60], base[60:80] = 1, 1
    effect, reach = of_hits(base, new, 0.95), 1.96 * math.sqrt(0.08 - 0.04**2) / math.sqrt(1000)
    assert (effect.low, effect.high) == pytest.approx((0.04 - reach, 0.04 + reach), abs=0.15 * reach)
    assert effect.detectable == pytest.approx((1.96 + 1.645) * math.sqrt(80) / 1000, rel=1e-3)


@pytest.mark.parametrize(
    ("n", "gained", "lost"), [(50, 0.05, 0.05), (360, 0.015, 0.015), (100, 0.1, 0.0), (1000, 0.08, 0.01)]
)
def test_of_hits_covers_the_true_difference(n: int, gained: float, lost: float) -> None:
    """At this confidence level, a percentile bootstrap reports 0.2% to 0.5% false differences."""
    rng, confidence, missed, samples = np.random.default_rng(3), 1 - 0.01 / 6, 0, 3000
    for _ in range(samples):
        right, wrong, _same = rng.multinomial(n, [gained, lost, 1 - gained - lost])
        base, new = np.zeros(n), np.zeros(n)
        new[:right], base[right : right + wrong] = 1, 1
        effect = of_hits(base, new, confidence)
        missed += not effect.low <= gained - lost <= effect.high
    assert missed <= samples * 0.0017 + 3 * math.sqrt(samples * 0.0017)


def test_of_turns_is_wider_than_of_pairs_by_ten_percent() -> None:
    pairs, turns = of_pairs([1.0, 2.0, 3.0], 0.95), of_turns([1.0, 2.0, 3.0], 0.95)
    assert turns.value == pairs.value
    assert turns.high - turns.low == pytest.approx(1.1 * (pairs.high - pairs.low))
    assert turns.detectable == pytest.approx(1.1 * pairs.detectable)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("size", [5, 20])
def test_of_turns_false_positive_rate_is_at_most_nominal_for_autocorrelated_noise(
    size: int, correlation: float
) -> None:
    rng, samples = np.random.default_rng(5), 4000
    noise = rng.standard_normal((samples, 2 * size))
    for position in range(1, 2 * size):
        noise[:, position] *= math.sqrt(1 - correlation**2)
        noise[:, position] += correlation * noise[:, position - 1]
    noise += np.linspace(0, 10, 2 * size)  # a drift of ten standard deviations
    differences = (noise[:, 1::2] - noise[:, ::2]) * np.resize([1, -1], size)
    wrong = sum(not effect.low <= 0 <= effect.high for effect in (of_turns(list(row), 0.99) for row in differences))
    assert wrong <= samples * 0.01 + 3 * math.sqrt(samples * 0.01)


def test_of_squares_matches_hand_calculation() -> None:
    """RMSE 1 and 2; the terms differ by 1, with deviations of (4 - 4) / 4 - (e - 1) / 2 for e = 0, 2, 0, 2."""
    effect = of_squares(np.array([0.0, 2.0, 0.0, 2.0]), np.array([4.0, 4.0, 4.0, 4.0]), 0.95)
    reach = 3.182446 * math.sqrt(1 / 3) / 2
    assert (effect.value, effect.low, effect.high) == pytest.approx((1.0, 1.0 - reach, 1.0 + reach), rel=1e-5)


def test_of_squares_equal_or_perfect_predictions_is_zero() -> None:
    errors = np.linspace(0, 3, 50)
    assert of_squares(errors, errors, 0.99) == of_squares(0 * errors, 0 * errors, 0.99) == (0.0, 0.0, 0.0, 0.0)


def test_of_sessions_does_not_narrow_with_the_number_of_runs() -> None:
    base, new = [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]
    few, many = of_sessions(base, new, 0.99), of_sessions(base * 20, new * 20, 0.99)
    assert few.value == many.value == 1.0
    assert many.high - many.low > 2 * 2.6 * math.sqrt(2 * 0.67)
    assert of_samples(base, new, 0.99).high < few.high


@pytest.mark.parametrize("size", [3, 5, 10, 20])
@pytest.mark.parametrize("drift", [0.1, -0.1, 1.0])
def test_of_sessions_does_not_report_a_linear_drift(size: int, drift: float) -> None:
    values = [drift * position for position in range(2 * size)]
    effect = of_sessions(values[:size], values[size:], 1 - 0.01 / 6)
    assert effect.low < 0 < effect.high
    welch = of_samples(values[:size], values[size:], 1 - 0.01 / 6)
    assert size < 5 or not welch.low < 0 < welch.high
