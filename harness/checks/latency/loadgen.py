"""The four scenarios by MLPerf's LoadGen, so that their figures mean what the field means by them.

LoadGen asks from a thread of its own; the thread that made the session answers, since frameworks keep thread counts and
devices by thread.
"""

from __future__ import annotations

import importlib.metadata
import json
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.checks.latency.result import Measured, Settings

LEAST_QUERIES = 662
"""What a p99 needs, and LoadGen's early stopping at the 99th percentile as well."""
DEFAULT_BOUND_MS = 100.0
"""LoadGen's own default."""
MARGIN = 1.5
"""LoadGen makes its queries beforehand, by what it is told to expect: this much more than was measured."""
OVERHEAD_S = 1e-4
"""Allowed a query for LoadGen and the hand-over between threads, when a target is chosen
(``python -m benchmarks.loadgen`` measures it)."""
_SCENARIOS = {
    "single-stream": "SingleStream",
    "multi-stream": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}

Answer = Callable[[Sequence[int]], None]


class _Query(NamedTuple):
    issued_s: float
    ids: list[int]
    samples: list[int]


def run(
    answer: Answer, samples: int, settings: Settings, expected_s: float, logs: Path
) -> tuple[Measured, list[float]]:
    """The figures, and the seconds of each query; LoadGen's own logs go to `logs`.

    `answer` computes samples by their numbers; it takes `expected_s` for one query, or for ``offline`` for one sample.
    Latencies are from the moment that LoadGen issued the query; of ``server``, from its scheduled arrival.
    Raises what `answer` raises.
    """
    import mlperf_loadgen as lg

    asked: queue.SimpleQueue[_Query | None] = queue.SimpleQueue()
    latencies: list[float] = []
    failure: list[BaseException] = []

    def issue(queries: list[Any]) -> None:
        asked.put(_Query(time.perf_counter(), [query.id for query in queries], [query.index for query in queries]))

    test = _test_settings(lg, settings, expected_s)
    logging = lg.LogSettings()
    logging.log_output.outdir, logging.log_output.prefix = str(logs), "mlperf_log_"
    logging.enable_trace = settings.scenario == "server"  # which alone has the scheduled arrivals
    sut = lg.ConstructSUT(issue, lambda: None)
    library = lg.ConstructQSL(samples, samples, lambda numbers: None, lambda numbers: None)

    def ask() -> None:
        try:
            lg.StartTestWithLogSettings(sut, library, test, logging)
        finally:
            asked.put(None)

    thread = threading.Thread(target=ask, name="loadgen")
    start = time.perf_counter()
    thread.start()
    while (query := asked.get()) is not None:
        waiting = _waiting(asked, query, settings.batch_size) if settings.scenario == "server" else [query]
        if not failure:
            try:
                answer([number for part in waiting if part for number in part.samples])
            except BaseException as error:  # LoadGen waits for every answer: the rest is completed, then this is told
                failure.append(error)
        now = time.perf_counter()
        for part in waiting:
            if part is None:
                asked.put(None)
                continue
            latencies.append(now - part.issued_s)
            lg.QuerySamplesComplete([lg.QuerySampleResponse(number, 0, 0) for number in part.ids])
    thread.join()
    seconds = time.perf_counter() - start
    lg.DestroyQSL(library)
    lg.DestroySUT(sut)
    if failure:
        raise failure[0]
    if settings.scenario == "server":
        latencies = _since_arrival(logs / "mlperf_log_trace.json")
    for name in ("trace.json", "accuracy.json"):
        (logs / f"mlperf_log_{name}").unlink(missing_ok=True)
    return _measured(logs / "mlperf_log_detail.txt", settings, seconds, len(latencies)), latencies


def _waiting(asked: queue.SimpleQueue[_Query | None], first: _Query, most: int) -> list[_Query | None]:
    """The queries that wait already, as many as are computed at once."""
    found: list[_Query | None] = [first]
    while len(found) < most and found[-1] is not None:
        try:
            found.append(asked.get_nowait())
        except queue.Empty:
            break
    return found


def _test_settings(lg: Any, settings: Settings, expected_s: float) -> Any:
    test = lg.TestSettings()
    test.scenario = getattr(lg.TestScenario, _SCENARIOS[settings.scenario])
    test.mode = lg.TestMode.PerformanceOnly
    test.min_duration_ms = round(1e3 * settings.seconds)
    test.min_query_count = 1 if settings.scenario == "offline" else LEAST_QUERIES
    expected_ns = 1e9 * expected_s / MARGIN
    test.single_stream_expected_latency_ns = test.multi_stream_expected_latency_ns = max(1, round(expected_ns))
    test.multi_stream_samples_per_query = settings.samples_per_query
    test.offline_expected_qps = MARGIN / expected_s
    test.server_target_qps = settings.target_qps or 0.5 / (expected_s + OVERHEAD_S)
    test.server_target_latency_ns = round(1e6 * (settings.latency_bound_ms or DEFAULT_BOUND_MS))
    return test


def _measured(detail: Path, settings: Settings, seconds: float, queries: int) -> Measured:
    found: dict[str, Any] = {}
    errors = []
    for line in detail.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line.partition(":::MLLOG ")[2] or "{}")
        if "key" in entry:
            found[entry["key"]] = entry["value"]
            if entry["metadata"]["is_error"]:
                errors.append(str(entry["value"]))
    rate = found.get("result_samples_per_second")
    total = queries * settings.samples_per_query
    if rate is not None:  # offline: one query, of as many samples as LoadGen made
        total = int(found["effective_samples_per_query"])
        seconds = total / float(rate)
    return Measured(
        engine=f"loadgen {importlib.metadata.version('mlcommons-loadgen')}",
        valid=found.get("result_validity") == "VALID",
        reasons=[] if found.get("result_validity") == "VALID" else _reasons(found, errors),
        seconds=seconds,
        queries=queries,
        samples=total,
        target_qps=float(found["effective_target_qps"]) if settings.scenario == "server" else None,
    )


def _reasons(found: dict[str, Any], errors: list[str]) -> list[str]:
    told = {
        "result_perf_constraints_met": "more than 1% of the queries took longer than the bound",
        "result_min_duration_met": "the queries ended before the time was up",
        "result_min_queries_met": f"there were fewer than {LEAST_QUERIES} queries",
    }
    reasons = [text for key, text in told.items() if found.get(key) is False]
    if found.get("result_invalid_reason"):
        reasons.append(str(found["result_invalid_reason"]).strip())
    return [*reasons, *errors] or ["too few queries to be sure that the percentile holds (early stopping)"]


def _since_arrival(trace: Path) -> list[float]:
    """``complete_ns`` of each sample counts from its scheduled arrival."""
    with trace.open(encoding="utf-8") as lines:
        found = [re.search(r'"name":"Sample".*"complete_ns":(\d+)', line) for line in lines]
    return [int(match.group(1)) / 1e9 for match in found if match]
