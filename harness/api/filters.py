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
    states = checked_states(_several(status))
    fields = {name: chosen for name, values in wanted.items() if (chosen := _several(values))}
    return (
        record
        for record in records
        if all(getattr(record.spec, name) in values for name, values in fields.items())
        and has_status(record, states)
        and (where is None or where(record))
    )


def checked_states(names: Iterable[str]) -> frozenset[str]:
    """Return the names of states as a set. Raises `harness.UnknownNameError` if a name is unknown."""
    known = (SUCCESS, FAILURE, TRIAL, *get_args(FailureKind))
    for name in names:
        if name not in known:
            raise UnknownNameError("status", name, known)
    return frozenset(names)


def has_status(record: RunRecord, states: frozenset[str]) -> bool:
    """Return True if the record has one of the states, or if no states are given."""
    return not states or not states.isdisjoint(_status(record))


def _several(values: Any) -> set[Any]:
    return {values} if isinstance(values, str | int) else set(values)


def _status(record: RunRecord) -> tuple[str, ...]:
    if isinstance(record.outcome, Success):
        return (SUCCESS,)
    return (FAILURE, record.outcome.kind) if isinstance(record.outcome, Failure) else (TRIAL,)
