"""Selection of records by the fields of their specifications and by their outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

from harness.errors import UnknownNameError
from harness.records import Failure, FailureKind, RunRecord, Success

SUCCESS, FAILURE, TRIAL = "success", "failure", "trial"


def matching(
    records: Iterable[RunRecord],
    wanted: Mapping[str, Any],
    status: str | Iterable[str],
    where: Callable[[RunRecord], bool] | None,
) -> Iterator[RunRecord]:
    """Return the records that satisfy all conditions; see `harness.Results.filter`."""
    states = _several(status)
    for state in states:
        known = (SUCCESS, FAILURE, TRIAL, *get_args(FailureKind))
        if state not in known:
            raise UnknownNameError("status", state, known)
    fields = {name: chosen for name, values in wanted.items() if (chosen := _several(values))}
    return (
        record
        for record in records
        if all(getattr(record.spec, name) in values for name, values in fields.items())
        and (not states or not states.isdisjoint(_status(record)))
        and (where is None or where(record))
    )


def _several(values: Any) -> set[Any]:
    return {values} if isinstance(values, str | int) else set(values)


def _status(record: RunRecord) -> tuple[str, ...]:
    if isinstance(record.outcome, Success):
        return (SUCCESS,)
    return (FAILURE, record.outcome.kind) if isinstance(record.outcome, Failure) else (TRIAL,)
