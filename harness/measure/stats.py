"""Means with intervals, and percentiles that are not given below the sample count they need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = Sequence[float] | NDArray[np.floating]

MINIMUM_SAMPLES = {50.0: 11, 90.0: 64, 95.0: 130, 99.0: 662, 99.9: 6636}
"""Percentile -> samples it needs at least.

The smallest n at which the second largest sample is, with 99% confidence, not below the true percentile, whatever
the distribution: P(at most one of n samples exceeds it) = q^n + n (1 - q) q^(n-1) <= 0.01. This is the second-order
tolerance limit of Wilks (1941, Annals of Mathematical Statistics 12, 91-96); at least one sample then lies beyond the
value printed, so that it is never just the maximum.
"""


class Mean(NamedTuple):
    """An arithmetic mean of `n` values, and the half-width of its interval."""

    value: float
    ci95: float | None
    """Half-width of the two-sided 95% Student t interval, t(0.975, n - 1) s / sqrt(n); None for one value."""
    n: int


def mean(values: Samples) -> Mean:
    """Mean of finite values with its interval. Raises `ValueError` for none at all, or one that is not finite."""
    numbers = [float(value) for value in values]
    center, n = average(numbers), len(numbers)
    if n == 1:
        return Mean(center, None, 1)
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum([(value - center) ** 2 for value in numbers]) / (n - 1))
    return Mean(center, float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n), n)


def average(numbers: Sequence[float]) -> float:
    """The arithmetic mean alone, of equal values exactly theirs. Raises `ValueError` as `mean` does."""
    if not numbers:
        raise ValueError("a mean needs at least one value")
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"a mean needs finite values, got {numbers}")
    # Shifting by the first value keeps the mean of equal values exact, and their interval exactly zero.
    first = numbers[0]
    return first + math.fsum([value - first for value in numbers]) / len(numbers)


def percentile(samples: Samples, percent: float) -> float | None:
    """The nearest-rank percentile: the ceil(percent / 100 * n)-th smallest sample, always one of the samples.

    `percent` is a key of `MINIMUM_SAMPLES`; with fewer samples than it says there is no answer, None.
    Raises `ValueError` for another percentile.
    """
    if percent not in MINIMUM_SAMPLES:
        raise ValueError(f"percentile must be one of {', '.join(f'{key:g}' for key in MINIMUM_SAMPLES)}, got {percent}")
    n = len(samples)
    if n < MINIMUM_SAMPLES[percent]:
        return None
    # A fraction, because 0.999 * 10000 in floating point may land above 9990 and pick the wrong rank.
    rank = math.ceil(Fraction(str(percent)) * n / 100)
    return float(sorted(samples)[rank - 1])
