"""Tests of the detection of the steady state and of its flags."""

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


def noisy(n: int, seed: int = 0, spread: float = 0.01, level: float = 1000.0) -> np.ndarray:
    return level * (1 + spread * RNG(seed).standard_normal(n))


def kinds(rates: np.ndarray, protocol: Protocol = PROTOCOL) -> set[str]:
    return {kind for kind, _ in suspicions(windows(rates), protocol)}


@pytest.mark.parametrize("length", [3, 8, 15])
def test_warm_up_is_removed_and_little_else(length: int) -> None:
    """The rule may count some of the noise as warm-up, but must not keep any of the ramp."""
    lengths = [warmup(np.concatenate([np.linspace(300, 900, length), noisy(40, seed)])) for seed in range(100)]
    assert min(lengths) >= length - 1
    assert np.median(lengths) <= length + 3


def test_at_least_half_of_the_windows_are_kept() -> None:
    assert warmup(np.linspace(1, 1000, 50)) == 25
    assert [warmup(np.ones(n)) for n in (0, 1, 3)] == [0, 0, 0]


def test_steady_series_loses_few_windows() -> None:
    lost = [warmup(noisy(40, seed)) for seed in range(200)]
    assert np.median(lost) <= 2


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_interval_contains_the_median_and_windows_add_up(rates: list[float]) -> None:
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
    interval = median_interval(RNG(n).permutation(values))
    assert interval is not None
    k = int(interval[0])
    assert interval == (k, n + 1 - k)
    assert 1 - 2 * binom.cdf(k - 1, n, 0.5) >= 0.95 > 1 - 2 * binom.cdf(k, n, 0.5)


def test_five_values_have_no_interval() -> None:
    assert median_interval(np.ones(5)) is None


def test_is_enough_requires_windows_seconds_and_precision() -> None:
    rates = noisy(30)
    assert is_enough(windows(rates), PROTOCOL)
    assert not is_enough(windows(rates[:9]), PROTOCOL)
    assert not is_enough(windows(rates, batches=1), PROTOCOL)
    assert not is_enough(windows(noisy(30, spread=0.2)), PROTOCOL)
    assert summary(windows(rates), 1, PROTOCOL)[1].ended == "target"
    assert summary(windows(rates[:9]), 1, PROTOCOL)[1].ended == "budget"


def test_steady_series_has_no_flags() -> None:
    assert kinds(noisy(60)) == set()


def test_drift_is_flagged_with_its_size() -> None:
    # Half of the windows are removed as warm-up; the rate decreases by half of the 12 percent over the others.
    flags = suspicions(windows(np.linspace(1060, 940, 80) * noisy(80, level=1.0, spread=0.003)), PROTOCOL)
    (detail,) = (detail for kind, detail in flags if kind == "drift")
    change = float(detail.split("by ")[1].split("%")[0])
    assert -7 < change < -5


def test_two_modes_are_flagged_with_their_distance() -> None:
    rates = np.where(RNG(1).random(80) < 0.4, 900, 1000) * noisy(80, level=1.0, spread=0.005)
    details = dict(suspicions(windows(rates), PROTOCOL))
    assert "10." in details["bimodal"] or "9." in details["bimodal"]


def test_wide_interval_is_flagged() -> None:
    assert "wide" in kinds(noisy(30, spread=0.2))
    assert "wide" in kinds(noisy(4))


def test_irrelevant_modes_and_drift_are_not_flagged() -> None:
    near = np.where(RNG(1).random(80) < 0.4, 995, 1000) * noisy(80, level=1.0, spread=0.0002)
    assert kinds(near) == set()
    assert "drift" not in kinds(np.linspace(1000, 1005, 80))


def test_independent_noise_is_rarely_flagged() -> None:
    """Drift and modes are tested at 1% each and must also be relevant. More than 30 flags in 1000 series have a
    probability of about 1e-7."""
    drift = bimodal = 0
    for seed in range(1000):
        flagged = kinds(noisy(30, seed, spread=0.03), Protocol(max_relative_half_width=1.0))
        drift += "drift" in flagged
        bimodal += "bimodal" in flagged
    assert drift <= 30
    assert bimodal <= 30


def test_coverage_of_the_interval_of_independent_values_is_at_least_95_percent() -> None:
    """2000 series of 25 lognormal values, whose median is known, are sampled."""
    covered = 0
    for seed in range(2000):
        values = np.exp(RNG(seed).standard_normal(25))
        ends = median_interval(values)
        assert ends is not None
        covered += ends[0] <= 1.0 <= ends[1]
    deviation = math.sqrt(0.95 * 0.05 / 2000)
    assert covered / 2000 >= 0.95 - NormalDist().inv_cdf(0.999) * deviation
