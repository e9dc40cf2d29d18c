"""Simulate the coverage of the intervals that ``harness rank`` prints, for several numbers of datasets.

``python -m benchmarks.rank_coverage`` draws datasets from a population with known mean ranks and geometric mean ratios
of four backends. The command then ranks the backends with `harness.analysis.standings`. The logarithm of a backend's
performance is the sum of the backend's mean, a random dataset effect, and the random effects of five seeds or five
folds. The effects of different folds are correlated, because their training splits overlap. The baseline has no dataset
effect, so the distribution of the ratios is skewed if the distribution of the dataset effects is skewed.
``--samples N`` sets the number of simulations per case. For backends that do not differ, the command also prints the
false positive rates of Friedman's test, the critical difference and Holm's correction.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from tabulate import tabulate

from harness.analysis.standings import Case, standings

Array = NDArray[np.float64]
NAMES = ("a", "b", "c", "d")
MEANS = np.array([0.0, 0.05, 0.1, 0.3])
SEEDS, SEED_DEVIATION = 5, 0.05
"""Number of seeds or folds, and standard deviation of their effects."""
OVERLAP = 1 / 4
"""Number of test examples divided by the number of all other examples, for five folds. The correlation between the
effects of two folds is `OVERLAP` / (1 + `OVERLAP`), as the correction for overlapping training splits assumes."""
DATASETS = (3, 5, 10, 20)
EFFECTS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "t(3)": lambda rng, shape: rng.standard_t(3, shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "log-normal": lambda rng, shape: np.exp(rng.standard_normal(shape)) - math.exp(0.5),
    "none": lambda rng, shape: np.zeros(shape),
}
"""Distributions of the dataset effects, each with a mean of zero. Values drawn from these distributions are multiplied
by 0.2."""
LARGE = 40_000
"""Number of datasets used to compute the true mean ranks."""


def draw(rng: np.random.Generator, effect: str, datasets: int, *, equal: bool = False, overlap: float = 0.0) -> Array:
    """Return random log performance values of the backends, float ``[datasets, backends, SEEDS]``.

    If `equal` is True, all backends have the same distribution. Otherwise, the means of the backends differ, and the
    baseline has no dataset effects. `overlap` is 0 for seeds and `OVERLAP` for folds.
    """
    shape = (datasets, len(NAMES))
    effects = 0.2 * EFFECTS[effect](rng, shape)
    skills = effects if equal else MEANS + effects * (np.arange(len(NAMES)) > 0)
    noise = rng.standard_normal((*shape, SEEDS))
    if overlap:
        correlation = overlap / (1 + overlap)
        common = rng.standard_normal((*shape, 1))
        noise = math.sqrt(1 - correlation) * noise + math.sqrt(correlation) * common
    return np.asarray(skills[:, :, None] + SEED_DEVIATION * noise)


def ties(values: Array, overlap: float = 0.0) -> NDArray[np.bool_]:
    """Return a boolean array ``[datasets, backends, backends]`` that is True for pairs of backends that tie. A pair
    ties if a paired t-test over seeds or folds is not significant at the 5% level, as in ``harness compare``.
    """
    differences = values[:, :, None, :] - values[:, None, :, :]
    error = differences.std(axis=-1, ddof=1) * math.sqrt(1 / SEEDS + overlap)
    return np.asarray(np.abs(differences.mean(axis=-1)) <= float(stdtrit(SEEDS - 1, 0.975)) * error)


def true_ranks(effect: str, *, verdict: bool, overlap: float = 0.0) -> Array:
    """Return the mean ranks over a large number of datasets."""
    values = draw(np.random.default_rng(12345), effect, LARGE, overlap=overlap)
    levels = values.mean(axis=-1)
    outcome = np.sign(levels[:, :, None] - levels[:, None, :])
    if verdict:
        outcome = np.where(ties(values, overlap), 0.0, outcome)
    return np.asarray((len(NAMES) + 1) / 2 - 0.5 * outcome.sum(axis=2).mean(axis=0))


def cases(values: Array, *, verdict: bool, overlap: float = 0.0) -> list[Case]:
    """Return a list with one case per dataset."""
    tied = ties(values, overlap)
    pairs = list(itertools.combinations(range(len(NAMES)), 2))
    return [
        Case(
            str(d),
            tuple({(n, 0) if overlap else (None, n): math.exp(x) for n, x in enumerate(one)} for one in each),
            higher_is_better=True,
            tied=frozenset((i, j) for i, j in pairs if tied[d, i, j]) if verdict else frozenset(),
            geometric=True,
            overlap=overlap,
        )
        for d, each in enumerate(values)
    ]


def coverage(effect: str, datasets: int, samples: int, *, verdict: bool, overlap: float) -> list[Any]:
    """Return a table row with the coverage and the median widths of the intervals of all backends."""
    rng = np.random.default_rng([datasets, verdict])
    truth = true_ranks(effect, verdict=verdict, overlap=overlap)
    ranks: list[tuple[bool, float]] = []
    ratios: list[tuple[bool, float]] = []
    for sample in range(samples):
        values = draw(rng, effect, datasets, overlap=overlap)
        drawn = cases(values, verdict=verdict, overlap=overlap)
        found = standings(drawn, NAMES, 0, resamples=500, seed=sample)
        for one in found.contenders:
            place = NAMES.index(one.name)
            if one.mean_rank_low is not None and one.mean_rank_high is not None:
                inside = one.mean_rank_low <= truth[place] <= one.mean_rank_high
                ranks.append((inside, one.mean_rank_high - one.mean_rank_low))
            if one.ratio_low is not None and one.ratio_high is not None:
                low, high = math.log(one.ratio_low), math.log(one.ratio_high)
                ratios.append((low <= MEANS[place] - MEANS[0] <= high, high - low))
    shown = [effect, "folds" if overlap else "seeds", datasets, "verdict" if verdict else "equal means"]
    for each in (ranks, ratios):
        shown += (
            [f"{np.mean([x for x, _ in each]):.1%}", f"{np.median([w for _, w in each]):.2f}"] if each else ["", ""]
        )
    return shown


def false_differences(effect: str, datasets: int, samples: int, *, verdict: bool) -> list[Any]:
    """Return a table row with the fraction of simulations in which each test finds a difference between backends that
    do not differ."""
    rng = np.random.default_rng([datasets, 7])
    friedman = nemenyi = holm = 0
    for _ in range(samples):
        values = draw(rng, effect, datasets, equal=True)
        found = standings(cases(values, verdict=verdict), NAMES, 0, resamples=2)
        ranks = [one.mean_rank for one in found.contenders]
        friedman += (found.friedman_p or 0.0) < 0.05
        nemenyi += max(ranks) - min(ranks) >= (found.critical_difference or math.inf)
        holm += min(one.p_holm for one in found.contenders if one.p_holm is not None) < 0.05
    ends = [f"{count / samples:.1%}" for count in (friedman, nemenyi, holm)]
    return [effect, datasets, "verdict" if verdict else "equal means", *ends]


def print_coverage(samples: int) -> None:
    rows = []
    for (effect, overlap), verdict, n in itertools.product(
        [*((effect, 0.0) for effect in EFFECTS), ("normal", OVERLAP)], (False, True), DATASETS
    ):
        print(f"{effect}, {'folds' if overlap else 'seeds'}, {n} datasets", file=sys.stderr)
        rows.append(coverage(effect, n, samples, verdict=verdict, overlap=overlap))
    header = ["dataset effects", "runs", "datasets", "ties by", "mean rank", "width", "ratio", "width (log)"]
    print(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))
    print(f"\nStandard error: at most {math.sqrt(0.95 * 0.05 / samples):.1%} for a coverage of 95% or more.\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rank_coverage", description=__doc__)
    parser.add_argument("--samples", type=int, default=500, help="number of simulations per case [500]")
    parser.add_argument("--tests-only", action="store_true", help="simulate only the tests, not the intervals")
    options = parser.parse_args()
    if not options.tests_only:
        print_coverage(options.samples)
    settings = [("normal", n, verdict) for verdict in (False, True) for n in DATASETS]
    rows = [false_differences(effect, n, options.samples, verdict=verdict) for effect, n, verdict in settings]
    header = ["dataset effects", "datasets", "ties by", "Friedman's test", "critical difference", "Holm's correction"]
    print(tabulate(rows, header, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
