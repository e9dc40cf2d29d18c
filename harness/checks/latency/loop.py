"""The ``single-stream`` and ``offline`` scenarios without LoadGen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from harness.checks.latency.result import Measured, Settings

ENGINE = "harness loop"


def run(answer: Callable[[Sequence[int]], None], samples: int, settings: Settings) -> tuple[Measured, list[float]]:
    """Return the results and the latency of each query, in seconds.

    In the ``single-stream`` scenario, queries with one sample each are issued one after another until the time is up.
    In the ``offline`` scenario, a single query contains all samples, repeated enough times to reach the minimum
    duration. The number of repetitions is estimated from an initial pass over the samples.
    """
    if settings.scenario == "offline":
        return _offline(answer, samples, settings)
    latencies: list[float] = []
    begin = now = time.perf_counter()
    while now - begin < settings.seconds:
        start = time.perf_counter()
        answer([len(latencies) % samples])
        now = time.perf_counter()
        latencies.append(now - start)
    return _measured(now - begin, len(latencies), len(latencies)), latencies


def _offline(answer: Callable[[Sequence[int]], None], samples: int, settings: Settings) -> tuple[Measured, list[float]]:
    everything = list(range(samples))
    start = time.perf_counter()
    answer(everything)
    rounds = max(1, round(settings.seconds / (time.perf_counter() - start)))
    start = time.perf_counter()
    answer(everything * rounds)
    seconds = time.perf_counter() - start
    return _measured(seconds, 1, samples * rounds), [seconds]


def _measured(seconds: float, queries: int, samples: int) -> Measured:
    return Measured(engine=ENGINE, valid=None, reasons=[], seconds=seconds, queries=queries, samples=samples)
