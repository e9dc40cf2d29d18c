"""Checks against the other runs in the results directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.checks.audit.check import Check, NotCheckedError, Result, Subject
from harness.records import RunRecord, RunSpec, Success
from harness.records.index import Setting
from harness.records.store import StoredRun


def _seeds(subject: Subject) -> Result:
    """Check that different seeds produce different weights."""
    if not subject.outcome.model.parameters:
        raise NotCheckedError("the model has no canonical weights")
    others = [other for other in _comparable(subject) if other.record.spec.seed != subject.spec.seed]
    return _compared(subject, others, _seed_problem, "the results directory has no run with another seed")


def _repeats(subject: Subject) -> Result:
    """Check that repeats start from the same weights and data and are not copies of one another."""
    others = [other for other in _comparable(subject) if other.record.spec.seed == subject.spec.seed]
    return _compared(subject, others, _repeat_problem, "the results directory has no repeat of this run")


def is_comparable(setting: Setting, spec: RunSpec) -> bool:
    """Return True if runs with this setting may be compared with a run of `spec`.

    The dataset is not compared, because the name of user-supplied data is not part of a run's identity.
    """
    fields = ("task", "model", "backend", "device", "precision")
    return all(getattr(setting, field) == getattr(spec, field) for field in fields)


def _comparable(subject: Subject) -> list[StoredRun]:
    return [
        other
        for other in subject.others
        if other.record.run_id != subject.record.run_id
        and isinstance(other.record.outcome, Success)
        and other.record.spec.group_key == subject.spec.group_key
        and other.record.spec.split == subject.spec.split
    ]


def _compared(
    subject: Subject, others: Sequence[StoredRun], problem: Callable[[RunRecord, RunRecord], str], none: str
) -> Result:
    """Compare a run with each of `others`. Raises `NotCheckedError` with the message `none` if `others` is empty."""
    if not others:
        raise NotCheckedError(none)
    problems = [f"{text} {other.record.run_id}" for other in others if (text := problem(subject.record, other.record))]
    return Result(problems, f"compared with {len(others)} runs")


def _seed_problem(record: RunRecord, other: RunRecord) -> str:
    """Return a phrase that names the weights shared by two runs with different seeds, or an empty string."""
    mine, theirs = record.provenance, other.provenance
    if mine.initial_weights_digest == theirs.initial_weights_digest and record.spec.pretrained is None:
        return "the initial weights are the same as in"
    return "the trained weights are the same as in" if mine.final_weights_digest == theirs.final_weights_digest else ""


def _samples_digest(record: RunRecord) -> str:
    evidence = record.outcome.evidence if isinstance(record.outcome, Success) else None
    return evidence.arrays_digest if evidence else ""


def _repeat_problem(record: RunRecord, other: RunRecord) -> str:
    """Return a phrase that describes how the initial states of two repeats differ, or states that the repeats are
    copies.

    The phrase is empty if there is no problem.
    """
    mine, theirs = record.provenance, other.provenance
    if mine.initial_weights_digest != theirs.initial_weights_digest:
        return "the initial weights differ from those of"
    samples = {_samples_digest(record), _samples_digest(other)}
    if len(samples) == 1 and "" not in samples:  # two runs never take exactly the same time
        return "the raw samples are a copy of those of"
    return "the data differ from those of" if mine.dataset_digest != theirs.dataset_digest else ""


CHECKS = (
    Check("runs with different seeds have different weights", (), _seeds),
    Check("repeats used the same initial weights and data, and are not copies", (), _repeats),
)
