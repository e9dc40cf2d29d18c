"""What is kept of a latency measurement, beside its raw samples."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from harness.measure.stats import MINIMUM_SAMPLES, percentile
from harness.records import Environment

Scenario = Literal["single-stream", "multi-stream", "server", "offline"]
SCENARIOS: tuple[Scenario, ...] = ("single-stream", "multi-stream", "server", "offline")


class Settings(Struct, frozen=True, kw_only=True):
    scenario: Scenario
    seconds: float
    """How long queries are asked at least; of ``offline``, how long its one query is to take."""
    batch_size: int
    """Samples that are computed at once, at most."""
    samples_per_query: int
    """1; of ``multi-stream`` 8; of ``offline`` all there are."""
    target_qps: float | None = None
    """``server``: queries a second, arriving at random (Poisson); None: half of what the model manages one by one."""
    latency_bound_ms: float | None = None
    """``server``: 99% of the queries are to take no longer."""


class Measured(Struct, frozen=True, kw_only=True):
    """What an engine found."""

    engine: str
    """``loadgen`` with its version, or ``harness loop``."""
    valid: bool | None
    """LoadGen's verdict; None for the harness's own loop, which gives none."""
    reasons: list[str]
    """Why it is not valid."""
    seconds: float
    queries: int
    samples: int
    target_qps: float | None = None


class LatencyResult(Struct, frozen=True, kw_only=True):
    run_id: str
    settings: Settings
    measured: Measured
    samples_per_s: float
    percentiles_ms: dict[str, float | None]
    """``p50`` to ``p99.9`` of the queries' latencies, nearest rank; None where the queries are too few for it. Empty
    for ``offline``, which is one query."""
    mean_ms: float | None
    weights: Literal["trained", "initial"]
    device: str
    started_at: str
    environment: Environment
    flags: list[str]
    """What else the machine did meanwhile that may have changed the figures."""


def percentiles_ms(latencies_s: list[float]) -> dict[str, float | None]:
    samples_ms = [1e3 * seconds for seconds in latencies_s]
    return {f"p{percent:g}": percentile(samples_ms, percent) for percent in MINIMUM_SAMPLES}
