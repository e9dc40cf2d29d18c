"""Selection and removal of runs that are no longer needed."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import RecordError
from harness.execute.checkpoints import Found
from harness.records import Failure, RunSpec, Success
from harness.records.scratch import PREFIX
from harness.records.store import StoredRun


@dataclass(frozen=True)
class Removable:
    """A run that can be removed, and the reason."""

    run: StoredRun
    reason: str


def removable(
    runs: Iterable[StoredRun],
    *,
    failed: bool = False,
    keep: int | None = None,
    selected: Callable[[RunSpec], bool] = lambda _: True,
) -> list[Removable]:
    """Return the runs that can be removed and the reasons, ordered by the runs' start times.

    A failed run can be removed if a later run with the same specification succeeded. If `failed` is true, the result
    includes all failed runs. If `keep` is given, only the newest `keep` successful runs of each specification are
    needed, and older runs can be removed. Quality-only runs are counted separately. Only runs whose specifications are
    accepted by `selected` are included. Raises ValueError if `keep` is not positive.
    """
    if keep is not None and keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    by_key: dict[str, list[StoredRun]] = defaultdict(list)
    for run in runs:
        if selected(run.record.spec):
            by_key[run.record.request_key or run.record.key].append(run)
    found = []
    for repeats in by_key.values():
        repeats.sort(key=lambda run: run.record.started_at)
        done = [run for run in repeats if not isinstance(run.record.outcome, Failure)]
        for run in repeats:
            if isinstance(run.record.outcome, Failure):
                later = [other for other in done if other.record.started_at > run.record.started_at]
                if later:
                    found.append(Removable(run, f"failed, and {later[0].record.run_id} succeeded later"))
                elif failed:
                    found.append(Removable(run, f"failed: {run.record.outcome.kind}"))
        for quality_only in (False, True):
            alike = [run for run in done if run.record.quality_only == quality_only]
            if keep is not None:
                found += [Removable(run, f"not among the newest {keep} successful repeats") for run in alike[:-keep]]
    return sorted(found, key=lambda each: (each.run.record.started_at, each.run.record.run_id))


def removable_checkpoints(
    found: Iterable[Found],
    runs: Iterable[StoredRun],
    *,
    failed: bool = False,
    selected: Callable[[RunSpec], bool] = lambda _: True,
) -> list[tuple[Path, str]]:
    """Return the directories of the checkpoints that can be removed, and the reasons.

    A checkpoint can be removed if it cannot be read, or if its run succeeded in the same process or a later one. If
    `failed` is true, the checkpoints of all unfinished runs can also be removed.
    """
    succeeded: dict[str, str] = {}
    for run in runs:
        if isinstance(run.record.outcome, Success):
            key = run.record.request_key or run.record.key
            succeeded[key] = max(run.record.started_at, succeeded.get(key, ""))
    removable = []
    for each in found:
        checkpoint = each.checkpoint
        if checkpoint is None:
            removable.append((each.directory, f"the checkpoint is not usable: {each.problem}"))
        elif not selected(checkpoint.identity.spec):
            continue
        elif checkpoint.started_at <= succeeded.get(checkpoint.identity.key, ""):
            removable.append((each.directory, "checkpoint of a run that has succeeded"))
        elif failed:
            title = f"{checkpoint.identity.spec.title}, {checkpoint.title}"
            removable.append((each.directory, f"checkpoint of an unfinished run: {title}"))
    return removable


def remove(run: StoredRun) -> None:
    """Remove a run's directory. Raises `harness.RecordError` if the directory cannot be removed.

    The directory is first hidden by renaming it, so a partially removed directory is never read as a run.
    """
    hidden = run.path.with_name(f"{PREFIX}removed-{run.path.name}")
    try:
        if run.path.is_symlink():
            run.path.unlink()
            return
        run.path.rename(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        raise RecordError(f"{Path(error.filename or run.path)}: cannot be removed: {error.strerror}") from None
