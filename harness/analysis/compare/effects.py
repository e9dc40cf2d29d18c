"""Effect sizes with confidence intervals, and the smallest difference that could have been detected.

All intervals are two-sided. The caller passes the confidence level, already corrected for the number of comparisons.
Speeds, times and sizes are compared as ratios, using their logarithms. Quality is compared as a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

POWER = 0.95
"""Probability that a difference of the detectable size is found."""
MIN_RUNS = 3
"""Minimum number of runs on each side, or minimum number of pairs, for estimating a spread."""
RESAMPLES = 20_000
CHUNK = 10**7
"""Number of random counts drawn at once, to limit memory use."""


class Effect(NamedTuple):
    """Estimate and confidence interval for a difference new - base, or for the logarithm of a ratio new / base."""

    value: float
    low: float
    high: float
    detectable: float
    """Smallest true difference that would be found with probability `POWER`."""


def of_pairs(differences: Sequence[float], confidence: float, resolution: float = 0.0) -> Effect:
    """Return the mean of paired differences, with a confidence interval from Student's t distribution.

    At least `MIN_RUNS` differences are required. Scores change in discrete steps, such as one example more or less.
    `resolution` is a lower bound for the standard deviation, so that a few differences that happen to be equal do not
    give an interval of width zero.
    """
    import numpy as np

    values = np.asarray(differences, np.float64)
    deviation = max(float(values.std(ddof=1)), resolution)
    return _student(float(values.mean()), deviation / math.sqrt(len(values)), len(values) - 1, confidence)


def of_samples(base: Sequence[float], new: Sequence[float], confidence: float, resolution: float = 0.0) -> Effect:
    """Return the difference between two means, with a confidence interval from Welch's t-test.

    At least `MIN_RUNS` runs are required on each side. The test is described in Welch 1947, Biometrika 34, 28-35.
    `resolution` has the same meaning as in `of_pairs`.
    """
    import numpy as np

    sides = [np.asarray(side, np.float64) for side in (base, new)]
    variances = [max(float(side.std(ddof=1)), resolution) ** 2 / len(side) for side in sides]
    return _welch(sides, variances, confidence)


def of_sessions(base: Sequence[float], new: Sequence[float], confidence: float) -> Effect:
    """Return the difference between two means for sides that did not run interleaved.

    Consecutive runs of one side share the state of the machine at that time, so each side counts as a single
    measurement with the standard deviation of its runs. The interval is that of Welch's t-test for one run on each
    side; more runs make it hardly narrower. A change of the machine that is much larger than the spread of the runs is
    not covered. At least `MIN_RUNS` runs are required on each side.
    """
    import numpy as np

    sides = [np.asarray(side, np.float64) for side in (base, new)]
    variances = [float(side.var(ddof=1)) for side in sides]
    return _welch(sides, variances, confidence)


def _welch(sides: Sequence[Array], variances: Sequence[float], confidence: float) -> Effect:
    """Return the difference between the means of two sides, whose estimates have these variances."""
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


def of_examples(base: Array, new: Array, finish: Callable[[Array], Array], confidence: float) -> Effect:
    """Return the difference between two scores over the same examples, with a paired bootstrap confidence interval.

    `base` and `new`, float ``[N]``, are the contributions of the examples to the score of each model. `finish` converts
    their means ``[R, 2]`` to scores. The intervals are percentile intervals (Efron and Tibshirani 1993, chapter 13),
    computed with a fixed seed. The result applies to these two trained models; it does not include the variation
    between training runs.
    """
    import numpy as np
    from scipy.special import ndtri

    both = np.stack([base, new], axis=1).astype(np.float64)
    n = len(both)
    rng, drawn = np.random.default_rng(0), []
    chunk = max(1, CHUNK // n)
    for start in range(0, RESAMPLES, chunk):
        counts = rng.multinomial(n, np.full(n, 1 / n), min(chunk, RESAMPLES - start))
        drawn.append(finish(counts @ both / n))
    scores = np.concatenate(drawn)
    differences = scores[:, 1] - scores[:, 0]
    observed = finish(both.mean(axis=0, keepdims=True))[0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, (tail, 1 - tail))
    detectable = float(differences.std()) * float(ndtri(0.5 + confidence / 2) + ndtri(POWER))
    return Effect(float(observed[1] - observed[0]), float(low), float(high), detectable)
