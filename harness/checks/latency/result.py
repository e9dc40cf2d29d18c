"""The stored result of a latency measurement, without its raw samples."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from harness.measure.stats import MINIMUM_SAMPLES, percentile
from harness.records import Environment

Scenario = Literal["single-stream", "multi-stream", "server", "offline"]


class Settings(Struct, frozen=True, kw_only=True):
    """Settings of a latency measurement."""

    scenario: Scenario
    seconds: float
    """Minimum duration, in seconds. For ``offline``, the target duration of the single query."""
    batch_size: int
    """Maximum number of samples whose outputs are computed at once."""
    samples_per_query: int
    """Number of samples in a query: all samples for ``offline``, 8 for ``multi-stream``, and 1 otherwise."""
    target_qps: float | None = None
    """For ``server``: mean number of queries per second. Queries arrive as a Poisson process. If None, the rate is half
    of the rate that the model achieves with one query at a time."""
    latency_bound_ms: float | None = None
    """For ``server``: upper bound on the latency of 99% of the queries, in milliseconds. If None, LoadGen's default is
    used."""


class Measured(Struct, frozen=True, kw_only=True):
    """Results measured by LoadGen or by the simple loop."""

    engine: str
    """``loadgen`` followed by its version, or ``harness loop``."""
    valid: bool | None
    """LoadGen's verdict, or None without LoadGen."""
    reasons: list[str]
    """Reasons why the result is invalid."""
    seconds: float
    """Duration of the measurement, in seconds."""
    queries: int
    samples: int
    target_qps: float | None = None
    """For ``server``: the query rate that LoadGen targeted, in queries per second. None for other scenarios."""


class LatencyResult(Struct, frozen=True, kw_only=True):
    """Result of a latency measurement for one run's model."""

    run_id: str
    settings: Settings
    measured: Measured
    samples_per_s: float | None
    """Throughput for ``offline``, or None for the other scenarios, whose duration includes the time between queries."""
    percentiles_ms: dict[str, float | None]
    """Percentiles ``p50`` to ``p99.9`` of the query latencies, computed by the nearest-rank method. A percentile is
    None if there are too few queries. The mapping is empty for ``offline``, which has a single query."""
    mean_ms: float | None
    """Mean query latency, in milliseconds, or None for ``offline``."""
    weights: Literal["trained", "initial"]
    """Weights used: those saved by the run, or the initial weights."""
    device: str
    started_at: str
    environment: Environment
    flags: list[str]
    """Machine conditions that may have affected the results, such as load from other processes."""


def percentiles_ms(latencies_s: list[float]) -> dict[str, float | None]:
    """Return the percentiles by name, in milliseconds. Percentiles that require more samples are None."""
    samples_ms = [1e3 * seconds for seconds in latencies_s]
    return {f"p{percent:g}": percentile(samples_ms, percent) for percent in MINIMUM_SAMPLES}
