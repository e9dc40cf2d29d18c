"""Effect sizes with confidence intervals, and the smallest difference that could have been detected.

All intervals are two-sided. The confidence level passed to these functions must already be corrected for the number of
comparisons. Speeds, times and sizes are compared as ratios on a logarithmic scale. Quality metrics are compared as
differences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

POWER = 0.95
"""Probability of detecting a true difference of size `Effect.detectable`."""
MIN_RUNS = 3
"""Minimum number of runs per set, or minimum number of pairs of runs, needed to estimate a standard deviation."""

AUTOCORRELATION = 0.21
"""Autocorrelated noise increases the variance of a mean over pairs of runs by at most this fraction."""


class Effect(NamedTuple):
    """Estimate and confidence interval for the difference ``new - base`` or the logarithm of the ratio ``new /
    base``."""

    value: float
    low: float
    high: float
    detectable: float
    """Smallest true difference that would be detected with probability `POWER`."""


class Estimate(NamedTuple):
    """Difference in a metric between two sets of runs, and the values from which it was computed."""

    effect: Effect | None
    """None if there are too few runs."""
    evidence: str
    """Description of the runs used or, if `effect` is None, the reason."""
    used: tuple[Sequence[float], Sequence[float]] | None = None
    """Values of BASE and NEW from which `effect` was computed. The effect is the mean for NEW minus the mean for
    BASE."""
    all_runs: bool = True
    """False if some of the runs that have a value were not used."""
    interleaved: bool = True
    """False if the metric depends on the state of the machine and the runs of BASE and NEW were not interleaved."""


def of_pairs(
    differences: Sequence[float] | Array, confidence: float, resolution: float = 0.0, overlap: float = 0.0
) -> Effect:
    """Return the mean of paired differences, with a confidence interval from Student's t distribution.

    At least `MIN_RUNS` differences are required. `resolution` is a lower bound for the standard deviation. Without this
    bound, the interval could have zero width. For example, a few differences may all be equal if the score can only
    change in discrete steps. If the differences come from folds or random splits of the same examples, `overlap`
    corrects for their dependence, as in `harness.measure.stats.mean`.
    """
    import numpy as np

    values = np.asarray(differences, np.float64)
    error = max(float(values.std(ddof=1)), resolution) * math.sqrt(1 / len(values) + overlap)
    return _student(float(values.mean()), error, len(values) - 1, confidence)


def of_turns(differences: Sequence[float], confidence: float) -> Effect:
    """Return the mean difference between paired runs that were executed in the order A B B A, with a confidence
    interval.

    The interval is computed as in `of_pairs`, but with a larger standard error. If the noise of consecutive runs has
    autocorrelation r^k at lag k, the covariances between pairs increase the variance of the mean by a fraction of up to
    r (1 - r) / (1 + r^2), which is at most 0.21.
    """
    import numpy as np

    values = np.asarray(differences, np.float64)
    error = float(values.std(ddof=1)) * math.sqrt((1 + AUTOCORRELATION) / len(values))
    return _student(float(values.mean()), error, len(values) - 1, confidence)


def of_samples(
    base: Sequence[float],
    new: Sequence[float],
    confidence: float,
    resolution: float = 0.0,
    overlaps: Sequence[float] = (0.0, 0.0),
) -> Effect:
    """Return the difference between two means, with a confidence interval from Welch's t-test.

    At least `MIN_RUNS` runs are required in each set. The test is described in Welch 1947, Biometrika 34, 28-35.
    `resolution` has the same meaning as in `of_pairs`. `overlaps` contains the `overlap` of each set.
    """
    import numpy as np

    sides = [np.asarray(side, np.float64) for side in (base, new)]
    variances = [
        max(float(side.std(ddof=1)), resolution) ** 2 * (1 / len(side) + overlap)
        for side, overlap in zip(sides, overlaps, strict=True)
    ]
    return _welch(sides, variances, confidence)


def of_sessions(base: Sequence[float], new: Sequence[float], confidence: float) -> Effect:
    """Return the difference between the means of two sets of runs that were not interleaved.

    All runs in a set share the state of the machine. Each set therefore counts as a single measurement with the
    standard deviation of its runs. The interval is computed as in Welch's t-test with one run in each set, so
    additional runs barely narrow it. If the speed of the machine changed by much more than the standard deviation of
    the runs, the interval does not account for this change. At least `MIN_RUNS` runs are required in each set.
    """
    import numpy as np

    sides = [np.asarray(side, np.float64) for side in (base, new)]
    variances = [float(side.var(ddof=1)) for side in sides]
    return _welch(sides, variances, confidence)


def _welch(sides: Sequence[Array], variances: Sequence[float], confidence: float) -> Effect:
    """Return the difference between two means, given the variance of each mean."""
    total = sum(variances)
    value = float(sides[1].mean() - sides[0].mean())
    if not total:
        return Effect(value, value, value, 0.0)
    freedom = 1 / sum((v / total) ** 2 / (len(side) - 1) for v, side in zip(variances, sides, strict=True))
    return _student(value, math.sqrt(total), freedom, confidence)


def _student(value: float, standard_error: float, freedom: float, confidence: float) -> Effect:
    from scipy.special import stdtrit

    reach = float(stdtrit(freedom, 0.5 + confidence / 2)) * standard_error
    detectable = reach + float(stdtrit(freedom, POWER)) * standard_error
    return Effect(value, value - reach, value + reach, detectable)


def of_hits(base: Array, new: Array, confidence: float) -> Effect:
    """Return the difference between two accuracies over the same examples, with a paired confidence interval.

    `base` and `new`, float ``[N]``, are 1 for examples that the model predicted correctly and 0 for all others. For
    each model, Clopper-Pearson limits are computed for the fraction of examples that only this model predicted
    correctly. The interval combines these limits (MOVER; Zou and Donner 2008, Statistics in Medicine 27, 1693-1702). If
    McNemar's exact test is not significant, the interval is extended to include zero (McNemar 1947, Psychometrika 12,
    153-157). The result applies only to these two trained models, because the variation between training runs is not
    included.
    """
    from scipy.special import bdtr, betaincinv, ndtri

    gained, lost, n = int((new > base).sum()), int((new < base).sum()), len(base)
    tail, value = (1 - confidence) / 2, (gained - lost) / n

    def distances(count: int) -> tuple[float, float]:
        """Return the distances from the estimated fraction to the lower and upper confidence limits."""
        low = float(betaincinv(count, n - count + 1, tail)) if count else 0.0
        high = float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
        return count / n - low, high - count / n

    (below_gained, above_gained), (below_lost, above_lost) = distances(gained), distances(lost)
    low, high = value - math.hypot(below_gained, above_lost), value + math.hypot(above_gained, below_lost)
    if float(bdtr(min(gained, lost), gained + lost, 0.5)) > tail:  # McNemar's test, one-sided
        low, high = min(low, 0.0), max(high, 0.0)
    error = math.sqrt(max(1, gained + lost)) / n
    return Effect(value, low, high, error * float(ndtri(1 - tail) + ndtri(POWER)))


def of_squares(base: Array, new: Array, confidence: float) -> Effect:
    """Return the difference between two RMSEs over the same examples, with an interval from Student's t distribution.

    `base` and `new`, float ``[N]``, are the squared errors of each model. The standard error is computed with the delta
    method, which approximates the square roots linearly. The result applies only to these two trained models.
    """
    import numpy as np

    terms = []
    for squares in (base, new):
        root = math.sqrt(float(squares.mean()))
        terms.append(root + (squares - root**2) / (2 * root) if root else np.zeros(len(squares)))
    return of_pairs(terms[1] - terms[0], confidence)
