"""Checkpoints of planned runs: selection of the checkpoint from which each run continues, and locations of new
checkpoints.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import RecordError, UsageError
from harness.execute.resume import Decision, Here
from harness.measure.cgroup import available_cores
from harness.plugins.catalog import Catalog
from harness.records import CheckpointPlan, Interval, RunSpec
from harness.records import checkpoint as files
from harness.records.checkpoint import Checkpoint
from harness.records.header import HeaderSuccess
from harness.records.store import Store

_NAME_DIGITS = 16
"""Number of key digits used in the name of a directory."""


@dataclass(frozen=True)
class Found:
    """A directory with checkpoints."""

    directory: Path
    checkpoint: Checkpoint | None
    """Description of the last checkpoint, or None if it cannot be read."""
    problem: str = ""
    """Reason why the checkpoint cannot be read."""
    finished: bool = False
    """True if the run succeeded and the checkpoint is no longer needed."""


def find(store: Store) -> list[Found]:
    """Return the checkpoint directories in a results directory.

    The arrays of the checkpoints are not read. Raises `harness.RecordError` if the results directory cannot be read.
    """
    found = []
    for directory in files.directories(store.path):
        try:
            found.append(Found(directory, files.read_description(directory)))
        except RecordError as error:
            found.append(Found(directory, None, str(error)))
    tasks = {each.checkpoint.identity.spec.task for each in found if each.checkpoint}
    if not tasks:
        return found
    succeeded: set[tuple[str, str]] = set()
    for run in store.headers(lambda summary: summary.setting.task in tasks):
        record = run.record
        if isinstance(record.outcome, HeaderSuccess):
            succeeded.add((record.request_key, record.started_at))
    return [
        dataclasses.replace(one, finished=(one.checkpoint.identity.key, one.checkpoint.started_at) in succeeded)
        if one.checkpoint
        else one
        for one in found
    ]


def assign(
    decisions: Sequence[Decision],
    catalog: Catalog,
    store: Store,
    *,
    every: Interval | None,
    resume: bool | None,
) -> list[Decision]:
    """Add a checkpoint plan to the decision for each run to be executed, and return all decisions.

    If a usable checkpoint of a run exists, the run continues from this checkpoint, unless `resume` is False. Each
    checkpoint is used by at most one run. A checkpoint is usable if it is not damaged and if the plugins' code, the
    versions of Python and the packages, and the class of the machine have not changed.

    Raises `harness.UsageError` if `resume` is True and a run cannot continue from its checkpoint. Raises
    `harness.RecordError` if the results directory cannot be read.
    """
    found = find(store)
    available: dict[str, list[Found]] = defaultdict(list)
    for each in found:
        if each.checkpoint is not None and not each.finished:
            available[each.checkpoint.identity.key].append(each)
    planned = {decision.spec.key for decision in decisions}
    others = [each for key, group in available.items() if key not in planned for each in group]
    taken = {each.directory.name for each in found}
    broken = [each for each in found if each.checkpoint is None]
    here: Here | None = None  # created only if there is a checkpoint
    assigned = []
    for decision in decisions:
        if decision.stored is not None:
            assigned.append(decision)
            continue
        spec, key = decision.spec, decision.spec.key
        own = available[key].pop(0) if available[key] else None
        if own is None:
            damaged = next((each for each in broken if each.directory.name.startswith(_name(key))), None)
            reason = damaged.problem if damaged else ""
            if damaged is not None:
                broken.remove(damaged)
            if resume and (problem := reason or _other_settings(spec, others)):
                raise _refused(spec, problem)
            directory = damaged.directory if damaged else _new(store, key, taken)
            assigned.append(_from_beginning(decision, directory, every, reason))
            continue
        if resume is False:
            assigned.append(_from_beginning(decision, own.directory, every, "a restart was requested"))
            continue
        here = here or Here(catalog)
        if reason := _difference(here, spec, own):
            if resume:
                raise _refused(spec, reason)
            assigned.append(_from_beginning(decision, own.directory, every, reason))
            continue
        assert own.checkpoint is not None
        plan = CheckpointPlan(
            directory=str(own.directory.absolute()),
            every=every or own.checkpoint.every,
            resume=True,
            machine_cores=available_cores(),
        )
        assigned.append(dataclasses.replace(decision, checkpoints=plan, resumed=f"from {own.checkpoint.title}"))
    return assigned


def _from_beginning(decision: Decision, directory: Path, every: Interval | None, ignored: str) -> Decision:
    """Return the decision with a checkpoint plan for executing the run from the beginning. `ignored` is the reason why
    the run's checkpoint is not used.
    """
    plan = None
    if every is not None:
        plan = CheckpointPlan(directory=str(directory.absolute()), every=every, machine_cores=available_cores())
    return dataclasses.replace(decision, checkpoints=plan, ignored=ignored)


def _difference(here: Here, spec: RunSpec, found: Found) -> str:
    """Return the reason why a run cannot continue from its checkpoint, or an empty string if it can."""
    try:
        identity = files.read(found.directory).identity
    except RecordError as error:
        return str(error)
    return here.changed(spec, identity.plugins, identity.environment, identity.device) or ""


def _other_settings(spec: RunSpec, others: Iterable[Found]) -> str:
    """Return a description of a checkpoint whose run differs from `spec` only in its settings. Return an empty string
    if no checkpoint qualifies.
    """
    names = ("task", "dataset", "model", "backend", "env", "seed", "split")
    for each in others:
        assert each.checkpoint is not None
        other = each.checkpoint.identity.spec
        if all(getattr(other, name) == getattr(spec, name) for name in names):
            then, now = _settings(other), _settings(spec)
            changes = [f"{name}={then.get(name)}" for name in then if then.get(name) != now.get(name)]
            changes += [f"without {name}" for name in now if name not in then]
            return (
                f"the checkpoint at {each.checkpoint.title} was written with different settings: {', '.join(changes)}"
            )
    return ""


def _settings(spec: RunSpec) -> dict[str, Any]:
    """Return all settings of a spec except paths, keyed by name, such as ``recipe.epochs``."""
    values = msgspec.to_builtins(spec)
    values.pop("source")
    groups = {name: value for name, value in values.items() if isinstance(value, dict)}
    return {name: value for name, value in values.items() if name not in groups} | {
        f"{group}.{name}": value for group, inner in groups.items() for name, value in inner.items()
    }


def _refused(spec: RunSpec, reason: str) -> UsageError:
    return UsageError(
        f"{spec.title}: the run cannot be resumed: {reason}; restore what has changed, or pass --no-resume to start "
        "from the beginning"
    )


def _name(key: str) -> str:
    return f"{key[:_NAME_DIGITS]}-"


def _new(store: Store, key: str, taken: set[str]) -> Path:
    """Return the path of a directory that does not exist yet, and add its name to `taken`."""
    number = 1
    while (name := f"{_name(key)}{number}") in taken:
        number += 1
    taken.add(name)
    return store.path / files.FOLDER / name
