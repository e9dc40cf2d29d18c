"""Steady state of a series of timed windows.

This module determines the start and the median of the steady state, and tests the series for drift and bimodality.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.records import FlagKind, Protocol, Steady

SIGNIFICANT = 0.01
"""Significance level for the drift and bimodality tests."""
RELEVANT = 0.02
"""A flag is set only if the drift, or the distance between two modes, exceeds this fraction of the median."""
MAX_TESTED = 1000
"""Maximum number of windows tested for drift and bimodality. In longer series, evenly spaced windows are tested."""


class Window(NamedTuple):
    batches: int
    """Number of training steps or inference batches."""
    seconds: float


Array = NDArray[np.float64]


def per_second(windows: Sequence[Window], batch_size: int) -> Array:
    """Return the throughput of each window in samples per second."""
    return np.array([window.batches * batch_size / window.seconds for window in windows], np.float64)


def warmup(rates: Array) -> int:
    """Return the number of warm-up windows before the steady state (at most half of all windows).

    The MSER rule (White 1997, Simulation 69, 323-334) selects the number of warm-up windows that minimizes the squared
    standard error of the mean over the remaining windows. This error is estimated as the sum of squared deviations
    divided by the squared number of remaining windows.
    """
    n = len(rates)
    if n < 4:
        return 0
    centered = rates - rates[-1]  # subtracting any rate avoids cancellation in the sums of squares
    remaining = np.arange(n, 0, -1)
    sums, squares = (np.cumsum(x[::-1])[::-1] for x in (centered, centered**2))
    errors = np.maximum(squares - sums**2 / remaining, 0.0) / remaining**2
    return int(np.argmin(errors[: n // 2 + 1]))


def median_interval(values: Array) -> tuple[float, float] | None:
    """Return a confidence interval for the median of independent values, or None if there are fewer than six values.

    The confidence level is at least 95% for any distribution. The limits of the interval are the k-th smallest and the
    k-th largest of n values. The interval contains the median with probability 1 - 2 P(X < k), where X ~ binomial(n,
    1/2) (Conover 1999, Practical Nonparametric Statistics, section 3.2).

    The windows of one run are not independent. For these windows, the interval is therefore only a measure of spread,
    called the within-run range.
    """
    n = len(values)
    if n < 6:
        return None
    # 2^n P(X <= k) is a sum of binomial coefficients, so the comparison is exact in integer arithmetic.
    k, coefficient, below = 0, 1, 1
    while 40 * below <= 1 << n:
        k += 1
        coefficient = coefficient * (n - k + 1) // k
        below += coefficient
    ordered = np.sort(values)
    return float(ordered[k - 1]), float(ordered[n - k])


def is_enough(windows: Sequence[Window], protocol: Protocol) -> bool:
    """Return True if the number of windows, the duration and the precision of the steady state meet the requirements of
    the protocol."""

    def are_enough(steady: Sequence[Window]) -> bool:
        seconds = sum(window.seconds for window in steady)
        return len(steady) >= protocol.min_steady_windows and seconds >= protocol.min_steady_s

    if not are_enough(windows):  # cheap check before the warm-up is determined
        return False
    rates = per_second(windows, 1)
    start = warmup(rates)
    return are_enough(windows[start:]) and _relative_half_width(rates[start:]) <= protocol.max_relative_half_width


def summary(windows: Sequence[Window], batch_size: int, protocol: Protocol) -> tuple[float, Steady]:
    """Return the median throughput in samples per second and a description of the steady state."""
    rates = per_second(windows, batch_size)
    start = warmup(rates)
    low, high = median_interval(rates[start:]) or (None, None)
    return float(np.median(rates[start:])), Steady(
        windows=len(windows) - start,
        seconds=float(sum(window.seconds for window in windows[start:])),
        warmup_windows=start,
        low=low,
        high=high,
        ended="target" if is_enough(windows, protocol) else "budget",
    )


def suspicions(windows: Sequence[Window], protocol: Protocol) -> list[tuple[FlagKind, str]]:
    """Return the kind and details of each flag.

    Flags are set for a wide confidence interval of the median, for drift, and for bimodality.
    """
    rates = per_second(windows, 1)
    rates = rates[warmup(rates) :]
    flags: list[tuple[FlagKind, str]] = []
    width, limit = _relative_half_width(rates), protocol.max_relative_half_width
    if width > limit:
        actual = "is not defined" if np.isinf(width) else f"is ±{width:.1%}"
        flags.append(("wide", f"the within-run range of the median {actual}; the protocol requires ±{limit:.1%}"))
    if len(rates) > MAX_TESTED:
        rates = rates[np.linspace(0, len(rates) - 1, MAX_TESTED).astype(int)]
    drift = _drift(rates)
    if drift is not None:
        flags.append(("drift", f"throughput changed by {drift:+.1%} from the first window to the last"))
    modes = _modes(rates)
    if modes is not None:
        flags.append(("bimodal", f"the throughput values of the windows form two groups that are {modes:.1%} apart"))
    return flags


def _relative_half_width(rates: Array) -> float:
    """Return the half-width of the within-run range as a fraction of the median.

    Return infinity if the range is undefined.
    """
    interval = median_interval(rates)
    return float("inf") if interval is None else float((interval[1] - interval[0]) / 2 / np.median(rates))


def _drift(rates: Array) -> float | None:
    """Return the drift over the series as a fraction of the median.

    Return None if the drift is too small or not significant.

    The slope is estimated with the Theil-Sen estimator (Sen 1968, Journal of the American Statistical Association 63,
    1379-1389). The significance of the slope is tested with the normal approximation of the Mann-Kendall test (Mann
    1945, Econometrica 13, 245-259).
    """
    n = len(rates)
    if n < 10:  # the normal approximation is poor for fewer values
        return None
    early, late = np.triu_indices(n, 1)
    steps = rates[late] - rates[early]
    change = float(np.median(steps / (late - early))) * (n - 1) / float(np.median(rates))
    balance = abs(int(np.sign(steps).sum()))
    z = (balance - 1) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    significant = math.erfc(z / math.sqrt(2)) < SIGNIFICANT
    return change if significant and abs(change) > RELEVANT else None


def _modes(rates: Array) -> float | None:
    """Return the distance between two modes as a fraction of the median.

    Return None if the distance is too small or not significant.

    Bimodality is tested with the dip test (Hartigan and Hartigan 1985, Annals of Statistics 13, 70-84). The values are
    split into two groups such that the variance within the groups is minimal.
    """
    if len(rates) < 12 or rates.min() == rates.max():
        return None
    from diptest import diptest

    if diptest(rates)[1] >= SIGNIFICANT:
        return None
    ordered = np.sort(rates)
    cuts = range(1, len(ordered))
    cut = min(cuts, key=lambda i: ordered[:i].var() * i + ordered[i:].var() * (len(ordered) - i))
    apart = float((np.median(ordered[cut:]) - np.median(ordered[:cut])) / np.median(ordered))
    return apart if apart > RELEVANT else None
