"""What a bundle's runs gave, beside what the same specs give here."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from harness.analysis.differences import changes, described, machine_of
from harness.analysis.metrics import HEADLINES
from harness.measure import stats
from harness.records import Failure, RunRecord, Success

SAME = 1e-6
"""Relative difference below which scores without an interval are the same."""

Answer = Literal["agrees", "differs", "not known", "none"]
"""``none``: neither run has such a thing."""

_NOTHING = (None, hashlib.sha256().hexdigest())
"""What records say of the weights of a model without any: nothing, or in old ones the digest of no bytes."""


class ReproducedCost(Struct, frozen=True, kw_only=True):
    """One of the metrics of cost: of the bundle's run, and here."""

    metric: str
    title: str
    then: float
    now: float
    unit: str


class Reproduced(Struct, frozen=True, kw_only=True):
    """One run of a bundle, and the run of its spec here."""

    run: str
    again: str
    """Run id, here."""
    metric: str
    then: float | None
    now: float | None
    quality: Answer
    why: str
    """What the answer rests on."""
    dataset: Answer
    initial_weights: Answer
    final_weights: Answer
    """Whether training came to the same bits; it need not, on another machine or version."""
    costs: list[ReproducedCost] = []
    machines: tuple[str, str]
    """Then, and here."""
    differences: list[tuple[str, str, str]] = []
    """(name, then, here) of the machine, its software and the settings."""

    @property
    def agrees(self) -> bool:
        return (self.quality, self.dataset) == ("agrees",) * 2 and self.initial_weights in ("agrees", "none")


def judge(then: RunRecord, now: RunRecord, siblings: Sequence[RunRecord]) -> Reproduced:
    """`siblings` are the bundle's successful runs that differ from `then` in their seed or split only."""
    assert isinstance(then.outcome, Success)
    metric = then.outcome.scores.primary
    old = then.outcome.scores.test.get(metric)
    if isinstance(now.outcome, Failure):
        new, quality, why = None, "differs", f"it failed here: {now.outcome.kind}: {now.outcome.message}"
    else:
        new = now.outcome.scores.test.get(metric)
        quality, why = _quality(then.outcome, old, new, siblings)
    origins = (then.provenance, now.provenance)
    return Reproduced(
        run=then.run_id,
        again=now.run_id,
        metric=metric,
        then=old,
        now=new,
        quality=quality,  # type: ignore[arg-type]  # one of the three words above and below
        why=why,
        dataset=_same(*(origin.dataset_digest for origin in origins)),
        initial_weights=_weights(*(origin.initial_weights_digest for origin in origins)),
        final_weights=_weights(*(origin.final_weights_digest for origin in origins)),
        costs=_costs(then, now),
        machines=(_machine(then), _machine(now)),
        differences=changes(described(then), described(now)),
    )


def _quality(
    outcome: Success, old: float | None, new: float | None, siblings: Sequence[RunRecord]
) -> tuple[Answer, str]:
    """Within the interval over the test examples, which the record tells; else within that over its seeds."""
    if old is None or new is None:
        return ("agrees", "neither has a score") if old is new else ("differs", "only one of them has a score")
    if math.isclose(old, new, rel_tol=SAME):
        return "agrees", "the same score"
    ends = outcome.scores.intervals.get(outcome.scores.primary)
    if ends is not None:
        within = ends[0] <= new <= ends[1]
        evidence = f"the 95% interval over the test examples was {ends[0]:.4g} to {ends[1]:.4g}"
        return ("agrees" if within else "differs"), evidence
    scores = [r.outcome.scores.test.get(outcome.scores.primary) for r in siblings if isinstance(r.outcome, Success)]
    mean = stats.mean([score for score in scores if score is not None])
    if mean.ci95 is None:
        return "not known", "the record has no interval, and the bundle no other seed"
    half = mean.ci95 * math.sqrt(len(scores) + 1)  # of one more run, not of the mean
    evidence = f"one more seed was to be expected within {mean.value - half:.4g} to {mean.value + half:.4g}"
    return ("agrees" if abs(new - mean.value) <= half else "differs"), evidence


def _same(then: str | None, now: str | None) -> Answer:
    return "not known" if then is None or now is None else "agrees" if then == now else "differs"


def _weights(then: str | None, now: str | None) -> Answer:
    return "none" if then in _NOTHING and now in _NOTHING else _same(then, now)


def _machine(record: RunRecord) -> str:
    machine, environment = machine_of(record), record.environment
    memory = f"{environment.memory_bytes / 2**30:.1f} GiB"
    gpu = "no GPU" if machine["gpu"] == "none" else machine["gpu"]
    return f"{machine['cpu']}, {machine['cores']} cores, {memory}, {gpu}; {environment.os}, {environment.kernel}"


def _costs(then: RunRecord, now: RunRecord) -> list[ReproducedCost]:
    pairs = [(metric, metric.value(then), metric.value(now)) for metric in HEADLINES]
    return [
        ReproducedCost(metric=metric.name, title=metric.headline, then=old, now=new, unit=metric.unit)
        for metric, old, new in pairs
        if old is not None and new is not None
    ]
