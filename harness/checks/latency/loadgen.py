"""The four MLPerf Inference scenarios, measured with LoadGen to match MLPerf's definitions.

LoadGen issues queries from a separate thread. The queries are answered in the thread that created the session, because
some settings of a framework, such as the device, apply to a single thread. When a service is measured, several threads
send the queries, each over a separate connection.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.checks.latency.result import Measured, Settings

MIN_QUERIES = 662
"""Minimum number of queries in a test, as required for LoadGen's early stopping and for estimating the 99th
percentile."""
DEFAULT_BOUND_MS = 100.0
"""LoadGen's default latency bound, in milliseconds."""
MARGIN = 1.5
"""Ratio of the query rate passed to LoadGen to the measured rate. The ratio is above 1 because LoadGen creates all
queries in advance."""
OVERHEAD_S = 1e-4
"""Assumed overhead per query, in seconds, for choosing a target rate. ``python -m benchmarks.loadgen`` measures the
overhead of LoadGen and of thread switches."""
_SCENARIOS = {
    "single-stream": "SingleStream",
    "multi-stream": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}

Answer = Callable[[Sequence[int]], int | None]
"""Function that answers queries for the samples with the given indices. The function returns the number of unanswered
samples, or None if all samples were answered."""


class _Query(NamedTuple):
    number: int
    issued_s: float
    ids: list[int]
    samples: list[int]


def run(
    answer: Answer,
    samples: int,
    settings: Settings,
    expected_s: float,
    logs: Path,
    others: Sequence[Answer] = (),
    failed_s: list[float] | None = None,
    *,
    abandon: bool = False,
) -> tuple[Measured, list[float]]:
    """Return the results and the latency of each query, in seconds. LoadGen writes its logs to the directory `logs`.

    `answer` computes the outputs for the samples with the given indices. The functions in `others` answer further
    queries concurrently, each in a separate thread. `expected_s` is the expected duration of one query, or of one
    sample in the ``offline`` scenario. Latency is measured from the time when LoadGen issues the query. In the
    ``server`` scenario, latency is measured from the query's scheduled arrival. In the ``server`` scenario with a batch
    size of 1, the latencies of failed queries are also added to `failed_s`.

    Exceptions raised by `answer` propagate at the end of the test. With `abandon`, they propagate at once. The test
    then continues in other threads without receiving answers, so the process should exit.
    """
    import mlperf_loadgen as lg

    issued: queue.SimpleQueue[_Query | None] = queue.SimpleQueue()
    latencies: list[float] = []
    failure: list[BaseException] = []
    failed: list[int] = []
    numbers = itertools.count()

    def issue(queries: list[Any]) -> None:
        number = next(numbers)
        issued.put(
            _Query(number, time.perf_counter(), [query.id for query in queries], [query.index for query in queries])
        )

    test = _test_settings(lg, settings, expected_s)
    logging = lg.LogSettings()
    logging.log_output.outdir, logging.log_output.prefix = str(logs), "mlperf_log_"
    logging.enable_trace = settings.scenario == "server"  # the scheduled arrivals are only in the trace
    sut = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(samples, samples, lambda numbers: None, lambda numbers: None)

    def run_test() -> None:
        try:
            lg.StartTestWithLogSettings(sut, library, test, logging)
        finally:
            issued.put(None)

    def complete(own: Answer) -> None:
        """Answer queries until the end of the test."""
        while (query := issued.get()) is not None:
            waiting = _waiting(issued, query, settings.batch_size) if settings.scenario == "server" else [query]
            if not failure:
                try:
                    if own([number for part in waiting if part for number in part.samples]):
                        failed.append(query.number)
                except BaseException as error:
                    # LoadGen waits for every answer, so complete the remaining queries before raising.
                    failure.append(error)
                    if abandon:
                        break
            now = time.perf_counter()
            for part in waiting:
                if part is None:
                    issued.put(None)
                    continue
                latencies.append(now - part.issued_s)
                lg.QuerySamplesComplete([lg.QuerySampleResponse(number, 0, 0) for number in part.ids])
        issued.put(None)  # end the other threads

    threads = [threading.Thread(target=run_test, name="loadgen", daemon=abandon)]
    threads += [
        threading.Thread(target=complete, args=(other,), name="loadgen-answer", daemon=abandon) for other in others
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    complete(answer)
    if failure and abandon:
        raise failure[0]
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    lg.DestroyQSL(library)
    lg.DestroySUT(sut)
    if failure:
        raise failure[0]
    if settings.scenario == "server":
        latencies = _since_arrival(logs / "mlperf_log_trace.json")
        if failed_s is not None:
            failed_s += [latencies[number] for number in failed]
    for name in ("trace.json", "accuracy.json"):
        (logs / f"mlperf_log_{name}").unlink(missing_ok=True)
    return _measured(logs / "mlperf_log_detail.txt", settings, seconds, len(latencies)), latencies


def _waiting(issued: queue.SimpleQueue[_Query | None], first: _Query, most: int) -> list[_Query | None]:
    """Return a list of at most `most` queries: `first`, followed by queries from the queue. None marks the end of the
    test."""
    waiting: list[_Query | None] = [first]
    while len(waiting) < most and waiting[-1] is not None:
        try:
            waiting.append(issued.get_nowait())
        except queue.Empty:
            break
    return waiting


def _test_settings(lg: Any, settings: Settings, expected_s: float) -> Any:
    test = lg.TestSettings()
    test.scenario = getattr(lg.TestScenario, _SCENARIOS[settings.scenario])
    test.mode = lg.TestMode.PerformanceOnly
    test.min_duration_ms = round(1e3 * settings.seconds)
    test.min_query_count = 1 if settings.scenario == "offline" else MIN_QUERIES
    expected_ns = 1e9 * expected_s / MARGIN
    test.single_stream_expected_latency_ns = test.multi_stream_expected_latency_ns = max(1, round(expected_ns))
    test.multi_stream_samples_per_query = settings.samples_per_query
    test.offline_expected_qps = MARGIN / expected_s
    test.server_target_qps = settings.target_qps or 0.5 / (expected_s + OVERHEAD_S)
    test.server_target_latency_ns = round(1e6 * (settings.latency_bound_ms or DEFAULT_BOUND_MS))
    return test


def _measured(detail: Path, settings: Settings, seconds: float, queries: int) -> Measured:
    """Return the results from LoadGen's detailed log."""
    logged: dict[str, Any] = {}
    errors = []
    for line in detail.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line.partition(":::MLLOG ")[2] or "{}")
        if "key" in entry:
            logged[entry["key"]] = entry["value"]
            if entry["metadata"]["is_error"]:
                errors.append(str(entry["value"]))
    rate = logged.get("result_samples_per_second")
    total = queries * settings.samples_per_query
    if rate is not None:  # in the ``offline`` scenario, LoadGen chooses the size of the single query
        total = int(logged["effective_samples_per_query"])
        seconds = total / float(rate)
    valid = logged.get("result_validity") == "VALID"
    return Measured(
        engine=f"loadgen {importlib.metadata.version('mlcommons-loadgen')}",
        valid=valid,
        reasons=[] if valid else _reasons(logged, errors),
        seconds=seconds,
        queries=queries,
        samples=total,
        target_qps=float(logged["effective_target_qps"]) if settings.scenario == "server" else None,
    )


def _reasons(logged: dict[str, Any], errors: list[str]) -> list[str]:
    """Return the reasons why LoadGen declared a result invalid."""
    texts = {
        "result_perf_constraints_met": "more than 1% of the queries exceeded the latency bound",
        "result_min_duration_met": "the queries ended before the minimum duration was reached",
        "result_min_queries_met": f"there were fewer than {MIN_QUERIES} queries",
    }
    reasons = [text for key, text in texts.items() if logged.get(key) is False]
    if logged.get("result_invalid_reason"):
        reasons.append(str(logged["result_invalid_reason"]).strip())
    return [*reasons, *errors] or ["there were too few queries for LoadGen's early-stopping estimate of the percentile"]


def _since_arrival(trace: Path) -> list[float]:
    """Return the latency of each query in seconds, measured from its scheduled arrival. The latencies are in the order
    in which LoadGen issued the queries (``complete_ns`` in its trace)."""
    with trace.open(encoding="utf-8") as lines:
        matches = [re.search(r'"name":"Sample".*"query_seq":(\d+).*"complete_ns":(\d+)', line) for line in lines]
    return [latency_ns / 1e9 for _, latency_ns in sorted((int(match[1]), int(match[2])) for match in matches if match)]
