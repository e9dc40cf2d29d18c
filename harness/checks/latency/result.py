"""The stored result of a latency measurement, without its raw samples."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from harness.checks.latency.search import Found
from harness.measure.stats import MINIMUM_SAMPLES, percentile
from harness.records import Environment

Scenario = Literal["single-stream", "multi-stream", "server", "offline"]


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of a latency measurement."""

    scenario: Scenario
    seconds: float
    """Minimum duration of the measurement, in seconds. For ``offline``, this is the target duration of the single
    query."""
    batch_size: int
    """Maximum number of samples in a batch."""
    samples_per_query: int
    """Number of samples in a query: all samples for ``offline``, 8 for ``multi-stream``, and 1 otherwise."""
    target_qps: float | None = None
    """For ``server``: mean number of queries per second. Queries arrive as a Poisson process. If None, the number is
    half the rate at which the model answers queries one at a time."""
    latency_bound_ms: float | None = None
    """For ``server``: upper bound on the latency of 99% of the queries, in milliseconds. If None, LoadGen's default is
    used."""
    target: str | None = None
    """URL of the service to measure. If None, the model is measured directly, without a service."""
    query_timeout_s: float | None = None
    """Time limit for a query to a service, in seconds. None if no service is measured, and in older results."""


class Measured(Struct, frozen=True, kw_only=True):
    """Results of a measurement with LoadGen or with the simple loop."""

    engine: str
    """``loadgen`` followed by its version, or ``harness loop``."""
    valid: bool | None
    """LoadGen's verdict. None if LoadGen was not used."""
    reasons: list[str]
    """Reasons why the result is invalid."""
    seconds: float
    """Duration of the measurement, in seconds."""
    queries: int
    samples: int
    target_qps: float | None = None
    """Target query rate of LoadGen in the ``server`` scenario, in queries per second. None in other scenarios."""


class Served(Struct, frozen=True, kw_only=True):
    """Properties of a service that was measured over HTTP."""

    backend: str
    """Name of the backend that the service uses."""
    threads: int | None = None
    """Number of CPU threads of the served model, or None in older results."""
    failures: dict[str, int]
    """Number of queries that failed, by reason."""
    late: int
    """Number of queries that failed or took longer than the bound."""
    examples: int
    """Number of test examples for which the service returned at least one answer. These examples are scored."""
    metric: str
    """Name of the run's primary metric."""
    score: float | None
    """Score of the service's answers."""
    run_score: float | None
    """Score of the run's predictions for the examples that the service answered."""
    same_labels: float | None
    """Fraction of the answered examples for which the service and the run predicted the same label. None for
    regression."""
    error: float | None
    """Norm-wise relative difference from the run's predictions. None for classification."""
    memory_bytes: dict[str, int]
    """Peak memory of each process of the service since the start of the process, in bytes."""
    parts_ms: dict[str, float]
    """Median duration of each part of the service's work, in milliseconds, as reported by the service: ``queue``,
    ``prepare`` and ``model``."""
    capacity_qps: float
    """Query rate that the service reached in a test before the measurement, in queries per second. The test used all
    connections."""
    in_process_ms: dict[str, float | None] = {}
    """Latency percentiles of the same model, measured at the same rate without a service. The dictionary is empty if
    the service and the run use different backends."""


class LatencyResult(Struct, frozen=True, kw_only=True):
    """Result of a latency measurement for one run's model."""

    run_id: str
    settings: Settings
    measured: Measured
    samples_per_s: float | None
    """Throughput in the ``offline`` scenario. The throughput is None in scenarios whose duration includes the time
    between queries."""
    percentiles_ms: dict[str, float | None]
    """Percentiles ``p50`` to ``p99.9`` of the query latencies, computed by the nearest-rank method. A percentile is
    None if there are too few queries. The dictionary is empty for ``offline``, because this scenario consists of a
    single query."""
    mean_ms: float | None
    """Mean query latency, in milliseconds. None for ``offline``."""
    weights: Literal["trained", "initial"]
    """``trained`` if the run saved its weights. Otherwise, the model was measured with its initial weights."""
    device: str
    started_at: str
    environment: Environment
    flags: list[str]
    """Machine conditions that may have affected the results, such as load from other processes."""
    served: Served | None = None
    """Properties of the service. None if the model was measured without a service."""
    search: Found | None = None
    """Result of the search for the highest rate, or None if no search was performed. After a search, the other fields
    describe the measurement at the highest rate found."""


def percentiles_ms(latencies_s: list[float]) -> dict[str, float | None]:
    """Return the percentiles in milliseconds, by name. A percentile is None if there are too few samples."""
    samples_ms = [1e3 * seconds for seconds in latencies_s]
    return {f"p{percent:g}": percentile(samples_ms, percent) for percent in MINIMUM_SAMPLES}
