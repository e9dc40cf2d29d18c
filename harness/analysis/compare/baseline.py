"""Records of runs in one file, to be kept, committed, and compared with later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from harness.errors import RecordError, UsageError
from harness.records import Success
from harness.records.store import StoredRun, decode_record, write_json

VERSION = 1


class _Baseline(Struct, frozen=True, kw_only=True):
    baseline_version: int
    records: list[msgspec.Raw]
    """Each as in a run's ``record.json``, with a schema version of its own."""


def save(path: Path, runs: Sequence[StoredRun]) -> int:
    """Write the records of the successful ones among `runs`, and return how many these are.

    The raw samples are not kept: quality can be compared with a baseline over seeds, not example by example.
    Raises `harness.UsageError` where none succeeded, and `harness.RecordError` where the file cannot be written.
    """
    records = [run.record for run in runs if isinstance(run.record.outcome, Success)]
    if not records:
        raise UsageError("none of these runs succeeded: there is nothing to keep")
    encoded = [msgspec.Raw(msgspec.json.encode(record)) for record in records]
    write_json(path, _Baseline(baseline_version=VERSION, records=encoded))
    return len(records)


def load(path: Path) -> list[StoredRun]:
    """Raises `harness.RecordError`, naming the file and what is wrong with it."""
    try:
        baseline = msgspec.json.decode(path.read_bytes(), type=_Baseline)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: is not a baseline (harness baseline writes them): {error}") from None
    if baseline.baseline_version > VERSION:
        raise RecordError(f"{path}: is a baseline of a newer harness; upgrade harness to read it")
    records = [decode_record(bytes(raw), path) for raw in baseline.records]
    return [StoredRun(path.parent / record.run_id, record) for record in records]
