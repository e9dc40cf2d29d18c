"""Mean ranks, win rates and geometric mean ratios over datasets, with intervals and tests.

This module contains the statistics; `harness.analysis.rank` selects the runs. A *candidate* is an item being ranked,
such as a backend or a model. A *case* contains values that can be compared directly: one value per candidate
for each seed or split. A dataset has one or more cases, such as one for each model when backends are ranked. Ranks are
first averaged over the cases of each dataset, so that every dataset has the same weight.

In a case, the rank of a candidate is 1, plus the number of better candidates, plus half the number of candidates that
tie with this candidate. If ties are transitive, this rank is the usual average rank. The mean of the ranks over the
datasets is the mean rank defined by Demsar (2006, Journal of Machine Learning Research 7, 1-30). The win rate is the
fraction of comparisons that a candidate wins, with a tie counting as half a win. For k candidates, the win rate is
(k - rank) / (k - 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RESAMPLES = 2000
MIN_DATASETS = 3
"""Minimum number of datasets needed to compute intervals."""
UNSEEN = 7.0
"""Parameter of the additional dataset that is used to compute the interval of a ratio. For n datasets, the deviation of
this dataset from the mean is 1 + `UNSEEN` / (n - 1) times the largest deviation. The value was chosen by simulation so
that at least 93% of the intervals contain the true ratio if the logarithms of the ratios have a log-normal
distribution."""
ALPHA = 0.05
PERMUTATIONS = 4999
MAX_ENUMERATED = 12
"""Maximum number of datasets for which all combinations of swaps are enumerated."""

Draw = tuple[int | None, int]
"""Published split (or None) and seed."""


@dataclass(frozen=True)
class Case:
    """The values of all candidates in one case."""

    dataset: str
    """Key of the dataset."""
    values: tuple[Mapping[Draw, float], ...]
    """Values of each candidate by split and seed. Every candidate has at least one value. If `overlap` is positive,
    each candidate has one value for each split, which is the mean over the seeds."""
    higher_is_better: bool
    tied: frozenset[tuple[int, int]] = frozenset()
    """Pairs (i, j) of candidates that tie, with i < j. All other pairs tie only if their means are equal."""
    geometric: bool = False
    """True if means over seeds and splits are geometric, as for costs, which are compared as ratios."""
    overlap: float = 0.0
    """If the values are scores on folds or random splits of the same examples, ratio of the number of test examples to
    the number of other examples, as in `harness.measure.stats.mean`. Otherwise 0."""

    @property
    def levels(self) -> list[float]:
        """Mean of each candidate's values over splits and seeds, or mean of their logarithms if `logarithmic` is
        True."""
        return [_exact_mean(numbers) for numbers in self.scaled()]

    @property
    def logarithmic(self) -> bool:
        """True if values are averaged with the geometric mean."""
        return self.geometric and all(value > 0 for values in self.values for value in values.values())

    def scaled(self) -> list[list[float]]:
        """Return the values of each candidate, or their logarithms if `logarithmic` is True, in order of split and
        seed."""
        scale: Callable[[float], float] = math.log if self.logarithmic else float
        return [[scale(values[draw]) for draw in sorted_draws(values)] for values in self.values]


class Standing(Struct, frozen=True, kw_only=True):
    """Rank, win rate and ratio of one candidate across all datasets."""

    name: str
    mean_rank: float
    mean_rank_low: float | None
    """Lower end of the 95% interval. None if there are too few datasets."""
    mean_rank_high: float | None
    win_rate: float
    """Fraction of the comparisons with other candidates that the candidate won. A tie counts as half a win."""
    win_rate_low: float | None
    win_rate_high: float | None
    wins: int
    """Number of comparisons that the candidate won against other candidates, across all cases."""
    ties: int
    losses: int
    ratio: float | None
    """Geometric mean, over the datasets, of the ratio to the baseline. None if a value is zero or negative. If lower
    values are better, the ratio is inverted, so that a candidate with a ratio above 1 is always better than the
    baseline."""
    ratio_low: float | None
    ratio_high: float | None
    p_holm: float | None
    """p-value for the difference between the mean ranks of the candidate and the baseline, with Holm's correction. None
    for the baseline."""


class Standings(Struct, frozen=True, kw_only=True):
    """Results of all candidates, ordered by mean rank."""

    contenders: list[Standing]
    datasets: int
    cases: int
    friedman_chi2: float | None
    """Friedman's statistic. None if there are fewer than two datasets."""
    friedman_p: float | None
    """p-value of Friedman's test, computed by permuting the ranks within each dataset."""
    critical_difference: float | None
    """Minimum difference between two mean ranks for which Nemenyi's test is significant at the 0.05 level. None if no
    difference is significant, because there are too few datasets."""


def standings(
    cases: Sequence[Case], names: Sequence[str], baseline: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Standings:
    """Return the ranks, win rates and ratios of two or more candidates over one or more cases. The intervals of ranks
    and win rates are computed by resampling datasets and, within each case, seeds or splits. If candidates have the
    same seeds, their values are resampled together. `seed` seeds the random number generator.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    k = len(names)
    parts: dict[str, list[Case]] = {}
    for case in cases:
        parts.setdefault(case.dataset, []).append(case)
    ranks = []  # arrays [1 + resamples, k] for each dataset; the first row contains the observed values
    logs = []  # arrays [k] for each dataset
    counts = np.zeros((3, k), dtype=int)
    for part in parts.values():
        of_cases = [_case(case, baseline, resamples, rng) for case in part]
        ranks.append(_centered(np.mean([one[0] for one in of_cases], axis=0)))
        logs.append(np.mean([one[1] for one in of_cases], axis=0))
        counts += np.sum([one[2] for one in of_cases], axis=0)
    rank, log = np.stack(ranks, axis=1), np.stack(logs)  # [1 + resamples, datasets, k] and [datasets, k]
    n, mean_rank = len(parts), rank[0].mean(axis=0)
    ends = _bounded(rank[1:], 1.0, float(k), rng) if n >= MIN_DATASETS else None
    ratios = [_ratio(log[:, i]) if i != baseline else (1.0, None, None) for i in range(k)]
    corrected = holm([p_of_differences(rank[0][:, i] - rank[0][:, baseline]) for i in range(k) if i != baseline])
    corrected.insert(baseline, None)
    found = []
    for i, name in enumerate(names):
        low, high = (None, None) if ends is None else (float(ends[0][i]), float(ends[1][i]))
        found.append(
            Standing(
                name=name,
                mean_rank=float(mean_rank[i]),
                mean_rank_low=low,
                mean_rank_high=high,
                win_rate=(k - float(mean_rank[i])) / (k - 1),
                win_rate_low=None if high is None else (k - high) / (k - 1),
                win_rate_high=None if low is None else (k - low) / (k - 1),
                wins=int(counts[0, i]),
                ties=int(counts[1, i]),
                losses=int(counts[2, i]),
                ratio=ratios[i][0],
                ratio_low=ratios[i][1],
                ratio_high=ratios[i][2],
                p_holm=corrected[i],
            )
        )
    chi2, p = friedman(rank[0])
    return Standings(
        contenders=sorted(found, key=lambda one: one.mean_rank),
        datasets=n,
        cases=len(cases),
        friedman_chi2=chi2,
        friedman_p=p,
        critical_difference=critical_difference(k, n),
    )


def sorted_draws(values: Mapping[Draw, float]) -> list[Draw]:
    """Return the (split, seed) pairs in a fixed order."""
    return sorted(values, key=lambda draw: (-1 if draw[0] is None else draw[0], draw[1]))


def _exact_mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers)


def _case(case: Case, baseline: int, resamples: int, rng: np.random.Generator) -> tuple[Array, Array, Any]:
    """Return three results for one case: the ranks, ``[1 + resamples, k]``, whose first row contains the observed
    ranks; the observed log ratios, ``[k]``; and the numbers of wins, ties and losses.
    """
    import numpy as np

    scaled = case.scaled()
    k = len(scaled)
    levels = np.empty((1 + resamples, k))
    indices: dict[tuple[Draw, ...], Any] = {}
    for i, numbers in enumerate(scaled):
        draws = tuple(sorted_draws(case.values[i]))
        if draws not in indices:
            indices[draws] = rng.integers(0, len(draws), (resamples, len(draws)))
        levels[0, i] = _exact_mean(numbers)
        levels[1:, i] = np.asarray(numbers)[indices[draws]].mean(axis=1)
        if case.overlap:  # increase the variance of the mean from s^2 / n to s^2 (1/n + overlap)
            levels[1:, i] = levels[0, i] + (levels[1:, i] - levels[0, i]) * math.sqrt(1 + len(draws) * case.overlap)
    sign = 1.0 if case.higher_is_better else -1.0
    tied = np.zeros((k, k), dtype=bool)
    for i, j in case.tied:
        tied[i, j] = tied[j, i] = True
    ranks, counts = np.full(levels.shape, 1.0), np.zeros((3, k), dtype=int)
    for j in range(k):  # compare with one candidate at a time to limit memory use
        # 1 for each candidate that is better than candidate j.
        outcome = np.where(tied[j], 0.0, np.sign(sign * (levels - levels[:, [j]])))
        outcome[:, j] = 1.0
        ranks += 0.5 * (1 - outcome)
        for place, value in enumerate((1.0, 0.0, -1.0)):
            counts[place] += (outcome[0] == value) & (np.arange(k) != j)
    if case.logarithmic:
        logs = sign * (levels[0] - levels[0, baseline])
    else:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            logs = sign * np.log(levels[0] / levels[0, baseline])
        logs[~np.isfinite(logs)] = np.nan
    return ranks, logs, counts


def _centered(values: Array) -> Array:
    """Shift values ``[1 + resamples, k]`` so that the mean of the resampled rows is equal to the first row.

    Resampled means vary more than observed means. Without the shift, similar candidates would swap places too often in
    the resampled rows, which would bias their ranks toward equality.
    """
    import numpy as np

    return np.concatenate([values[:1], values[1:] + values[0] - values[1:].mean(axis=0)])


def _bounded(values: Array, least: float, most: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the lower and upper ends of 95% intervals for means over datasets. All values are between `least` and
    `most`.

    `values` is ``[resamples, datasets, k]``. The datasets are resampled with Dirichlet weights (Bayesian bootstrap).
    One dataset is added, with the value `least` for the lower ends and `most` for the upper ends. The results are
    Gaffke's bounds (2005; Learned-Miller and Thomas 2019). If all values are 0 or 1, the intervals are Clopper-Pearson
    intervals. There is no known distribution for which the coverage of these intervals is too low, even with only two
    datasets.
    """
    import numpy as np

    weights = rng.dirichlet(np.ones(values.shape[1] + 1), len(values))
    means = np.einsum("rd,rdk->rk", weights[:, :-1], values)
    low = np.quantile(means + least * weights[:, -1:], ALPHA / 2, axis=0)
    high = np.quantile(means + most * weights[:, -1:], 1 - ALPHA / 2, axis=0)
    return np.clip(low, least, most), np.clip(high, least, most)


def _ratio(logs: Array) -> tuple[float | None, float | None, float | None]:
    """Return a geometric mean and the ends of its 95% interval, computed from log ratios ``[datasets]``.

    The interval is Student's t interval over the datasets. Each end of the interval is computed with one additional
    dataset, whose log ratio is farther from the mean than all others. This correction is needed because a small number
    of datasets seldom includes the rare extreme ratios that determine the mean of a skewed distribution.
    """
    import numpy as np
    from scipy.special import stdtrit

    if not np.isfinite(logs).all():
        return None, None, None
    mean, n = _exact_mean(list(logs)), len(logs)
    if n < MIN_DATASETS:
        return _exp(mean), None, None
    farther = (1 + UNSEEN / (n - 1)) * float(np.abs(logs - mean).max())
    ends = []
    for sign in (-1.0, 1.0):
        extended = np.append(logs, mean + sign * farther)
        error = float(extended.std(ddof=1)) / math.sqrt(n + 1)
        ends.append(_exp(_exact_mean(list(extended)) + sign * float(stdtrit(n, 1 - ALPHA / 2)) * error))
    return _exp(mean), ends[0], ends[1]


def _exp(value: float) -> float | None:
    """Return exp(`value`), or None if the result is too large for a float."""
    return math.exp(value) if value < 700 else None


def friedman(ranks: Array, permutations: int = PERMUTATIONS) -> tuple[float | None, float | None]:
    """Return Friedman's statistic for ranks ``[datasets, k]``, and its p-value.

    The statistic is computed as in Demsar (2006), section 3.2.2, without a correction for ties. The p-value comes from
    a test that permutes the ranks within each dataset. Unlike the chi-squared and F approximations, this test is valid
    for small numbers of datasets and for ties. Both values are None if there are fewer than two datasets.
    """
    import numpy as np

    n, k = ranks.shape
    if n < 2:
        return None, None

    def statistic(means: Array) -> Array:
        return np.asarray(12 * n / (k * (k + 1)) * ((means**2).sum(axis=-1) - k * (k + 1) ** 2 / 4))

    observed = max(0.0, float(statistic(ranks.mean(axis=0))))
    rng, sums = np.random.default_rng(0), np.zeros((permutations, k))
    for row in ranks:
        sums += rng.permuted(np.tile(row, (permutations, 1)), axis=1)
    larger = int((statistic(sums / n) >= observed - 1e-9).sum())
    return observed, (1 + larger) / (1 + permutations)


@cache
def critical_difference(k: int, n: int, permutations: int = PERMUTATIONS) -> float | None:
    """Return the critical difference of Nemenyi's test at the 0.05 level, for `k` candidates on `n` datasets. Return
    None if no difference is significant.

    Nemenyi's formula is only asymptotically valid. For example, if two candidates do not differ on four datasets, a
    difference of at least the critical size has a probability of 1/8. If such differences are impossible, or if their
    probability is larger than 0.05, this function returns the smallest difference that is reached or exceeded with a
    probability of at most 0.05. The probabilities are computed by permuting the ranks within each dataset.
    """
    import numpy as np

    rng, sums = np.random.default_rng(0), np.zeros((permutations, k))
    order = np.tile(np.arange(1.0, k + 1), (permutations, 1))
    for _ in range(n):
        sums += rng.permuted(order, axis=1)
    ranges = sums.max(axis=1) - sums.min(axis=1)
    for difference in (nemenyi(k, n), *(np.unique(ranges) / n)):
        larger = int((ranges >= n * difference - 1e-9).sum())
        if larger > 0 and (1 + larger) / (1 + permutations) <= ALPHA:
            return float(difference)
    return None


def nemenyi(k: int, n: int) -> float:
    """Return q sqrt(k (k + 1) / (6 n)), where q is the 0.95 quantile of the studentized range divided by sqrt(2)
    (Demsar 2006, section 3.2.2).
    """
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(1 - ALPHA, k, math.inf)) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))


def p_of_differences(differences: Array, permutations: int = PERMUTATIONS) -> float:
    """Return the uncorrected two-sided p-value of the mean of the differences between the ranks of two candidates.

    The test swaps the ranks of the two candidates on each dataset. All combinations of swaps are enumerated for up to
    `MAX_ENUMERATED` datasets. For more datasets, random combinations are drawn. Unlike the normal approximation of
    Demsar (2006, section 3.2.2), the test is valid for few datasets and does not depend on the other candidates
    (Benavoli et al. 2016, Journal of Machine Learning Research 17, 1-10).
    """
    import numpy as np

    n = len(differences)
    observed = abs(float(differences.sum())) - 1e-9
    if n <= MAX_ENUMERATED:
        signs = 1.0 - 2.0 * (np.arange(2**n)[:, np.newaxis] >> np.arange(n) & 1)
        return float((np.abs(signs @ differences) >= observed).mean())
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (permutations, n))
    return (1 + int((np.abs(signs @ differences) >= observed).sum())) / (1 + permutations)


def holm(p_values: Sequence[float]) -> list[float | None]:
    """Return the p-values with Holm's correction (1979, Scandinavian Journal of Statistics 6, 65-70)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return corrected
