"""What runs are compared by: the figures of a successful run, with their units and which of their values are better."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from harness.analysis.compare.match import Match
from harness.measure.quality.metrics import unit_of
from harness.records import Success
from harness.records.store import StoredRun

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog


class Measure(NamedTuple):
    name: str
    value: Callable[[Success], float | None]
    higher_is_better: bool
    relative: bool
    unit: str = ""


def _device_mib(outcome: Success, name: str) -> float | None:
    size = getattr(outcome.memory.device, name, None)
    return None if size is None else size / 2**20


_COSTS = (
    Measure("train_throughput", lambda o: o.speed.train_samples_per_s, True, True, "samples/s"),
    Measure("inference_throughput", lambda o: o.speed.inference_samples_per_s, True, True, "samples/s"),
    Measure("p50_ms", lambda o: o.latency.p50_ms, False, True, "ms"),
    Measure("p90_ms", lambda o: o.latency.p90_ms, False, True, "ms"),
    Measure("p99_ms", lambda o: o.latency.p99_ms, False, True, "ms"),
    Measure("host_peak", lambda o: o.memory.host_peak_bytes / 2**20, False, True, "MiB"),
    Measure("device_peak", lambda o: _device_mib(o, "allocator_peak_bytes"), False, True, "MiB"),
    Measure("driver_peak", lambda o: _device_mib(o, "driver_peak_bytes"), False, True, "MiB"),
)
USUAL = ("train_throughput", "inference_throughput", "p50_ms", "p99_ms", "host_peak", "device_peak")
"""Compared beside the primary metric, unless others are asked for."""


def titled(name: str, unit: str) -> str:
    """A figure's name for people, its unit with it."""
    return f"{name} ({unit})" if unit and not name.endswith(f"_{unit}") else name


def measures(matched: Match, catalog: Catalog) -> dict[str, Measure]:
    """Every figure that both sides have, by name: the task's metrics and the costs."""
    outcomes = [outcome_of(run) for run in (*matched.base, *matched.new)]
    names = [name for name in outcomes[0].scores.test if all(name in outcome.scores.test for outcome in outcomes)]
    metrics, data = map(catalog.metric, names), matched.base[0].record.provenance.data
    quality = [Measure(m.name, _score(m.name), m.higher_is_better, False, unit_of(m, data)) for m in metrics]
    found = {measure.name: measure for measure in (*quality, *_COSTS)}
    sides = ([outcome_of(run) for run in side] for side in (matched.base, matched.new))
    known = [{name for name, m in found.items() if any(m.value(o) is not None for o in side)} for side in sides]
    return {name: measure for name, measure in found.items() if name in known[0] & known[1]}


def usual(matched: Match) -> tuple[str, ...]:
    return (outcome_of(matched.base[0]).scores.primary, *USUAL)


def outcome_of(run: StoredRun) -> Success:
    assert isinstance(run.record.outcome, Success)
    return run.record.outcome


def _score(name: str) -> Callable[[Success], float | None]:
    return lambda outcome: outcome.scores.test.get(name)
