"""Overhead of LoadGen and its binding, and accuracy of the measured percentiles: ``python -m benchmarks.loadgen``.

The first table shows the overhead, measured with a service that does nothing. The columns show the time from issuing a
query to its completion, and the total time per query. The second table shows the percentiles for a service with known
latencies, as measured by LoadGen and by harness's own loop. The service busy-waits for 2 ms in 95% of the queries, and
for 10 ms in the other 5%.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.checks.latency import loadgen, loop
from harness.checks.latency.result import Scenario, Settings, percentiles_ms

SAMPLES = 1000
USUAL_S, RARE_S, RARE_EVERY = 2e-3, 10e-3, 20


def settings(scenario: Scenario, seconds: float, **changes: Any) -> Settings:
    per_query = {"multi-stream": 8, "offline": SAMPLES}.get(scenario, 1)
    return Settings(scenario=scenario, seconds=seconds, batch_size=8, samples_per_query=per_query, **changes)


def nothing(samples: Sequence[int]) -> None:
    """Return immediately."""


class Known:
    """Service in which every twentieth query takes 10 ms and all other queries take 2 ms. Therefore, p99 is 10 ms and
    p90 is 2 ms."""

    def __init__(self) -> None:
        self._queries = 0

    def __call__(self, samples: Sequence[int]) -> None:
        self._queries += 1
        end = time.perf_counter() + (USUAL_S if self._queries % RARE_EVERY else RARE_S)
        while time.perf_counter() < end:
            pass


def overhead(seconds: float) -> str:
    """Return a table of the overhead in each scenario."""
    rows = []
    scenarios: tuple[Scenario, ...] = ("single-stream", "multi-stream", "server", "offline")
    for scenario in scenarios:
        target = {"target_qps": 1000.0} if scenario == "server" else {}
        with tempfile.TemporaryDirectory() as logs:
            expected_s = 1e-6 if scenario == "offline" else 2e-5
            result, latencies = loadgen.run(
                nothing, SAMPLES, settings(scenario, seconds, **target), expected_s, Path(logs)
            )
        percentiles = percentiles_ms(latencies)
        p50, p99 = (
            f"{1e3 * value:.1f}" if value is not None else "–" for value in (percentiles["p50"], percentiles["p99"])
        )
        each_us = 1e6 * result.seconds / (result.samples if scenario == "offline" else result.queries)
        rows.append([scenario, f"{result.queries:,}", p50, p99, "–" if scenario == "server" else f"{each_us:.2f}"])
    header = ["scenario", "queries", "p50, µs", "p99, µs", "µs per query (offline: per sample)"]
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def recovered(seconds: float) -> str:
    """Return a table of known and measured percentiles."""
    rows = []
    with tempfile.TemporaryDirectory() as logs:
        chosen = settings("single-stream", seconds)
        engines = {
            "LoadGen": loadgen.run(Known(), SAMPLES, chosen, USUAL_S, Path(logs))[1],
            "loop of harness": loop.run(Known(), SAMPLES, chosen)[1],
        }
    for engine, latencies in engines.items():
        for name, known_s in (("p90", USUAL_S), ("p99", RARE_S)):
            value = percentiles_ms(latencies)[name]
            assert value is not None
            error = value / (1e3 * known_s) - 1
            rows.append([engine, f"{len(latencies):,}", name, f"{1e3 * known_s:g}", f"{value:.4f}", f"{error:+.2%}"])
    header = ["engine", "queries", "percentile", "known, ms", "measured, ms", "error"]
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loadgen", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each measurement, in seconds [5]")
    options = parser.parse_args()
    print(overhead(options.seconds), recovered(options.seconds), sep="\n\n")


if __name__ == "__main__":
    main()
