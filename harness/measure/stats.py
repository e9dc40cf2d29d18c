"""Means with confidence intervals, and percentiles with minimum sample sizes."""

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
"""Minimum number of samples for each percentile.

With this many samples, the second largest sample is not below the true percentile. This holds for any distribution at a
confidence level of 99%. The probability that at most one of n samples exceeds the percentile is q^n + n (1 - q)
q^(n-1). The minimum number of samples is the smallest n for which this probability is at most 1%. This is the
second-order tolerance limit of Wilks (1941, Annals of Mathematical Statistics 12, 91-96). At least one sample then
ranks above the reported percentile, which is therefore never the maximum.
"""


class Mean(NamedTuple):
    """Arithmetic mean of `n` values, with the half-width of its confidence interval."""

    value: float
    ci95: float | None
    """Half-width of the two-sided 95% Student t interval, t(0.975, n - 1) s sqrt(1/n + overlap), or None if n is 1."""
    n: int


def mean(values: Samples, overlap: float = 0.0) -> Mean:
    """Return the mean and its confidence interval.

    If the values are scores on several folds or random splits of the same examples, `overlap` is the ratio of the
    number of test examples to the number of other examples. The variance of the mean is then estimated as s^2 (1/n +
    overlap), because models trained on overlapping training splits are not independent. This is the corrected resampled
    t interval (Nadeau and Bengio 2003, Machine Learning 52, 239-281). Raises `ValueError` if there are no values or if
    any value is not finite.
    """
    numbers = [float(value) for value in values]
    center, n = average(numbers), len(numbers)
    if n == 1:
        return Mean(center, None, 1)
    from scipy.special import stdtrit

    deviation = math.sqrt(math.fsum([(value - center) ** 2 for value in numbers]) / (n - 1))
    return Mean(center, float(stdtrit(n - 1, 0.975)) * deviation * math.sqrt(1 / n + overlap), n)


def average(numbers: Sequence[float]) -> float:
    """Return the arithmetic mean, which is exact if all values are equal. Raises the same errors as `mean`."""
    if not numbers:
        raise ValueError("cannot compute the mean of an empty sequence")
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"cannot compute the mean of values that are not finite: {numbers}")
    # Subtract the first value, so that the mean of equal values is exact and the width of their interval is zero.
    first = numbers[0]
    return first + math.fsum([value - first for value in numbers]) / len(numbers)


def percentile(samples: Samples, percent: float) -> float | None:
    """Return the nearest-rank percentile, which is the ceil(percent / 100 * n)-th smallest of n samples.

    Returns None if there are fewer samples than `MINIMUM_SAMPLES` requires. Raises `ValueError` if `percent` is not a
    key of `MINIMUM_SAMPLES`.
    """
    if percent not in MINIMUM_SAMPLES:
        raise ValueError(f"percentile must be one of {', '.join(f'{key:g}' for key in MINIMUM_SAMPLES)}, got {percent}")
    n = len(samples)
    if n < MINIMUM_SAMPLES[percent]:
        return None
    # Use exact arithmetic: 0.999 * 10000 may round to a float above 9990, which would select the wrong rank.
    rank = math.ceil(Fraction(str(percent)) * n / 100)
    return float(sorted(samples)[rank - 1])
