"""The tables of latency measurements on a run page."""

from __future__ import annotations

from harness.checks.latency.result import LatencyResult
from harness.checks.latency.stored import stored_results
from harness.records.store import StoredRun
from harness.report.site.tables import Value, View, plain


def latency_tables(run: StoredRun) -> tuple[list[View], list[str]]:
    """Return the tables of a run's latency measurements, and a message for each result that cannot be read."""
    results, problems = stored_results(run)
    if not results:
        return [], problems
    headers = ["measurement", "system", "verdict", "rate (queries/s)", "p50 (ms)", "p90 (ms)", "p99 (ms)"]
    rows = [_row(name, result) for name, result in results.items()]
    views = [plain("latency", "Latency", [*headers, "throughput (samples/s)"], rows)]
    if served := {name: result for name, result in results.items() if result.served is not None}:
        headers = ["measurement", "failed", "same labels (%)", "score", "score of the run", "p50 in process (ms)"]
        rows = [_served(name, result) for name, result in served.items()]
        views.append(plain("served", "Service", [*headers, "peak memory (MiB)"], rows))
    if searches := {name: result for name, result in results.items() if result.search is not None}:
        headers = ["measurement", "bound (ms)", "highest rate (queries/s)", "95% interval from", "to", "probes"]
        views.append(plain("rates", "Highest rate", headers, [_rate(name, found) for name, found in searches.items()]))
    return views, problems


def _row(name: str, result: LatencyResult) -> list[Value]:
    measured, known = result.measured, result.percentiles_ms
    verdict = {True: "valid", False: f"invalid: {'; '.join(measured.reasons)}", None: "not checked"}[measured.valid]
    system = result.settings.target or "in process"
    figures = [measured.target_qps, *(known.get(percent) for percent in ("p50", "p90", "p99")), result.samples_per_s]
    return [name, system, verdict, *figures]


def _served(name: str, result: LatencyResult) -> list[Value]:
    served = result.served
    assert served is not None
    same = None if served.same_labels is None else 100 * served.same_labels
    memory = sum(served.memory_bytes.values()) / 2**20 if served.memory_bytes else None
    bare = served.in_process_ms.get("p50")
    return [name, sum(served.failures.values()), same, served.score, served.run_score, bare, memory]


def _rate(name: str, result: LatencyResult) -> list[Value]:
    search = result.search
    assert search is not None
    return [name, result.settings.latency_bound_ms, search.qps, search.low_qps, search.high_qps, len(search.probes)]
