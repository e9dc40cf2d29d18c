"""Comparison of the runs in a bundle with new runs of the same specs."""

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
"""Maximum relative difference at which two scores are considered equal."""

Answer = Literal["agrees", "differs", "not known", "none"]
"""Result of one check. ``none`` means that the check does not apply to either run."""

_NOTHING = (None, hashlib.sha256().hexdigest())
"""Weight digests that indicate a model without weights. New records contain None, and old records contain the digest of
an empty string."""


class ReproducedCost(Struct, frozen=True, kw_only=True):
    """One cost, as measured in the bundled run (``then``) and in the new run (``now``)."""

    metric: str
    title: str
    then: float
    now: float
    unit: str


class Reproduced(Struct, frozen=True, kw_only=True):
    """Comparison of one run in a bundle with a new run of the same spec."""

    run: str
    """Id of the run in the bundle."""
    again: str
    """Id of the new run."""
    metric: str
    """Primary metric of the task."""
    then: float | None
    now: float | None
    quality: Answer
    why: str
    """Reason for the result in `quality`."""
    dataset: Answer
    initial_weights: Answer
    final_weights: Answer
    """``agrees`` if training produced bitwise identical weights. Weights usually differ on another machine or with
    other package versions."""
    costs: list[ReproducedCost] = []
    machines: tuple[str, str]
    """Descriptions of the machines on which the run in the bundle and the new run were executed."""
    differences: list[tuple[str, str, str]] = []
    """Tuples (name, then, now), one for each machine property, package version or setting that differs."""

    @property
    def agrees(self) -> bool:
        """True if the quality, the dataset and the initial weights agree."""
        return (self.quality, self.dataset) == ("agrees",) * 2 and self.initial_weights in ("agrees", "none")


def judge(then: RunRecord, now: RunRecord, siblings: Sequence[RunRecord]) -> Reproduced:
    """Compare the run `then` from a bundle with `now`, a new run of the same specification.

    `siblings` contains the successful runs in the bundle that differ from `then` only in seed or split.
    """
    assert isinstance(then.outcome, Success)
    metric = then.outcome.scores.primary
    old = then.outcome.scores.test.get(metric)
    if isinstance(now.outcome, Failure):
        new, quality, why = None, "differs", f"the new run failed: {now.outcome.kind}: {now.outcome.message}"
    else:
        assert isinstance(now.outcome, Success)
        new = now.outcome.scores.test.get(metric)
        quality, why = _quality(then.outcome, old, new, siblings)
    origins = (then.provenance, now.provenance)
    return Reproduced(
        run=then.run_id,
        again=now.run_id,
        metric=metric,
        then=old,
        now=new,
        quality=quality,  # type: ignore[arg-type]  # one of the literals above and below
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
    """Return ``agrees`` or ``differs`` for two scores, and the reason.

    The scores agree if the new score is within the recorded confidence interval over test examples. If no interval was
    recorded, the prediction interval for one more seed is used.
    """
    if old is None or new is None:
        return ("agrees", "neither run has a score") if old is new else ("differs", "only one of the runs has a score")
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
        return "not known", "the record has no interval, and the bundle contains no other seed"
    # Half-width of the prediction interval for one more run. It is wider than the confidence interval for the mean.
    half = mean.ci95 * math.sqrt(len(scores) + 1)
    evidence = f"the 95% prediction interval for another seed was {mean.value - half:.4g} to {mean.value + half:.4g}"
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
