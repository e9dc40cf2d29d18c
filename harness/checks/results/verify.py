"""Verification of the files in a results directory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HarnessError, RecordError
from harness.plugins.environments import LOCK, MAX_LOCK_BYTES
from harness.records import Success, checkpoint
from harness.records.reading import is_stored, read_stored
from harness.records.store import ARRAYS, WEIGHTS, Store, StoredRun


def verify(results: Path) -> Iterator[tuple[StoredRun | None, list[str]]]:
    """Yield the problems found in directories without a valid record, and then each run together with the problems
    found in its files.

    Each record must be readable and valid. The key and the id of a record must match its specification. The recorded
    digests must match the raw samples, the saved weights, the lock files of named environments, and the checkpoints of
    unfinished runs. `harness audit` performs a more thorough check of a single run.

    Raises `harness.RecordError` if the directory cannot be read.
    """
    loaded = Store(results).load()
    yield None, [*loaded.problems, *_checkpoints(results)]
    for run in loaded.runs:
        yield run, [*_identity(run), *_arrays(run), *_weights(run), *lock_problems(run)]


def _checkpoints(results: Path) -> Iterator[str]:
    """Yield a problem for each damaged or unreadable training checkpoint."""
    for directory in checkpoint.directories(results):
        try:
            checkpoint.read(directory)
        except RecordError as error:
            yield f"{error}; remove it with harness results prune --yes"


def _identity(run: StoredRun) -> list[str]:
    record = run.record
    problems = []
    if record.key != record.spec.key:
        problems.append(f"{run.path}: the key in the record differs from the key of its specification")
    if record.run_id != run.path.name:
        problems.append(f"{run.path}: the record has the id {record.run_id!r}")
    return problems


def _arrays(run: StoredRun) -> list[str]:
    from harness.records.arrays import digest
    from harness.records.samples import stored

    record = run.record
    if not isinstance(record.outcome, Success):
        return []
    recorded = record.outcome.evidence.arrays_digest if record.outcome.evidence else ""
    if not is_stored(run.path / ARRAYS):
        return [f"{run.path / ARRAYS}: missing"] if recorded else []
    try:
        actual = digest(stored(run))
    except HarnessError as error:
        return [str(error)]
    return (
        [f"{run.path / ARRAYS}: the SHA-256 differs from the recorded one"] if recorded and actual != recorded else []
    )


def _weights(run: StoredRun) -> list[str]:
    from harness.execute.weights import load
    from harness.records.arrays import digest

    path, recorded = run.path / WEIGHTS, run.record.provenance.final_weights_digest
    if not is_stored(path) or recorded is None:
        return []
    try:
        actual = digest(load(path))
    except HarnessError as error:
        return [str(error)]
    return [f"{path}: the SHA-256 differs from the recorded one"] if actual != recorded else []


def lock_problems(run: StoredRun) -> list[str]:
    """Return a problem if the lock file of the named environment is missing or does not match its recorded digest."""
    path, recorded = run.path / LOCK, run.record.environment.lock_digest
    if not is_stored(path):
        return [f"{path}: missing"] if recorded else []
    try:
        actual = hashlib.sha256(read_stored(path, MAX_LOCK_BYTES)).hexdigest()
    except HarnessError as error:
        return [str(error)]
    return [f"{path}: the SHA-256 differs from the recorded one"] if actual != recorded else []
