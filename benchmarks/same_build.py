"""Error rates of `harness compare`: false differences, and detection of a planted slowdown.

``python -m benchmarks.same_build`` repeats one short run many times. It then draws two sides at random from consecutive
repeats, alternating between the sides (ABAB), and compares them twice: unchanged, and with the training of one side
slowed down. Different draws may share runs. ``--results DIR`` uses the runs in DIR instead of new ones.
``--noise 0.01`` replaces the training throughputs with normally distributed values that vary by 1%, to simulate a
machine with that much noise.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from harness import Success
from harness.analysis.compare.judge import Compared, Comparison, compare_all
from harness.analysis.compare.match import Match
from harness.analysis.metrics import TRAIN_THROUGHPUT
from harness.plugins import discover
from harness.records.store import Store, StoredRun

RUN = ("run", "--quiet", "--task", "vision", "--threads", "1", "--set", "recipe.epochs=3")
"""Arguments of the run. It uses one thread, which leaves a core for other processes."""


def repeats(results: Path, count: int, backend: str) -> list[StoredRun]:
    """Execute the run `count` times and return the runs in order."""
    command = [sys.executable, "-m", "harness", *RUN, "--backend", backend, "--results", str(results)]
    subprocess.run([*command, "--repeat", str(count)], check=True, stdout=subprocess.DEVNULL)
    return Store(results).load().runs


def draw(runs: Sequence[StoredRun], size: int, rng: np.random.Generator) -> Match:
    """Split `size` consecutive pairs of runs into two sides, with a random start and a random base in each pair."""
    start = int(rng.integers(0, len(runs) - 2 * size + 1))
    sides: tuple[list[StoredRun], list[StoredRun]] = ([], [])
    for pair in range(size):
        first, second = runs[start + 2 * pair], runs[start + 2 * pair + 1]
        base, new = (first, second) if rng.random() < 0.5 else (second, first)
        sides[0].append(base)
        sides[1].append(new)
    return Match(*sides)


def slowed(run: StoredRun, share: float) -> StoredRun:
    """Return the run with its training throughput reduced by the fraction `share`."""
    rate = TRAIN_THROUGHPUT.value(run.record)
    assert rate is not None
    return _with_rate(run, rate * (1 - share), run.path)


def noisy(run: StoredRun, share: float, rng: np.random.Generator) -> StoredRun:
    """Return the run with a random training throughput, and without predictions, which are slow to compare."""
    return _with_rate(run, 1000 * (1 + share * rng.standard_normal()), Path())


def _with_rate(run: StoredRun, rate: float, path: Path) -> StoredRun:
    outcome = run.record.outcome
    assert isinstance(outcome, Success)
    speed = msgspec.structs.replace(outcome.speed, train_samples_per_s=rate)
    changed = msgspec.structs.replace(outcome, speed=speed)
    return StoredRun(path, msgspec.structs.replace(run.record, outcome=changed))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_build", description=__doc__)
    parser.add_argument("--results", type=Path, help="folder with repeats of one run, instead of new ones")
    parser.add_argument("--backend", default="torch", help="backend of the runs [torch]")
    parser.add_argument("--runs", type=int, default=40, help="number of repeats [40]")
    parser.add_argument("--side", type=int, default=5, help="runs per side [5]")
    parser.add_argument("--draws", type=int, default=200, help="number of comparisons [200]")
    parser.add_argument(
        "--noise", type=float, help="relative standard deviation of simulated throughputs [measured throughputs]"
    )
    parser.add_argument(
        "--slowdown", type=float, default=0.05, help="slowdown of the training of one side, as a fraction [0.05]"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if options.results:
            runs = Store(options.results).load().runs
        else:
            runs = repeats(Path(temporary), options.runs, options.backend)
        _report(runs, options)


def _report(runs: Sequence[StoredRun], options: argparse.Namespace) -> None:
    catalog, rng = discover(), np.random.default_rng(0)
    reported: Counter[str] = Counter()
    wrong = detected = resolvable = 0
    detectable = []
    for _ in range(options.draws):
        same = draw(runs, options.side, rng)
        if options.noise is not None:
            same = Match(*([noisy(run, options.noise, rng) for run in side] for side in (same.base, same.new)))
        (compared,) = compare_all([same], catalog)
        differing = [c.metric for c in compared.comparisons if c.verdict in ("better", "worse")]
        reported.update(differing)
        wrong += bool(differing)
        planted = Match(same.base, [slowed(run, options.slowdown) for run in same.new])
        training = _training(compare_all([planted], catalog)[0])
        detected += training.verdict == "worse"
        if training.detectable is not None:
            detectable.append(training.detectable)
            resolvable += training.detectable <= options.slowdown
    n = options.draws
    rates = [r for r in (TRAIN_THROUGHPUT.value(run.record) for run in runs) if r is not None]
    varies = np.std(rates, ddof=1) / np.mean(rates) if options.noise is None else options.noise
    print(f"training throughput varies by {varies:.2%} from run to run")
    print(f"{len(runs)} runs; {n} comparisons of {options.side} with {options.side} alternating runs")
    print(f"no difference: one reported in {wrong} ({wrong / n:.1%}){f': {dict(reported)}' if reported else ''}")
    print(f"{options.slowdown:.0%} slower training: found in {detected} ({detected / n:.1%})")
    if detectable:
        print(f"detectable change of training throughput: median {median(detectable):.1%}")
        print(f"detectable change of {options.slowdown:.0%} or less: in {resolvable} ({resolvable / n:.1%})")


def _training(compared: Compared) -> Comparison:
    return next(c for c in compared.comparisons if c.metric == TRAIN_THROUGHPUT.name)


if __name__ == "__main__":
    main()
