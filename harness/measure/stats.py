"""Means with confidence intervals, and percentiles that require a minimum number of samples."""

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
"""Minimum number of samples of each percentile.

The smallest n for which, with 99% confidence and for any distribution, the second largest sample is not below the true
percentile: P(at most one of n samples exceeds it) = q^n + n (1 - q) q^(n-1) <= 0.01. This is the second-order
tolerance limit of Wilks (1941, Annals of Mathematical Statistics 12, 91-96). At least one sample is then above the
reported percentile, which is thus never the maximum.
"""


class Mean(NamedTuple):
    """Arithmetic mean of `n` values, and the half-width of its confidence interval."""

    value: float
    ci95: float | None
    """Half-width of the two-sided 95% Student t interval, t(0.975, n - 1) s / sqrt(n); None if n is 1."""
    n: int


def mean(values: Samples) -> Mean:
    """Return the mean with its confidence interval. Raises `ValueError` if there are no values or one is not finite."""
    numbers = [float(value) for value in values]
    center, n = average(numbers), len(numbers)
    if n == 1:
        return Mean(center, None, 1)
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum([(value - center) ** 2 for value in numbers]) / (n - 1))
    return Mean(center, float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n), n)


def average(numbers: Sequence[float]) -> float:
    """Return the arithmetic mean, which is exact for equal values. Raises the same errors as `mean`."""
    if not numbers:
        raise ValueError("a mean needs at least one value")
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"a mean needs finite values, got {numbers}")
    # Subtracting the first value makes the mean of equal values exact, and their interval exactly zero.
    first = numbers[0]
    return first + math.fsum([value - first for value in numbers]) / len(numbers)


def percentile(samples: Samples, percent: float) -> float | None:
    """Return the nearest-rank percentile: the ceil(percent / 100 * n)-th smallest of n samples.

    Returns None if there are fewer samples than `MINIMUM_SAMPLES` requires. Raises `ValueError` if `percent` is not one
    of its keys.
    """
    if percent not in MINIMUM_SAMPLES:
        raise ValueError(f"percentile must be one of {', '.join(f'{key:g}' for key in MINIMUM_SAMPLES)}, got {percent}")
    n = len(samples)
    if n < MINIMUM_SAMPLES[percent]:
        return None
    # Exact arithmetic: 0.999 * 10000 may round to a float above 9990, which would select the wrong rank.
    rank = math.ceil(Fraction(str(percent)) * n / 100)
    return float(sorted(samples)[rank - 1])
