"""How often `harness compare` calls a difference where there is none, and how often it finds a planted one.

``python -m benchmarks.same_build`` repeats one short run, draws two sides that took turns (A B A B) from consecutive
repeats at random, and compares them: as they are, and with the training of one side slowed down. The runs are real, the
draws overlap. ``--results DIR`` takes the repeats that DIR holds instead of new ones. ``--noise 0.01`` gives the runs
training throughputs that vary by 1% (normal, drawn anew), to show what would be found on a machine of that noise.
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
"""With a core to spare, so that what else the machine does disturbs less."""


def repeats(results: Path, count: int, backend: str) -> list[StoredRun]:
    command = [sys.executable, "-m", "harness", *RUN, "--backend", backend, "--results", str(results)]
    subprocess.run([*command, "--repeat", str(count)], check=True, stdout=subprocess.DEVNULL)
    return Store(results).load().runs


def draw(runs: Sequence[StoredRun], size: int, rng: np.random.Generator) -> Match:
    """Two sides of `size` runs that took turns, which of each pair is the base being drawn."""
    start = int(rng.integers(0, len(runs) - 2 * size + 1))
    sides: tuple[list[StoredRun], list[StoredRun]] = ([], [])
    for pair in range(size):
        first, second = runs[start + 2 * pair], runs[start + 2 * pair + 1]
        base, new = (first, second) if rng.random() < 0.5 else (second, first)
        sides[0].append(base)
        sides[1].append(new)
    return Match(*sides)


def slowed(run: StoredRun, share: float) -> StoredRun:
    rate = TRAIN_THROUGHPUT.value(run.record)
    assert rate is not None
    return _with_rate(run, rate * (1 - share), run.path)


def noisy(run: StoredRun, share: float, rng: np.random.Generator) -> StoredRun:
    """Without its predictions, whose comparison takes the time."""
    return _with_rate(run, 1000 * (1 + share * rng.standard_normal()), Path())


def _with_rate(run: StoredRun, rate: float, path: Path) -> StoredRun:
    outcome = run.record.outcome
    assert isinstance(outcome, Success)
    speed = msgspec.structs.replace(outcome.speed, train_samples_per_s=rate)
    changed = msgspec.structs.replace(outcome, speed=speed)
    return StoredRun(path, msgspec.structs.replace(run.record, outcome=changed))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_build", description=__doc__)
    parser.add_argument("--results", type=Path, help="repeats of one run, made before")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--runs", type=int, default=40, help="new repeats [40]")
    parser.add_argument("--side", type=int, default=5, help="runs on a side [5]")
    parser.add_argument("--draws", type=int, default=200, help="comparisons [200]")
    parser.add_argument("--noise", type=float, help="of the training throughput, instead of what was measured")
    parser.add_argument("--slowdown", type=float, default=0.05, help="planted into one side's training [0.05]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if options.results:
            runs = Store(options.results).load().runs
        else:
            runs = repeats(Path(place), options.runs, options.backend)
        _report(runs, options)


def _report(runs: Sequence[StoredRun], options: argparse.Namespace) -> None:
    catalog, rng = discover(), np.random.default_rng(0)
    called: Counter[str] = Counter()
    wrong = found = told = 0
    detectable = []
    for _ in range(options.draws):
        same = draw(runs, options.side, rng)
        if options.noise is not None:
            same = Match(*([noisy(run, options.noise, rng) for run in side] for side in (same.base, same.new)))
        (compared,) = compare_all([same], catalog)
        differing = [c.metric for c in compared.comparisons if c.verdict in ("better", "worse")]
        called.update(differing)
        wrong += bool(differing)
        planted = Match(same.base, [slowed(run, options.slowdown) for run in same.new])
        training = _training(compare_all([planted], catalog)[0])
        found += training.verdict == "worse"
        if training.detectable is not None:
            detectable.append(training.detectable)
            told += training.detectable <= options.slowdown
    n = options.draws
    rates = [r for r in (TRAIN_THROUGHPUT.value(run.record) for run in runs) if r is not None]
    varies = np.std(rates, ddof=1) / np.mean(rates) if options.noise is None else options.noise
    print(f"training throughput varies by {varies:.2%} from run to run")
    print(f"{len(runs)} runs; {n} comparisons of {options.side} with {options.side} that took turns")
    print(f"no difference: called one in {wrong} ({wrong / n:.1%}){f': {dict(called)}' if called else ''}")
    print(f"{options.slowdown:.0%} slower training: found in {found} ({found / n:.1%})")
    if detectable:
        print(f"smallest change that compare says it would see: median {median(detectable):.1%}")
        print(f"it says that it would see {options.slowdown:.0%} in {told} ({told / n:.1%})")


def _training(compared: Compared) -> Comparison:
    return next(c for c in compared.comparisons if c.metric == TRAIN_THROUGHPUT.name)


if __name__ == "__main__":
    main()
