"""What a query costs in LoadGen and its binding, and whether a known p99 comes back.

``python -m benchmarks.loadgen`` answers LoadGen's queries by a service that does nothing, and prints the microseconds
between issue and completion, and a query's share of the whole; then by a service whose latencies are known (it spins:
95% of the queries 2 ms, the others 10 ms), and prints the p99 that LoadGen and the harness's own loop find.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from harness.checks.latency import loadgen, loop
from harness.checks.latency.result import Scenario, Settings, percentiles_ms

SAMPLES = 1000
USUAL_S, RARE_S, RARE_EVERY = 2e-3, 10e-3, 20


def settings(scenario: Scenario, seconds: float, **changes: float) -> Settings:
    per_query = {"multi-stream": 8, "offline": SAMPLES}.get(scenario, 1)
    return Settings(scenario=scenario, seconds=seconds, batch_size=8, samples_per_query=per_query, **changes)


def nothing(samples: Sequence[int]) -> None:
    pass


class Known:
    """Every twentieth query takes 10 ms, the others 2 ms: the p99 is 10 ms, the p90 2 ms."""

    def __init__(self) -> None:
        self._queries = 0

    def __call__(self, samples: Sequence[int]) -> None:
        self._queries += 1
        end = time.perf_counter() + (USUAL_S if self._queries % RARE_EVERY else RARE_S)
        while time.perf_counter() < end:
            pass


def overhead(seconds: float) -> str:
    rows = []
    scenarios: tuple[Scenario, ...] = ("single-stream", "multi-stream", "server", "offline")
    for scenario in scenarios:
        target = {"target_qps": 1000.0} if scenario == "server" else {}
        with tempfile.TemporaryDirectory() as logs:
            expected_s = 1e-6 if scenario == "offline" else 2e-5
            found, latencies = loadgen.run(
                nothing, SAMPLES, settings(scenario, seconds, **target), expected_s, Path(logs)
            )
        told = percentiles_ms(latencies)
        p50, p99 = (f"{1e3 * value:.1f}" if value is not None else "–" for value in (told["p50"], told["p99"]))
        each_us = 1e6 * found.seconds / (found.samples if scenario == "offline" else found.queries)
        rows.append([scenario, f"{found.queries:,}", p50, p99, "–" if scenario == "server" else f"{each_us:.2f}"])
    header = ["scenario", "queries", "p50, µs", "p99, µs", "µs a query (offline: a sample)"]
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def recovered(seconds: float) -> str:
    rows = []
    with tempfile.TemporaryDirectory() as logs:
        chosen = settings("single-stream", seconds)
        engines = {
            "LoadGen": loadgen.run(Known(), SAMPLES, chosen, USUAL_S, Path(logs))[1],
            "the harness's own loop": loop.run(Known(), SAMPLES, chosen)[1],
        }
    for engine, latencies in engines.items():
        for name, known_s in (("p90", USUAL_S), ("p99", RARE_S)):
            value = percentiles_ms(latencies)[name]
            assert value is not None
            error = value / (1e3 * known_s) - 1
            rows.append([engine, f"{len(latencies):,}", name, f"{1e3 * known_s:g}", f"{value:.4f}", f"{error:+.2%}"])
    header = ["engine", "queries", "percentile", "known, ms", "found, ms", "error"]
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loadgen", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement [5]")
    options = parser.parse_args()
    print(overhead(options.seconds), recovered(options.seconds), sep="\n\n")


if __name__ == "__main__":
    main()
