"""Suites in which the run of one entry is the teacher for the runs of other entries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from harness.errors import UsageError
from harness.plan.expand import expand
from harness.plan.selection import PlannedTeacher, Selection
from harness.plugins.catalog import Catalog
from harness.records import Pretrained, RunSpec
from harness.records.store import StoredRun


class Stages(NamedTuple):
    """The selections of a suite, and the teachers that must be trained before the selections are executed."""

    selections: list[Selection]
    """Resolved selections."""
    teachers: dict[str, RunSpec]
    """Specifications of the teachers that the suite trains, keyed by run key."""
    untrained: tuple[RunSpec, ...]
    """Specifications of the teachers that have not been trained. The specifications of the students are incomplete
    until their teachers have been trained."""


def staged(
    selections: Sequence[Selection],
    catalog: Catalog,
    locate: Callable[[str], Pretrained],
    find: Callable[[str], StoredRun],
    trained: Callable[[RunSpec], StoredRun | None],
) -> Stages:
    """Resolve the selections of a suite (see `Selection.resolved`).

    `trained` returns the stored run for the specification of a teacher, or None if the teacher must be trained first.
    Raises `harness.UsageError` if a name occurs twice. `harness.UsageError` is also raised if the entry of a teacher
    defines several runs or has a teacher from the suite.
    """
    named: dict[str, Selection] = {}
    for selection in selections:
        if selection.name in named:
            raise _located(selection, f"the name {selection.name!r} occurs twice; use another name")
        if selection.name:
            named[selection.name] = selection
    teachers: dict[str, RunSpec] = {}
    untrained, resolved = [], []
    for selection in selections:
        entry = named.get(selection.teacher) if isinstance(selection.teacher, str) else None
        if entry is None:
            resolved.append(_resolved(selection, named, locate, find))
            continue
        if entry.teacher in named:
            raise _located(
                selection, f"the teacher {entry.name!r} itself has a teacher; train {entry.name!r} in another suite"
            )
        specs = expand(_resolved(entry, named, locate, find), catalog)
        if len(specs) != 1:
            raise _located(
                selection,
                f"the entry {entry.name!r} defines {len(specs)} runs, but a teacher must be a single run; select one "
                f"backend and one seed",
            )
        run = trained(specs[0])
        teacher = PlannedTeacher(entry.name, specs[0]) if run is None else run
        if run is None and specs[0].key not in teachers:
            untrained.append(specs[0])
        teachers[specs[0].key] = specs[0]
        resolved.append(_resolved(dataclasses.replace(selection, teacher=teacher), named, locate, find))
    return Stages(resolved, teachers, tuple(untrained))


def _resolved(
    selection: Selection,
    named: Mapping[str, Selection],
    locate: Callable[[str], Pretrained],
    find: Callable[[str], StoredRun],
) -> Selection:
    """Resolve a selection that has no teacher, or whose teacher is not specified by the name of an entry. Error
    messages contain the line number in the suite and, if the teacher is unknown, the names of the suite's entries."""
    if selection.located is None:
        return selection.resolved(locate, find)
    if isinstance(selection.teacher, str):
        try:
            selection = dataclasses.replace(selection, teacher=find(selection.teacher))
        except UsageError as error:
            entries = f"; the named entries of the suite are {', '.join(named)}" if named else ""
            raise _located(selection, f"teacher {selection.teacher!r}: {error}{entries}") from None
    try:
        return selection.resolved(locate, find)
    except UsageError as error:
        raise _located(selection, str(error)) from None


def _located(selection: Selection, message: str) -> UsageError:
    error = UsageError(message)
    return UsageError(f"{selection.located(error)}: {message}") if selection.located else error
