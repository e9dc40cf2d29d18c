"""Where the steady state of a series of timed windows begins, what its median is, and what is suspicious about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.records import FlagKind, Protocol, Steady

SIGNIFICANT = 0.01
"""Level of the tests for drift and for two modes."""
RELEVANT = 0.02
"""Share of the median below which a drift, or the distance of two modes, is not worth a flag."""
MAX_TESTED = 1000
"""Windows that are looked at for drift and modes; of more, evenly spaced ones."""


class Window(NamedTuple):
    batches: int
    """Training steps, or batches of inference."""
    seconds: float


Array = NDArray[np.float64]


def per_second(windows: Sequence[Window], batch_size: int) -> Array:
    """Samples a second of each window."""
    return np.array([window.batches * batch_size / window.seconds for window in windows], np.float64)


def warmup(rates: Array) -> int:
    """How many windows at the start do not belong to the steady state: at most half of them.

    MSER (White 1997, Simulation 69, 323-334): leaving out d, the squared standard error of the mean of what remains,
    sum of squared deviations / (n - d)^2, is smallest.
    """
    n = len(rates)
    if n < 4:
        return 0
    centered = rates - rates[-1]  # so that the sums of squares do not cancel
    remaining = np.arange(n, 0, -1)
    sums, squares = (np.cumsum(x[::-1])[::-1] for x in (centered, centered**2))
    errors = np.maximum(squares - sums**2 / remaining, 0.0) / remaining**2
    return int(np.argmin(errors[: n // 2 + 1]))


def median_interval(values: Array) -> tuple[float, float] | None:
    """Order statistics that hold the median with at least 95% confidence, whatever the distribution; None for fewer
    than the six values that this takes.

    The k-th smallest and k-th largest of n do with probability 1 - 2 P(X < k), X binomial (n, 1/2) (Conover 1999,
    Practical Nonparametric Statistics, section 3.2).
    """
    n = len(values)
    if n < 6:
        return None
    # In whole numbers: 2^n P(X <= k) is a sum of binomial coefficients.
    k, coefficient, below = 0, 1, 1
    while 40 * below <= 1 << n:
        k += 1
        coefficient = coefficient * (n - k + 1) // k
        below += coefficient
    ordered = np.sort(values)
    return float(ordered[k - 1]), float(ordered[n - k])


def is_enough(windows: Sequence[Window], protocol: Protocol) -> bool:
    """Return whether the windows after warm-up meet the protocol: their number, length and median's interval."""

    def are_enough(steady: Sequence[Window]) -> bool:
        seconds = sum(window.seconds for window in steady)
        return len(steady) >= protocol.min_steady_windows and seconds >= protocol.min_steady_s

    if not are_enough(windows):  # saves the search for the end of warm-up
        return False
    rates = per_second(windows, 1)
    start = warmup(rates)
    return are_enough(windows[start:]) and _relative_half_width(rates[start:]) <= protocol.max_relative_half_width


def summary(windows: Sequence[Window], batch_size: int, protocol: Protocol) -> tuple[float, Steady]:
    """The median of samples a second over the steady state of at least one window, and what it rests on."""
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
    """Return kinds and details of flags: an interval wider than the protocol asks for, a drift, two modes."""
    rates = per_second(windows, 1)
    rates = rates[warmup(rates) :]
    flags: list[tuple[FlagKind, str]] = []
    width, limit = _relative_half_width(rates), protocol.max_relative_half_width
    if width > limit:
        actual = "cannot be given" if np.isinf(width) else f"is ±{width:.1%} of it"
        flags.append(("wide", f"the 95% interval of the median {actual}; asked for was ±{limit:.1%}"))
    if len(rates) > MAX_TESTED:
        rates = rates[np.linspace(0, len(rates) - 1, MAX_TESTED).astype(int)]
    drift = _drift(rates)
    if drift is not None:
        flags.append(("drift", f"throughput moved by {drift:+.1%} from the first window to the last"))
    modes = _modes(rates)
    if modes is not None:
        flags.append(("bimodal", f"the windows fall into two groups, {modes:.1%} apart"))
    return flags


def _relative_half_width(rates: Array) -> float:
    """Return half of the median's interval as a fraction of the median; infinite where there is no interval."""
    interval = median_interval(rates)
    return float("inf") if interval is None else float((interval[1] - interval[0]) / 2 / np.median(rates))


def _drift(rates: Array) -> float | None:
    """Change over the whole series, as a share of the median, by the slope of Theil and Sen (Sen 1968, Journal of the
    American Statistical Association 63, 1379-1389); None where it is not relevant, or not significant by the test of
    Mann (1945, Econometrica 13, 245-259) in its normal approximation."""
    n = len(rates)
    if n < 10:  # below, the approximation is poor
        return None
    early, late = np.triu_indices(n, 1)
    steps = rates[late] - rates[early]
    change = float(np.median(steps / (late - early))) * (n - 1) / float(np.median(rates))
    balance = abs(int(np.sign(steps).sum()))
    z = (balance - 1) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    significant = math.erfc(z / math.sqrt(2)) < SIGNIFICANT
    return change if significant and abs(change) > RELEVANT else None


def _modes(rates: Array) -> float | None:
    """Distance of two modes as a share of the median, where the dip test finds more than one (Hartigan and Hartigan
    1985, Annals of Statistics 13, 70-84). The groups are those of the cut that leaves the least variance in them."""
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
