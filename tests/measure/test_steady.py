"""Detection of the steady state, and its statistics."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from harness.measure.steady import Window, is_enough, median_interval, per_second, summary, suspicions, warmup
from harness.records import Protocol

RNG = np.random.default_rng
PROTOCOL = Protocol(window_s=0.1, min_steady_windows=10, min_steady_s=1.0, max_relative_half_width=0.02)


def windows(rates: np.ndarray, batches: int = 100) -> list[Window]:
    return [Window(batches, batches / float(rate)) for rate in rates]


def noisy(n: int, seed: int = 0, share: float = 0.01, level: float = 1000.0) -> np.ndarray:
    return level * (1 + share * RNG(seed).standard_normal(n))


def kinds(rates: np.ndarray, protocol: Protocol = PROTOCOL) -> set[str]:
    return {kind for kind, _ in suspicions(windows(rates), protocol)}


@pytest.mark.parametrize("length", [3, 8, 15])
def test_all_of_the_warm_up_is_left_out_and_mostly_little_more(length: int) -> None:
    """The rule may take a lucky stretch of noise for more warm-up; it must not leave any of the ramp in."""
    found = [warmup(np.concatenate([np.linspace(300, 900, length), noisy(40, seed)])) for seed in range(100)]
    assert min(found) >= length - 1
    assert np.median(found) <= length + 3


def test_half_of_the_windows_are_kept() -> None:
    assert warmup(np.linspace(1, 1000, 50)) == 25
    assert [warmup(np.ones(n)) for n in (0, 1, 3)] == [0, 0, 0]


def test_a_steady_series_loses_little() -> None:
    lost = [warmup(noisy(40, seed)) for seed in range(200)]
    assert np.median(lost) <= 2


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_the_median_lies_in_its_interval_and_windows_add_up(rates: list[float]) -> None:
    timed = windows(np.array(rates))
    rate, steady = summary(timed, 32, PROTOCOL)
    assert steady.warmup_windows + steady.windows == len(rates)
    assert steady.windows >= 1
    assert rate == pytest.approx(np.median(per_second(timed, 32)[steady.warmup_windows :]))
    if steady.windows >= 6:
        assert steady.low is not None
        assert steady.high is not None
        assert steady.low <= rate <= steady.high
    else:
        assert steady.low is steady.high is None


@pytest.mark.parametrize("n", [6, 7, 10, 33, 120, 1500])
def test_interval_of_the_median_is_the_narrowest_with_95_percent(n: int) -> None:
    values = np.arange(1.0, n + 1)
    found = median_interval(RNG(n).permutation(values))
    assert found is not None
    k = int(found[0])
    assert found == (k, n + 1 - k)
    assert 1 - 2 * binom.cdf(k - 1, n, 0.5) >= 0.95 > 1 - 2 * binom.cdf(k, n, 0.5)


def test_five_values_have_no_interval() -> None:
    assert median_interval(np.ones(5)) is None


def test_enough_is_windows_and_seconds_and_an_interval() -> None:
    rates = noisy(30)
    assert is_enough(windows(rates), PROTOCOL)
    assert not is_enough(windows(rates[:9]), PROTOCOL)
    assert not is_enough(windows(rates, batches=1), PROTOCOL)
    assert not is_enough(windows(noisy(30, share=0.2)), PROTOCOL)
    assert summary(windows(rates), 1, PROTOCOL)[1].ended == "target"
    assert summary(windows(rates[:9]), 1, PROTOCOL)[1].ended == "budget"


def test_a_quiet_series_is_not_suspicious() -> None:
    assert kinds(noisy(60)) == set()


def test_a_drift_is_told_with_its_size() -> None:
    # More than half is left out as warm-up; what remains still falls by half of the 12 percent.
    found = suspicions(windows(np.linspace(1060, 940, 80) * noisy(80, level=1.0, share=0.003)), PROTOCOL)
    (detail,) = (detail for kind, detail in found if kind == "drift")
    moved = float(detail.split("by ")[1].split("%")[0])
    assert -7 < moved < -5


def test_two_modes_are_told_with_their_distance() -> None:
    rates = np.where(RNG(1).random(80) < 0.4, 900, 1000) * noisy(80, level=1.0, share=0.005)
    found = dict(suspicions(windows(rates), PROTOCOL))
    assert "10." in found["bimodal"] or "9." in found["bimodal"]


def test_a_wide_interval_is_told() -> None:
    assert "wide" in kinds(noisy(30, share=0.2))
    assert "wide" in kinds(noisy(4))


def test_modes_or_drift_that_hardly_matter_are_not_told() -> None:
    near = np.where(RNG(1).random(80) < 0.4, 995, 1000) * noisy(80, level=1.0, share=0.0002)
    assert kinds(near) == set()
    assert "drift" not in kinds(np.linspace(1000, 1005, 80))


def test_independent_noise_is_flagged_at_most_as_often_as_the_tests_level() -> None:
    """Drift and modes are each tested at 1%, and must also be relevant; of 1000 series no more than 30 may be flagged
    (binomial, 1% and some windows left out as warm-up: 30 has probability 1e-7)."""
    drift = bimodal = 0
    for seed in range(1000):
        found = kinds(noisy(30, seed, share=0.03), Protocol(max_relative_half_width=1.0))
        drift += "drift" in found
        bimodal += "bimodal" in found
    assert drift <= 30
    assert bimodal <= 30


def test_coverage_of_the_interval_is_at_least_95_percent() -> None:
    """On lognormal noise, whose median is known; 2000 series of 25."""
    covered = 0
    for seed in range(2000):
        values = np.exp(RNG(seed).standard_normal(25))
        ends = median_interval(values)
        assert ends is not None
        covered += ends[0] <= 1.0 <= ends[1]
    spread = math.sqrt(0.95 * 0.05 / 2000)
    assert covered / 2000 >= 0.95 - NormalDist().inv_cdf(0.999) * spread
