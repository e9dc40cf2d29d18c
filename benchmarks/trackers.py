"""Compare the measurements of runs with and without experiment trackers.

``python -m benchmarks.trackers`` executes pairs of runs with the same settings, one without trackers (A) and one with
trackers (B), in the order A B B A. For each measurement, the command prints the ratio B / A with a 95% confidence
interval. The command also prints the smallest change that would have been detected with a probability of 0.95.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from tabulate import tabulate

from harness.analysis.compare.effects import MIN_RUNS, of_turns
from harness.execute.runner import run_all
from harness.execute.trial import crashing
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.plugins.trackers import with_trackers
from harness.records import RunRecord, Success
from harness.records.store import Store

MEASUREMENTS: dict[str, Callable[[Success], float | None]] = {
    "training throughput": lambda outcome: outcome.speed.train_samples_per_s,
    "training time of all epochs": lambda outcome: outcome.curves[-1].train_s,
    "inference throughput": lambda outcome: outcome.speed.inference_samples_per_s,
    "latency p50": lambda outcome: outcome.latency.p50_ms,
}


def measured(record: RunRecord) -> dict[str, float]:
    """Return the logarithms of the measurements. Exit if the run failed."""
    if not isinstance(record.outcome, Success):
        raise SystemExit(f"the run failed: {record.outcome}")
    values = {name: of(record.outcome) for name, of in MEASUREMENTS.items()}
    return {name: math.log(value) for name, value in values.items() if value}


def percent(logarithm: float) -> str:
    return f"{100 * math.expm1(logarithm):+.1f}%"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trackers", description=__doc__)
    parser.add_argument("--pairs", type=int, default=12, help=f"number of pairs of runs, at least {MIN_RUNS} [12]")
    parser.add_argument("--tracker", nargs="+", default=["tensorboard", "mlflow"], help="trackers [tensorboard mlflow]")
    parser.add_argument("--task", default="regression", help="task [regression]")
    parser.add_argument("--backend", default="torch", help="backend [torch]")
    parser.add_argument("--model", default="mlp", help="model [mlp]")
    parser.add_argument("--set", nargs="*", default=["recipe.epochs=40"], help="overrides [recipe.epochs=40]")
    options = parser.parse_args()
    catalog = discover((), crashing)
    chosen = Selection(
        tasks=(options.task,),
        backends=(options.backend,),
        models=(options.model,),
        threads=1,
        protocol="quick",
        overrides=tuple(options.set),
    )
    (spec,) = expand(chosen, catalog)
    loads = [os.getloadavg()[0]]
    differences: dict[str, list[float]] = {name: [] for name in MEASUREMENTS}
    with tempfile.TemporaryDirectory() as made:
        os.environ["HARNESS_CACHE"] = str(Path(made, "cache"))
        store = Store(Path(made, "results"))
        sides = {"without": catalog, "with": with_trackers(catalog, options.tracker, store.path)}
        for chosen_catalog in sides.values():  # the first run prepares the data and the trackers
            run_all([spec], chosen_catalog, store)
        for pair in range(max(MIN_RUNS, options.pairs)):
            found = {}
            for side in ("with", "without") if pair % 2 else ("without", "with"):
                (record,) = run_all([spec], sides[side], store)
                found[side] = measured(record)
                loads.append(os.getloadavg()[0])
            for name in found["with"].keys() & found["without"].keys():
                differences[name].append(found["with"][name] - found["without"][name])
    rows = []
    for name, values in differences.items():
        if len(values) >= MIN_RUNS:
            effect = of_turns(values, 0.95)
            rows.append(
                [name, len(values), *map(percent, (effect.value, effect.low, effect.high)), percent(effect.detectable)]
            )
    headers = ["measurement", "pairs", "change with trackers", "low", "high", "detectable"]
    print(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))
    print(f"\n{spec.title}; trackers: {', '.join(options.tracker)}; load average {min(loads):.1f} to {max(loads):.1f}")


if __name__ == "__main__":
    main()
