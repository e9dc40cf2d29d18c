"""The size of a difference, its interval, and the smallest difference that would have been seen.

Everything is two-sided, at the confidence that the caller has corrected for the number of its comparisons. Speeds,
times and sizes are compared as ratios, by their logarithms; quality as a difference.
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
"""With which the detectable difference would be found."""
MIN_RUNS = 3
"""Runs on a side, or pairs, below which a spread says too little to conclude from."""
RESAMPLES = 20_000
CHUNK = 10**7
"""Numbers drawn at once."""


class Effect(NamedTuple):
    """A difference new - base, or the logarithm of a ratio new / base."""

    value: float
    low: float
    high: float
    detectable: float
    """The smallest true difference that would be told from none with probability `POWER`."""


def of_pairs(differences: Sequence[float], confidence: float, resolution: float = 0.0) -> Effect:
    """From `MIN_RUNS` or more differences of runs that belong together, by Student's t.

    Scores move in steps, such as one example more or less; `resolution` is the least deviation that is believed, so
    that a few differences that happen to be equal do not look certain.
    """
    import numpy as np

    values = np.asarray(differences, np.float64)
    deviation = max(float(values.std(ddof=1)), resolution)
    return _student(float(values.mean()), deviation / math.sqrt(len(values)), len(values) - 1, confidence)


def of_samples(base: Sequence[float], new: Sequence[float], confidence: float, resolution: float = 0.0) -> Effect:
    """From `MIN_RUNS` or more runs on each side, by Welch's t test (Welch 1947, Biometrika 34, 28-35)."""
    import numpy as np

    sides = [np.asarray(side, np.float64) for side in (base, new)]
    variances = [max(float(side.std(ddof=1)), resolution) ** 2 / len(side) for side in sides]
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
    """From what each of the same examples adds to a score under two models, both ``[N]``: the paired bootstrap of the
    examples, with percentile intervals (Efron and Tibshirani 1993, chapter 13), from one fixed seed. `finish` turns the
    means of ``[R, 2]`` into scores.

    It tells these two trained models apart, not the ways in which they were trained.
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
