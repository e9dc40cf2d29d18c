"""Search for the highest query rate at which a service meets a latency bound.

The bound is met if at most 1% of the queries are late or fail. The search first looks for one rate that meets the bound
and one that does not. The search then bisects the interval between these rates on a logarithmic scale. Each probe is a
measurement at one rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec import Struct

MAX_PROBES = 10
LATE = 0.01
"""Maximum fraction of late or failed queries, as in MLPerf's server scenario."""
RESOLUTION = 1.005
"""Ratio at which the search ends: the lowest rate that does not meet the bound, divided by the highest rate that
does."""
CONFIDENCE = 0.95


class Probe(Struct, frozen=True, kw_only=True):
    """Result of a measurement at one rate."""

    target_qps: float
    """Mean number of queries issued per second."""
    queries: int
    late: int
    """Number of queries that took longer than the bound or failed."""
    p99_ms: float | None
    problem: str = ""
    """Reason why the answers cannot be used, such as low quality. The string is empty if the answers can be used."""

    @property
    def holds(self) -> bool:
        """True if the bound was met and the answers can be used."""
        return not self.problem and self.late <= LATE * self.queries


class Found(Struct, frozen=True, kw_only=True):
    """Result of a search."""

    qps: float | None
    """Highest rate at which the bound was met, in queries per second. None if no probe met the bound."""
    low_qps: float | None
    """Highest rate at which the fraction of late queries is at most 1% with 95% confidence (Clopper-Pearson), or None.
    """
    high_qps: float | None
    """Lowest rate at which the fraction of late queries is above 1% with 95% confidence, or None."""
    probes: list[Probe]


def find_rate(probe: Callable[[float], Probe], start_qps: float, most: int = MAX_PROBES) -> Found:
    """Return the highest rate at which the bound is met, using at most `most` probes.

    The search starts at the rate `start_qps`. The factor between consecutive rates is 2 for the first two steps. The
    factor is then squared in each step until one rate meets the bound and another does not. If `start_qps` is within a
    factor of 4 of the result, the result is at most 1% lower than the highest rate that meets the bound.
    """
    probes: list[Probe] = []
    held, failed = 0.0, math.inf
    rate, factor = start_qps, 2.0
    while len(probes) < most and failed > RESOLUTION * held:
        probes.append(probe(rate))
        if probes[-1].holds:
            held = rate
        else:
            failed = rate
        if held and failed < math.inf:
            rate = math.sqrt(held * failed)
        else:
            rate = rate * factor if held else rate / factor
            factor = factor if len(probes) < 2 else factor * factor
    return Found(qps=held or None, probes=probes, **_interval(probes))


def _interval(probes: list[Probe]) -> dict[str, float | None]:
    surely_held = [probe.target_qps for probe in probes if probe.holds and _bounds(probe)[1] <= LATE]
    surely_failed = [probe.target_qps for probe in probes if probe.problem or _bounds(probe)[0] > LATE]
    return {"low_qps": max(surely_held, default=None), "high_qps": min(surely_failed, default=None)}


def _bounds(probe: Probe) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of the fraction of late queries."""
    from scipy.stats import beta

    tail = (1 - CONFIDENCE) / 2
    late, rest = probe.late, probe.queries - probe.late
    low = float(beta.ppf(tail, late, rest + 1)) if late else 0.0
    high = float(beta.ppf(1 - tail, late + 1, rest)) if rest else 1.0
    return low, high
