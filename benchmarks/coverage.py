"""Simulate the coverage of confidence intervals (the probability that an interval contains the true value).

``python -m benchmarks.coverage`` simulates test splits with known true scores, and computes the intervals of
`harness.measure.quality.intervals` for each split. The command also simulates runs that are measured in windows with
autocorrelated noise, and computes the within-run ranges. ``--samples N`` sets the number of simulations per case.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from harness.measure.quality.intervals import intervals
from harness.measure.quality.metrics import example_brier_scores, example_log_losses
from harness.measure.steady import median_interval

Array = NDArray[Any]
Bounds = dict[str, tuple[float, float]]
METRICS = ("accuracy", "f1_macro", "f1_weighted", "precision_macro", "recall_macro", "mcc")
SHARES = ((1.0, 1.0), (0.9, 0.9), (0.6, 0.6), (0.3, 0.3), (0.98, 0.6), (0.999, 0.9), (0.999, 0.5), (0.6, 0.98))
"""Accuracies of the frequent and the rare classes."""
ERRORS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "Laplace": lambda rng, n: rng.laplace(size=n),
    "t(5)": lambda rng, n: rng.standard_t(5, n),
    "t(3)": lambda rng, n: rng.standard_t(3, n),
    "log-normal": lambda rng, n: np.exp(rng.standard_normal(n)) - math.exp(0.5),
}
"""Error distributions with a mean of zero."""
MEAN_SQUARES = {"normal": 1.0, "Laplace": 2.0, "t(5)": 5 / 3, "t(3)": 3.0, "log-normal": (math.e - 1) * math.e}
MEAN_ABSOLUTES = {
    "normal": math.sqrt(2 / math.pi),
    "Laplace": 1.0,
    "t(5)": 8 * math.sqrt(5) / (3 * math.pi) / 2,
    "t(3)": 2 * math.sqrt(3) / math.pi,
    "log-normal": 2 * math.exp(0.5) * math.erf(1 / math.sqrt(8)),
}


@dataclass(frozen=True)
class Case:
    """Test splits with known true scores."""

    name: str
    examples: int
    truth: dict[str, float]
    draw: Callable[[np.random.Generator], Bounds]
    """Function that draws a test split and returns its intervals, keyed by metric."""


@dataclass(frozen=True)
class Coverage:
    """Result for one metric of a case."""

    case: str
    metric: str
    examples: int
    truth: float
    given: int
    """Number of simulations that produced an interval."""
    covered: int
    samples: int
    width: float | None
    """Median width of the intervals."""

    @property
    def share(self) -> float:
        return self.covered / self.given if self.given else math.nan

    @property
    def error(self) -> float:
        """Monte Carlo standard error of `share`, for a true coverage of 95%."""
        return math.sqrt(0.95 * 0.05 / self.given) if self.given else math.nan


def measure(case: Case, samples: int, seed: int = 0) -> list[Coverage]:
    """Return the coverage for each metric of a case."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in case.truth}
    for _ in range(samples):
        for name, ends in case.draw(rng).items():
            if name in found:
                found[name].append(ends)
    return [
        Coverage(
            case=case.name,
            metric=name,
            examples=case.examples,
            truth=case.truth[name],
            given=len(ends),
            covered=sum(low <= case.truth[name] + 1e-12 and case.truth[name] - 1e-12 <= high for low, high in ends),
            samples=samples,
            width=median(high - low for low, high in ends) if ends else None,
        )
        for name, ends in found.items()
    ]


def proportion(n: int, accuracy: float) -> Case:
    """Return a case of `n` examples with two equally likely classes that are predicted with the given accuracy."""

    def draw(rng: np.random.Generator) -> Bounds:
        targets = rng.integers(0, 2, n)
        predicted = np.where(rng.random(n) < accuracy, targets, 1 - targets)
        return _classified(targets, predicted, 2)

    return Case(f"accuracy {accuracy:g}", n, {"accuracy": accuracy}, draw)


def classes(name: str, counts: Sequence[int], accuracy: Sequence[float], *, mistaken_for_first: bool = False) -> Case:
    """Return a case with a fixed number of examples in each class. `accuracy` contains the probability of a correct
    prediction for each class. If a prediction is incorrect, all other classes are equally likely. If
    `mistaken_for_first` is True, every incorrect prediction is the first class (or the last class, for examples of the
    first class). The true scores are the scores on an infinite test split with the same class proportions.
    """
    number, n = len(counts), sum(counts)
    wrong = 1 - np.array(accuracy)
    chances = np.repeat(wrong[:, None] / (number - 1), number, axis=1)
    if mistaken_for_first:
        chances[:] = 0.0
        chances[:, 0], chances[0, -1] = wrong, wrong[0]
    np.fill_diagonal(chances, accuracy)
    limits, targets = chances.cumsum(axis=1), np.repeat(np.arange(number), counts)
    joint = chances * np.array(counts)[:, None] / n
    right, support, answers = joint.diagonal(), joint.sum(axis=1), joint.sum(axis=0)
    f1 = 2 * right / (support + answers)
    correlation = (right.sum() - support @ answers) / math.sqrt((1 - support @ support) * (1 - answers @ answers))
    values = (right.sum(), f1.mean(), f1 @ support, (right / answers).mean(), (right / support).mean(), correlation)

    def draw(rng: np.random.Generator) -> Bounds:
        predicted = (rng.random(n)[:, None] > limits[targets]).sum(axis=1).clip(0, number - 1)
        return _classified(targets, predicted, number)

    return Case(name, n, dict(zip(METRICS, map(float, values), strict=True)), draw)


def rare(number: int, n: int, fraction: float, shares: tuple[float, float], *, mistaken_for_first: bool) -> Case:
    """Return a case with about `n` examples, in which half of the classes are rare. `fraction` is the fraction of the
    examples that belong to rare classes. `shares` contains the accuracies of the frequent and of the rare classes.
    """
    few = number // 2
    frequent, seldom = (max(1, round(n * part)) for part in ((1 - fraction) / (number - few), fraction / few))
    counts = [frequent] * (number - few) + [seldom] * few
    accuracy = [shares[0]] * (number - few) + [shares[1]] * few
    percent = f"{100 * (1 - fraction):g}:{100 * fraction:g}"
    name = f"{number} classes, {percent}, accuracy {shares[0]:g} and {shares[1]:g}"
    return classes(
        name + ", mistaken for the first" if mistaken_for_first else name,
        counts,
        accuracy,
        mistaken_for_first=mistaken_for_first,
    )


def regression(kind: str, n: int, targets: int = 1) -> Case:
    """Return a case in which the errors follow the distribution `kind` and have half the variance of the targets."""
    deviation = math.sqrt(MEAN_SQUARES[kind])
    name = f"{kind} errors" + (f", {targets} targets" if targets > 1 else "")

    def draw(rng: np.random.Generator) -> Bounds:
        errors = np.stack([ERRORS[kind](rng, n) for _ in range(targets)], axis=1)
        outputs = deviation * rng.standard_normal((n, targets))
        return intervals("regression", outputs + errors, outputs)[0]

    return Case(name, n, {"rmse": deviation, "mae": MEAN_ABSOLUTES[kind], "r2": 0.5}, draw)


def area(name: str, counts: tuple[int, int], second: Callable[[np.random.Generator, int], Array], truth: float) -> Case:
    """Return a case with two classes. For the first class, the difference between the logits is normally distributed.
    For the second class, the difference is drawn by the function `second`. `truth` is the area under the ROC curve.
    """

    def draw(rng: np.random.Generator) -> Bounds:
        margins = np.concatenate([rng.standard_normal(counts[0]), second(rng, counts[1])])
        outputs = np.stack([np.zeros(sum(counts)), margins], axis=1)
        return intervals("classification", np.repeat((0, 1), counts), outputs)[0]

    return Case("ROC AUC, {}, {}:{}".format(name, *counts), sum(counts), {"roc_auc": truth}, draw)


def shifted(counts: tuple[int, int], mean: float, deviation: float = 1.0) -> Case:
    """Return a case with normally distributed outputs for both classes."""
    truth = NormalDist().cdf(mean / math.hypot(1.0, deviation))
    name = f"normal outputs, means 0 and {mean:g}, standard deviations 1 and {deviation:g}"
    return area(name, counts, lambda rng, n: mean + deviation * rng.standard_normal(n), truth)


def misranked(counts: tuple[int, int], fraction: float) -> Case:
    """Return a case in which the outputs separate two classes, except for misranked examples. `fraction` is the
    probability that the output for an example of the second class is below all outputs for the first class.
    """

    def second(rng: np.random.Generator, n: int) -> Array:
        return np.where(rng.random(n) < fraction, -99.0, 99.0)

    return area(f"{fraction:g} of the second class misranked", counts, second, 1 - fraction)


def areas() -> Iterator[Case]:
    """Yield the cases for the area under the ROC curve."""
    for counts in ((10, 10), (95, 5), (5, 95), (50, 50), (400, 20), (200, 200)):
        for mean, deviation in ((0.0, 1.0), (0.74, 1.0), (1.8, 1.0), (3.3, 1.0), (2.0, 3.0)):
            yield shifted(counts, mean, deviation)
        for fraction in (0.02, 0.1, 0.4):
            yield misranked(counts, fraction)


CONFIDENCES: dict[str, Callable[[np.random.Generator, int], tuple[Array, Array]]] = {
    "calibrated": lambda rng, n: _calibrated(rng, rng.beta(8, 1, n)),
    "calibrated, confident": lambda rng, n: _calibrated(rng, 1 - 10 ** -rng.uniform(0.3, 6, n)),
    "overconfident": lambda rng, n: (1 - 10 ** -rng.uniform(1, 4, n), rng.random(n) < 0.9),
}
"""Functions that draw the probability of the second class and the true class of each example."""


def _calibrated(rng: np.random.Generator, chances: Array) -> tuple[Array, Array]:
    return chances, rng.random(len(chances)) < chances


def probabilistic(kind: str, n: int) -> Case:
    """Return a case of `n` examples with predicted probabilities for two classes. The true scores are computed from a
    million examples."""

    def drawn(rng: np.random.Generator, examples: int) -> tuple[Array, Array]:
        chances, occurs = CONFIDENCES[kind](rng, examples)
        return occurs.astype(np.int64), np.log(np.stack([1 - chances, chances], axis=1).clip(1e-12))

    targets, outputs = drawn(np.random.default_rng(1), 1_000_000)
    truth = {
        "log_loss": float(example_log_losses(targets, outputs).mean()),
        "brier": float(example_brier_scores(targets, outputs).mean()),
    }
    return Case(f"{kind} probabilities", n, truth, lambda rng: intervals("classification", *drawn(rng, n))[0])


def _classified(targets: Array, predicted: Array, number: int) -> Bounds:
    return intervals("classification", targets, np.eye(number, dtype=np.float32)[predicted])[0]


def cases() -> Iterator[Case]:
    """Yield all cases."""
    yield proportion(360, 0.99)
    for n in (20, 50, 100, 1000):
        for accuracy in (0.5, 0.9, 0.99):
            yield proportion(n, accuracy)
    for each in (40, 5, 3, 1):
        for accuracy in (1.0, 0.99, 0.9, 0.6, 0.3):
            yield classes(f"77 classes x {each}, accuracy {accuracy:g}", [each] * 77, [accuracy] * 77)
    yield classes("77 classes x 5, accuracy 0.8 to 1", [5] * 77, list(np.linspace(0.8, 1.0, 77)))
    for counts in ((98, 2), (490, 10), (980, 20)):
        for shares in ((0.99, 0.7), (0.95, 0.9), (0.999, 0.5)):
            name = "classes {}:{}, accuracy {:g} and {:g}".format(*counts, *shares)
            yield classes(name, counts, shares)
    for number in (2, 3, 10, 77):
        for fraction, n in ((f, n) for f in (0.5, 0.05, 0.01) for n in (20, 100, 500, 5000) if n >= number):
            for shares in SHARES:
                for mistaken in (False, True) if number > 2 else (False,):
                    yield rare(number, n, fraction, shares, mistaken_for_first=mistaken)
    yield from areas()
    for n in (20, 50, 200, 1000):
        for kind in CONFIDENCES:
            yield probabilistic(kind, n)
    for n in (20, 50, 200, 1000):
        for kind in ERRORS:
            yield regression(kind, n)
    for kind in ERRORS:
        yield regression(kind, 50, targets=3)


def windows(n: int, autocorrelation: float, samples: int, seed: int = 0) -> float:
    """Return the fraction of simulated runs with `n` windows in which the within-run range contains the true median.

    The noise of the windows is a first-order autoregressive process with a normal distribution.
    """
    rng, covered = np.random.default_rng(seed), 0
    scale = math.sqrt(1 - autocorrelation**2)
    for _ in range(samples):
        values = rng.standard_normal(n)
        for index in range(1, n):
            values[index] = autocorrelation * values[index - 1] + scale * values[index]
        ends = median_interval(values)
        covered += ends is not None and ends[0] <= 0 <= ends[1]
    return covered / samples


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--samples", type=int, default=2000, help="number of simulations per case [2000]")
    parser.add_argument("-k", default="", help="simulate only the cases whose name contains this text")
    options = parser.parse_args()
    found: list[Coverage] = []
    for case in cases():
        if options.k in case.name:
            print(f"{case.name}, {case.examples} examples", file=sys.stderr)
            found += measure(case, options.samples)
    header = ["case", "examples", "metric", "true score", "coverage", "standard error", "with interval", "width"]
    rows = [
        [
            one.case,
            one.examples,
            one.metric,
            f"{one.truth:.3f}",
            *([f"{one.share:.1%}", f"{one.error:.1%}"] if one.given else ["", ""]),
            f"{one.given / one.samples:.0%}",
            "" if one.width is None else f"{one.width:.3g}",
        ]
        for one in found
    ]
    align = ["left", "right", "left", *["right"] * 5]
    print(tabulate(rows, header, tablefmt="pipe", colalign=align, disable_numparse=True))
    given = [one for one in found if one.given >= options.samples / 2]
    if given:
        worst = min(given, key=lambda one: one.share)
        print(f"\nlowest coverage: {worst.share:.1%} ({worst.case}, {worst.examples} examples, {worst.metric})")
    if not options.k:
        levels = (0.0, 0.3, 0.5, 0.8)
        shares = [[str(n), *(f"{windows(n, level, options.samples):.1%}" for level in levels)] for n in (10, 20, 60)]
        print("\nwithin-run range, by the autocorrelation of the windows\n")
        print(tabulate(shares, ["windows", *map(str, levels)], tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
