"""Results of parity checks for the rows of a comparison table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.checks.parity.verdict import ParityVerdict, side_of_record, subject
from harness.records import ParityMark, RunRecord, Success


@dataclass(frozen=True)
class Mark:
    """Parity of a row: ``same``, ``partly checked``, ``differs`` or ``unchecked``."""

    state: str
    error: float | None = None
    """Largest relative error in the logits, or None if unknown."""

    def __str__(self) -> str:
        return f"{self.state} ({self.error:.0e})" if self.error is not None and self.state == "same" else self.state


UNCHECKED = Mark("unchecked")


def marks(rivals: Sequence[RunRecord], verdicts: Iterable[ParityVerdict]) -> list[Mark]:
    """Return the parity results of each run.

    The runs in `rivals` differ only in their backend, environment and weights. Runs that failed or executed an exported
    model are not covered by parity checks, and are marked as unchecked. The base is the first run that is covered by
    parity checks. If the backend, device, packages or plugins of a run differ from those of the base, the run is marked
    with the result of its comparison with the base. The base and the remaining runs are marked with the combined result
    of all comparisons that were performed. If there is no run to compare with the base, each run is marked with the
    combined result of the checks of this run.
    """
    verdicts = list(verdicts)
    covered = [record for record in rivals if _is_covered(record)]
    others = [record for record in covered[1:] if side_of_record(record) != side_of_record(covered[0])]
    known = {id(other): _of_pair(covered[0], other, verdicts) for other in others}
    compared = [mark for mark in known.values() if mark != UNCHECKED]
    for record in covered:
        if id(record) not in known:
            known[id(record)] = _combined(compared if others else _of_run(record, verdicts))
    return [known.get(id(record), UNCHECKED) for record in rivals]


def _is_covered(record: RunRecord) -> bool:
    """Return True if a parity check can cover the run's computation, that is, if the run succeeded and did not execute
    an exported model."""
    weights = record.spec.weights
    return isinstance(record.outcome, Success) and (weights is None or weights.exported is None)


def _of_pair(base: RunRecord, other: RunRecord, verdicts: list[ParityVerdict]) -> Mark:
    """Return the parity of two runs. Verdicts in the results directory take precedence over the runs' records."""
    stored = [v for v in _about(other, verdicts) if set(v.sides) == {side_of_record(base), side_of_record(other)}]
    if stored:
        return _limited(_combined([Mark(v.state, v.error) for v in stored]), base, other)
    keys = {mark.verdict for mark in base.parity}
    return _limited(_combined(_recorded(mark for mark in other.parity if mark.verdict in keys)), base, other)


def _of_run(record: RunRecord, verdicts: list[ParityVerdict]) -> list[Mark]:
    """Return the results of a run's stored verdicts. If there are no stored verdicts, return the results in its
    record."""
    stored = [v for v in _about(record, verdicts) if side_of_record(record) in v.sides]
    return [_limited(mark, record) for mark in [Mark(v.state, v.error) for v in stored] or _recorded(record.parity)]


def _about(record: RunRecord, verdicts: list[ParityVerdict]) -> list[ParityVerdict]:
    """Return all verdicts about the computation of this run, for any pair of backends."""
    if record.provenance.data is None:
        return []
    about = subject(record.spec, record.provenance.data)
    return [verdict for verdict in verdicts if verdict.subject == about]


def _recorded(parity_marks: Iterable[ParityMark]) -> list[Mark]:
    return [Mark(mark.state, mark.error) for mark in parity_marks]


def _limited(mark: Mark, *records: RunRecord) -> Mark:
    """Return the result of a check, or ``partly checked`` if the check does not cover runs on several devices.

    A check uses a single device. In a run on several devices, batch normalization is applied separately to the part of
    the batch on each device, so the check covers only part of the computation.
    """
    local = any(record.provenance.notes.get("batch_norm") == "local" for record in records)
    return Mark("partly checked") if local and mark.state == "same" else mark


def _combined(parts: list[Mark]) -> Mark:
    """Combine the results of several parity checks.

    The combined state is the worst state among the results. From worst to best, the states are ``differs``,
    ``unchecked``, ``partly checked`` and ``same``. If the combined state is ``same``, the combined error is the largest
    error.
    """
    for state in ("differs", "unchecked", "partly checked"):
        if any(mark.state == state for mark in parts):
            return Mark(state)
    return Mark("same", max(mark.error or 0.0 for mark in parts)) if parts else UNCHECKED
