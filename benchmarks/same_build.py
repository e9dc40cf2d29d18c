"""Measure how often `harness compare` reports a false difference, and how often it detects an artificial slowdown.

``python -m benchmarks.same_build`` simulates runs of one build on a machine with drifting speed or autocorrelated
noise. The runs are assigned to two groups in several orders, and the groups are compared. Each comparison is repeated
after the training throughput of one group has been reduced. Repeats of one real run can be used instead of simulated
runs: ``--results DIR`` uses the repeats in a directory, and ``--runs N`` executes N new repeats. Different comparisons
may use some of the same real runs.

Orders: ``ABBA`` is the order in which `harness run` executes runs. ``ABAB`` alternates the groups, ``AABB`` alternates
pairs of runs of one group, and ``AAA BBB`` places all runs of one group before those of the other.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from harness import Success
from harness.analysis.compare.judge import Compared, Comparison, compare_all
from harness.analysis.compare.match import Match
from harness.analysis.metrics import TRAIN_THROUGHPUT
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import RunRecord
from harness.records.store import RECORD, Store, StoredRun, read_record

RUN = ("run", "--quiet", "--task", "vision", "--threads", "1", "--set", "recipe.epochs=3", "--protocol", "quick")
"""Arguments of the real run. The run uses one thread, so that a core remains free for other processes."""
TEMPLATE = Path(__file__).parents[1] / "results" / "reference"
"""Directory containing the record on which simulated runs are based."""
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Noise(NamedTuple):
    """Noise in the speed of simulated runs."""

    name: str
    deviation: float = 0.01
    drift: float = 0.0
    """Relative change in the speed of the machine between the first and the last run, which is the same for all
    metrics."""
    autocorrelation: float = 0.0
    """Correlation between the noise of consecutive runs."""

    def draw(self, rng: np.random.Generator, runs: int, metrics: int) -> NDArray[np.float64]:
        """Return relative speeds ``[runs, metrics]``. The noise is independent across metrics."""
        values = rng.standard_normal((runs, metrics))
        scale = np.sqrt(1 - self.autocorrelation**2)
        for index in range(1, runs):
            values[index] = self.autocorrelation * values[index - 1] + scale * values[index]
        drift = np.linspace(0, self.drift, runs)[:, None]
        return np.asarray(np.exp(self.deviation * values) * (1 - drift))


NOISES = (
    Noise("independent, 1%"),
    Noise("10% drift", drift=0.1),
    Noise("autocorrelation 0.3", autocorrelation=0.3),
    Noise("autocorrelation 0.5", autocorrelation=0.5),
    Noise("autocorrelation 0.8", autocorrelation=0.8),
    Noise("autocorrelation 0.8, 10% drift", drift=0.1, autocorrelation=0.8),
)
ORDERS = ("ABBA", "ABAB", "AABB", "AAA BBB")


def letters(order: str, size: int) -> str:
    """Return a string with the group, A or B, of each of ``2 * size`` runs in chronological order."""
    if order == "AAA BBB":
        return "A" * size + "B" * size
    return "".join(order[index % len(order)] for index in range(2 * size))


def split(runs: Sequence[StoredRun], order: str, flip: bool) -> Match:
    """Assign consecutive runs to two groups in the given order. If `flip` is True, swap the groups."""
    sides: dict[str, list[StoredRun]] = {"A": [], "B": []}
    for run, letter in zip(runs, letters(order, len(runs) // 2), strict=True):
        sides[letter].append(run)
    base, new = sides["BA"[not flip]], sides["BA"[flip]]
    return Match(base, new)


def simulated(template: RunRecord, speeds: NDArray[np.float64]) -> list[StoredRun]:
    """Return runs with the given relative speeds ``[runs, 4]`` of training, inference and the two latencies."""
    outcome = template.outcome
    assert isinstance(outcome, Success)
    runs = []
    for number, (train, inference, p50, p99) in enumerate(speeds.tolist()):
        speed = msgspec.structs.replace(
            outcome.speed, train_samples_per_s=1000 * train, inference_samples_per_s=1000 * inference
        )
        latency = msgspec.structs.replace(outcome.latency, p50_ms=1 / p50, p99_ms=2 / p99)
        changed = msgspec.structs.replace(outcome, speed=speed, latency=latency)
        started_at = (START + datetime.timedelta(minutes=number)).isoformat(timespec="milliseconds")
        runs.append(StoredRun(Path(), msgspec.structs.replace(template, outcome=changed, started_at=started_at)))
    return runs


def slowed(run: StoredRun, share: float) -> StoredRun:
    """Return the run with its training throughput reduced by the fraction `share`."""
    outcome = run.record.outcome
    assert isinstance(outcome, Success)
    rate = outcome.speed.train_samples_per_s
    assert rate is not None
    speed = msgspec.structs.replace(outcome.speed, train_samples_per_s=rate * (1 - share))
    changed = msgspec.structs.replace(outcome, speed=speed)
    return StoredRun(run.path, msgspec.structs.replace(run.record, outcome=changed))


class Rates:
    """Outcome counts for many comparisons between groups of runs of the same build."""

    def __init__(self, catalog: Catalog, slowdown: float) -> None:
        self._catalog, self._slowdown = catalog, slowdown
        self.total = self.wrong = self.promised = self.broken = self.detected = 0
        self.reported: Counter[str] = Counter()
        self.detectable: list[float] = []

    def add(self, same: Match) -> None:
        (compared,) = compare_all([same], self._catalog)
        differing = [one.metric for one in compared.comparisons if one.verdict != "inconclusive"]
        promise = all(one.interleaved for one in compared.comparisons)
        self.total += 1
        self.wrong += bool(differing)
        self.promised += promise
        self.broken += promise and bool(differing)
        self.reported.update(differing)
        planted = Match(same.base, [slowed(run, self._slowdown) for run in same.new])
        training = _training(compare_all([planted], self._catalog)[0])
        self.detected += training.verdict == "worse"
        if training.detectable is not None:
            self.detectable.append(training.detectable)

    def row(self) -> list[str]:
        promise = f"{self.broken / self.promised:.1%}" if self.promised else "not interleaved"
        smallest = f"{median(self.detectable):.1%}" if self.detectable else ""
        return [f"{self.wrong / self.total:.1%}", promise, f"{self.detected / self.total:.1%}", smallest]


def _training(compared: Compared) -> Comparison:
    return next(one for one in compared.comparisons if one.metric == TRAIN_THROUGHPUT.name)


def of_simulated(options: argparse.Namespace) -> Iterator[list[Any]]:
    catalog, template = discover(), read_record(next(iter(sorted(TEMPLATE.glob("vision-*torch*")))) / RECORD)
    for noise in NOISES:
        for order in options.order.split(","):
            for size in options.side:
                rng, rates = np.random.default_rng(0), Rates(catalog, options.slowdown)
                for _ in range(options.draws):
                    runs = simulated(template, noise.draw(rng, 2 * size, 4))
                    rates.add(split(runs, order, flip=bool(rng.random() < 0.5)))
                yield [noise.name, order, size, *rates.row()]


def of_real(runs: Sequence[StoredRun], options: argparse.Namespace) -> Iterator[list[Any]]:
    catalog = discover()
    for order in options.order.split(","):
        for size in options.side:
            if 2 * size > len(runs):
                continue
            rng, rates = np.random.default_rng(0), Rates(catalog, options.slowdown)
            for _ in range(options.draws):
                start = int(rng.integers(0, len(runs) - 2 * size + 1))
                rates.add(split(runs[start : start + 2 * size], order, flip=bool(rng.random() < 0.5)))
            yield [f"{len(runs)} runs", order, size, *rates.row()]


def repeats(results: Path, count: int, backend: str) -> list[StoredRun]:
    """Execute the run `count` times and return the runs in order."""
    command = [sys.executable, "-m", "harness", *RUN, "--backend", backend, "--results", str(results)]
    subprocess.run([*command, "--repeat", str(count)], check=True, stdout=subprocess.DEVNULL)
    return Store(results).load().runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_build", description=__doc__)
    parser.add_argument(
        "--results", type=Path, help="compare repeats of one run, read from this directory, instead of simulated runs"
    )
    parser.add_argument(
        "--runs", type=int, help="execute this number of repeats of one run and compare them, instead of simulated runs"
    )
    parser.add_argument("--backend", default="torch", help="backend of the new runs [torch]")
    parser.add_argument("--order", default=",".join(ORDERS), help=f"run orders, comma-separated [{','.join(ORDERS)}]")
    parser.add_argument("--side", type=int, nargs="+", default=[5, 10], help="runs per group [5 10]")
    parser.add_argument("--draws", type=int, default=1000, help="number of comparisons [1000]")
    parser.add_argument(
        "--slowdown",
        type=float,
        default=0.05,
        help="reduction of the training throughput of one group, as a fraction [0.05]",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if options.results or options.runs:
            runs = (
                Store(options.results).load().runs
                if options.results
                else repeats(Path(temporary), options.runs, options.backend)
            )
            rates = [rate for run in runs if (rate := TRAIN_THROUGHPUT.value(run.record)) is not None]
            print(f"training throughput varies by {np.std(rates, ddof=1) / np.mean(rates):.2%} from run to run\n")
            rows = list(of_real(runs, options))
        else:
            rows = list(of_simulated(options))
    found = f"{options.slowdown:.0%} slower training found"
    headers = [
        "noise",
        "order",
        "runs per group",
        "false differences",
        "false differences, interleaved",
        found,
        "detectable",
    ]
    align = ["left", "left", *["right"] * 5]
    print(tabulate(rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True))


if __name__ == "__main__":
    main()
