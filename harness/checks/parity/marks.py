"""What the parity checks say of the rows of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.checks.parity.verdict import ParityVerdict, side_of_record, subject
from harness.records import ParityMark, RunRecord, Success


@dataclass(frozen=True)
class Mark:
    """``same`` with the largest relative error of the logits, ``differs`` or ``unchecked``."""

    state: str
    error: float | None = None

    def __str__(self) -> str:
        return f"{self.state} ({self.error:.0e})" if self.error is not None and self.state == "same" else self.state


UNCHECKED = Mark("unchecked")


def marks(rivals: Sequence[RunRecord], verdicts: Iterable[ParityVerdict]) -> list[Mark]:
    """A mark for each of these runs, one a backend, which share everything else.

    The first one is what the others are compared with: each other's mark is that of its check against the first. The
    first itself, and a run without rivals, bears what its checks, of whichever backend, say together.
    """
    verdicts = list(verdicts)
    base = rivals[0]
    against_base = [_of_pair(base, other, verdicts) for other in rivals[1:]]
    return [_together(against_base) if against_base else _together(_alone(base, verdicts)), *against_base]


def _of_pair(base: RunRecord, other: RunRecord, verdicts: list[ParityVerdict]) -> Mark:
    """A verdict in the results directory counts before those that the records remember."""
    if not isinstance(other.outcome, Success) or not isinstance(base.outcome, Success):
        return UNCHECKED
    stored = [v for v in _about(other, verdicts) if set(v.sides) == {side_of_record(base), side_of_record(other)}]
    if stored:
        return _together([Mark("same" if v.passed else "differs", v.error) for v in stored])
    keys = {mark.verdict for mark in base.parity}
    return _together(_remembered(mark for mark in other.parity if mark.verdict in keys))


def _alone(record: RunRecord, verdicts: list[ParityVerdict]) -> list[Mark]:
    if not isinstance(record.outcome, Success):
        return []
    stored = [v for v in _about(record, verdicts) if side_of_record(record) in v.sides]
    return [Mark("same" if v.passed else "differs", v.error) for v in stored] or _remembered(record.parity)


def _about(record: RunRecord, verdicts: list[ParityVerdict]) -> list[ParityVerdict]:
    if record.provenance.data is None:
        return []
    about = subject(record.spec, record.provenance.data)
    return [verdict for verdict in verdicts if verdict.subject == about]


def _remembered(found: Iterable[ParityMark]) -> list[Mark]:
    return [Mark("same" if mark.passed else "differs", mark.error) for mark in found]


def _together(found: list[Mark]) -> Mark:
    """``differs`` if one does; ``unchecked`` if one is; else ``same`` with the largest error."""
    for state in ("differs", "unchecked"):
        if any(mark.state == state for mark in found):
            return Mark(state)
    return Mark("same", max(mark.error or 0.0 for mark in found)) if found else UNCHECKED
