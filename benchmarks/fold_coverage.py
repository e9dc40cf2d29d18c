"""Simulate the coverage of intervals over folds and random splits, and the false positive rate of model comparisons.

``python -m benchmarks.fold_coverage`` draws data sets from known distributions, and trains two models on the folds or
random splits of each data set. The command then computes intervals with `harness.measure.stats.mean` and
`harness.analysis.compare.effects.of_pairs`, with and without the correction for overlapping training splits. The true
score is the expected score of a model that is trained on a split of the same size. This score is estimated by the mean
over all data sets. The two models use different features that carry the same information, so every difference found
between the models is a false positive. ``--samples N`` sets the number of data sets per case.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from harness.analysis.compare.effects import of_pairs
from harness.measure.stats import mean

Array = NDArray[Any]
Scheme = Callable[[np.random.Generator, int, int], Iterator[Array]]
"""Function that yields the test indices of each split of N examples."""
FEATURES = 5
"""Number of features of each model."""
TEST_SHARE = 0.2
"""Fraction of the examples that a random split assigns to the test split."""


class Problem(NamedTuple):
    """A distribution of data sets, together with a learning algorithm."""

    name: str
    draw: Callable[[np.random.Generator, int], tuple[Array, Array]]
    """Function that draws features ``[N, 2 * FEATURES]`` and targets ``[N]``."""
    score: Callable[[Array, Array, Array, Array], float]
    """Function that trains a model on features and targets, and returns its score on other features and targets."""


def _classes(rng: np.random.Generator, examples: int) -> tuple[Array, Array]:
    targets = rng.integers(0, 2, examples) * 2.0 - 1
    return rng.standard_normal((examples, 2 * FEATURES)) + 0.35 * targets[:, None], targets


def _values(rng: np.random.Generator, examples: int) -> tuple[Array, Array]:
    features = rng.standard_normal((examples, 2 * FEATURES))
    return features, features.sum(axis=1) / math.sqrt(2 * FEATURES) + 0.5 * rng.standard_normal(examples)


def _least_squares(features: Array, targets: Array) -> Array:
    inputs = np.column_stack([features, np.ones(len(features))])
    return np.linalg.solve(inputs.T @ inputs + 1e-3 * np.eye(inputs.shape[1]), inputs.T @ targets)


def _linear_accuracy(features: Array, targets: Array, others: Array, expected: Array) -> float:
    weights = _least_squares(features, targets)
    return float(np.mean(np.sign(others @ weights[:-1] + weights[-1]) == expected))


def _linear_rmse(features: Array, targets: Array, others: Array, expected: Array) -> float:
    weights = _least_squares(features, targets)
    return math.sqrt(float(np.mean((others @ weights[:-1] + weights[-1] - expected) ** 2)))


def _neighbor_accuracy(features: Array, targets: Array, others: Array, expected: Array) -> float:
    distances = (features**2).sum(axis=1) - 2 * others @ features.T
    return float(np.mean(targets[distances.argmin(axis=1)] == expected))


PROBLEMS = (
    Problem("accuracy, least squares", _classes, _linear_accuracy),
    Problem("accuracy, nearest neighbor", _classes, _neighbor_accuracy),
    Problem("RMSE, least squares", _values, _linear_rmse),
)


def folds(rng: np.random.Generator, examples: int, count: int) -> Iterator[Array]:
    """Yield the test indices of each fold."""
    yield from np.array_split(rng.permutation(examples), count)


def random_splits(rng: np.random.Generator, examples: int, count: int) -> Iterator[Array]:
    """Yield the test indices of each random split."""
    for _ in range(count):
        yield rng.permutation(examples)[: round(TEST_SHARE * examples)]


SCHEMES: tuple[tuple[str, Scheme, int, float], ...] = (
    ("5 folds", folds, 5, 1 / 4),
    ("10 folds", folds, 10, 1 / 9),
    ("10 random splits", random_splits, 10, TEST_SHARE / (1 - TEST_SHARE)),
    ("30 random splits", random_splits, 30, TEST_SHARE / (1 - TEST_SHARE)),
)
"""Name, function, number of splits, and ratio of test examples to training examples."""


def simulated(
    problem: Problem,
    tests: Callable[[np.random.Generator, int, int], Iterator[Array]],
    count: int,
    n: int,
    samples: int,
) -> Array:
    """Return the scores of both models on each split of each data set, as an array ``[samples, 2, count]``."""
    rng = np.random.default_rng(0)
    scores = np.empty((samples, 2, count))
    for sample in range(samples):
        features, targets = problem.draw(rng, n)
        for number, test in enumerate(tests(rng, n, count)):
            train = np.ones(n, bool)
            train[test] = False
            for model in range(2):
                chosen = features[:, model * FEATURES : (model + 1) * FEATURES]
                scores[sample, model, number] = problem.score(
                    chosen[train], targets[train], chosen[test], targets[test]
                )
    return scores


def row(scores: Array, overlap: float) -> list[float]:
    """Return five numbers: the coverage of the interval for the mean, without and with the correction; the fraction of
    false differences, without and with the correction; and the median half-width of the corrected interval."""
    truth = float(scores.mean())
    covered, wrong, widths = [], [], []
    for correction in (0.0, overlap):
        means = [mean(each, correction) for each in scores[:, 0]]
        covered.append(float(np.mean([abs(each.value - truth) <= (each.ci95 or 0.0) for each in means])))
        effects = [of_pairs(each, 0.95, overlap=correction) for each in scores[:, 1] - scores[:, 0]]
        wrong.append(float(np.mean([effect.low > 0 or effect.high < 0 for effect in effects])))
        widths.append(float(np.median([each.ci95 or 0.0 for each in means])))
    return [*covered, *wrong, widths[1]]


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=2000, help="number of data sets per case")
    samples = parser.parse_args(arguments).samples
    rows = []
    for problem in PROBLEMS:
        for n in (100, 400):
            for name, tests, count, overlap in SCHEMES:
                found = row(simulated(problem, tests, count, n, samples), overlap)
                shares = [f"{100 * value:.1f}%" for value in found[:4]]
                rows.append([problem.name, n, name, *shares, f"{found[4]:.3f}"])
    headers = ["score, model", "examples", "splits", "covered, uncorrected", "covered", "false, uncorrected", "false"]
    print(tabulate(rows, [*headers, "half-width"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main(sys.argv[1:])
