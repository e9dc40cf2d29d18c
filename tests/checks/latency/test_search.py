"""Tests of the search for the highest rate, with simulated queues of known capacity."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.checks.latency.search import MAX_PROBES, Found, Probe, find_rate

QUERIES = 200_000


def simulated(
    service_rate: float, bound_s: float, queries: int = QUERIES, failures: float = 0.0
) -> Callable[..., Probe]:
    """Return a probe of an M/M/1 queue with a simulated clock: exponential service times with a mean of
    1 / `service_rate` seconds, in order of arrival."""

    def probe(rate: float) -> Probe:
        rng = np.random.default_rng(0)
        arrivals = rng.exponential(1 / rate, queries).cumsum()
        services = rng.exponential(1 / service_rate, queries)
        work = services.cumsum()
        done = work + np.maximum.accumulate(arrivals - (work - services))
        latencies = done - arrivals
        late = int((latencies > bound_s).sum() + failures * queries)
        return Probe(target_qps=rate, queries=queries, late=late, p99_ms=1e3 * float(np.quantile(latencies, 0.99)))

    return probe


def capacity(service_rate: float, bound_s: float) -> float:
    """Return the highest rate of an M/M/1 queue at which 99% of the latencies are below the bound: latencies are
    exponential with the rate ``service_rate - rate`` (Kleinrock 1975, Queueing Systems, volume 1)."""
    return service_rate - math.log(100) / bound_s


@pytest.mark.parametrize(
    ("service_rate", "bound_s", "start"),
    [(1000.0, 0.05, 0.3), (1000.0, 0.05, 0.7), (200.0, 0.1, 3.0), (50.0, 2.0, 1.1)],
)
def test_capacity_of_a_known_queue_is_found_within_two_percent(
    service_rate: float, bound_s: float, start: float
) -> None:
    found = find_rate(simulated(service_rate, bound_s), start * service_rate)
    expected = capacity(service_rate, bound_s)
    assert found.qps == pytest.approx(expected, rel=0.02)
    assert found.low_qps is not None
    assert found.high_qps is not None
    assert found.low_qps <= found.qps <= found.high_qps
    assert len(found.probes) <= MAX_PROBES


def test_service_that_fails_often_has_no_rate() -> None:
    found = find_rate(simulated(1000.0, 0.05, failures=0.02), 500.0)
    assert (found.qps, found.low_qps) == (None, None)
    assert len(found.probes) == MAX_PROBES


def test_answers_of_low_quality_do_not_hold_the_bound() -> None:
    wrong = Probe(target_qps=1.0, queries=1000, late=0, p99_ms=1.0, problem="wrong answers")
    assert not wrong.holds
    assert find_rate(lambda rate: wrong, 1.0).qps is None


def test_interval_contains_only_rates_that_few_queries_can_distinguish() -> None:
    """With 662 queries, 3 late ones are compatible with more than 1%."""
    found = find_rate(lambda rate: Probe(target_qps=rate, queries=662, late=3, p99_ms=1.0), 8.0, most=3)
    assert found == Found(qps=found.probes[-1].target_qps, low_qps=None, high_qps=None, probes=found.probes)


@given(st.floats(1e-2, 1e6), st.floats(0.02, 50))
def test_search_brackets_any_threshold(threshold: float, ratio: float) -> None:
    def probe(rate: float) -> Probe:
        return Probe(target_qps=rate, queries=1000, late=0 if rate <= threshold else 1000, p99_ms=None)

    found = find_rate(probe, threshold * ratio)
    assert found.qps is not None
    assert found.high_qps is not None
    assert found.qps <= threshold < found.high_qps
    assert found.high_qps / found.qps <= 1.2
