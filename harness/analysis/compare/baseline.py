"""Baseline files. Each file contains the records of several runs and can be committed for use in later comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from harness.errors import RecordError, UsageError
from harness.records import Success
from harness.records.files import safe_name
from harness.records.reading import read_named
from harness.records.store import StoredRun, decode_record, write_json

VERSION = 1
MAX_BYTES = 256 * 2**20
"""Maximum size of a baseline file."""


class _Baseline(Struct, frozen=True, kw_only=True):
    baseline_version: int
    records: list[msgspec.Raw]
    """Contents of each run's ``record.json``, including its schema version."""


def save(path: Path, runs: Sequence[StoredRun]) -> int:
    """Write the records of the successful runs to a file and return the number of records.

    Raw samples are not saved. Quality can therefore be compared with a baseline across seeds, but not example by
    example. Raises `harness.UsageError` if there is no successful run, and `harness.RecordError` if the file cannot be
    written.
    """
    records = [run.record for run in runs if isinstance(run.record.outcome, Success)]
    if not records:
        raise UsageError("none of these runs succeeded, so there is nothing to save; choose other runs")
    encoded = [msgspec.Raw(msgspec.json.encode(record)) for record in records]
    write_json(path, _Baseline(baseline_version=VERSION, records=encoded), linked_folder=True)
    return len(records)


def load(path: Path) -> list[StoredRun]:
    """Return the runs in a baseline file. Raises `harness.RecordError` if the file cannot be read or is not valid."""
    try:
        baseline = msgspec.json.decode(read_named(path, MAX_BYTES), type=_Baseline)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"{path}: not a baseline file ({error}); pass a file written by `harness baseline`") from None
    if baseline.baseline_version > VERSION:
        raise RecordError(f"{path}: the baseline was written by a newer version of harness; upgrade harness to read it")
    records = [decode_record(bytes(raw), path) for raw in baseline.records]
    return [StoredRun(path.parent / safe_name(record.run_id), record) for record in records]
