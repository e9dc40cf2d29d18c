"""Measure the overhead that harness adds to short runs: ``python -m benchmarks.tiny_runs [--runs 20]``.

Each run fits a ridge regression, and its measurements take only a few milliseconds. The first run is excluded, because
it prepares the data. For each run, the table shows:

- run: the lifetime of the run's process (``wall_s`` in the record).
- other: the rest of the total time, during which no run's process is active.
- CPU: the CPU time of the parent process, including the time in the kernel, in ms and as a fraction of a core.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from harness.execute.runner import run_all
from harness.execute.side_by_side import SideBySide, lanes_for, turns_of
from harness.execute.trial import crashing
from harness.plan.expand import expand_all
from harness.plan.selection import Selection
from harness.plugins import discover
from harness.records.store import Store

OVERRIDES = (
    "protocol.window_s=0.005",
    "protocol.throughput_budget_s=0.01",
    "protocol.latency_batches=12",
    "protocol.latency_budget_s=0.02",
)


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_runs", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="number of runs [20]")
    parser.add_argument("--jobs", type=int, default=1, help="number of simultaneous quality-only runs [1]")
    options = parser.parse_args()
    catalog = discover((), crashing)
    seeds = tuple(range(options.runs + 1))
    chosen = Selection(
        tasks=("regression",), backends=("baseline",), seeds=seeds, threads=1, protocol="quick", overrides=OVERRIDES
    )
    specs = expand_all([chosen], catalog)
    with tempfile.TemporaryDirectory() as made:
        os.environ["HARNESS_CACHE"] = str(Path(made, "cache"))
        store = Store(Path(made, "results"))
        run_all(specs[:1], catalog, store)
        rest = specs[1:]
        start, used = time.perf_counter(), cpu_s()
        if options.jobs == 1:
            records = run_all(rest, catalog, store)
        else:
            executor = SideBySide(lanes_for(rest, options.jobs), turns_of(rest, quality_only=True))
            records = run_all(rest, catalog, store, executor=executor, quality_only=True)
        wall, used = time.perf_counter() - start, cpu_s() - used
    inside = sum(record.wall_s for record in records) / options.jobs
    row = [
        options.jobs,
        len(records),
        f"{1e3 * inside / len(records):.0f}",
        f"{1e3 * (wall - inside) / len(records):.0f}",
        f"{1e3 * used / len(records):.0f}",
        f"{used / wall:.1%}",
    ]
    headers = ["jobs", "runs", "run, ms", "other, ms", "CPU time of the parent, ms", "of a core"]
    print(tabulate([row], headers, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
