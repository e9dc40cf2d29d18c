"""Storage of records on disk, with one directory per run.

A directory contains ``record.json``, ``arrays.npz``, ``log.txt`` and, if requested, ``weights.safetensors`` and
``audit.json``. It is written under a hidden name and renamed when it is complete, so that readers never see incomplete
runs.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import RecordError, UnknownNameError, UsageError
from harness.records import SCHEMA_VERSION, RunRecord, RunSpec
from harness.records import scratch as scratches
from harness.records.files import replacing
from harness.records.plausible import problem
from harness.records.reading import MAX_JSON_BYTES, is_stored, read_stored

RECORD, ARRAYS, LOG, WEIGHTS = "record.json", "arrays.npz", "log.txt", "weights.safetensors"
AUDIT = "audit.json"
_NO_STEADY_STATE = "the run was measured before steady states were detected (schema version 1)"
_NO_RECORD = (FileNotFoundError, NotADirectoryError)
"""Exceptions that are raised when the record is read from a directory that does not contain a run."""


def _from_1(record: dict[str, Any]) -> dict[str, Any]:
    """Migrate a version 1 record, which has a fixed number of warm-up windows and a fixed duration of inference."""
    protocol = record["spec"]["protocol"]
    warmup, inference_s = protocol.pop("warmup_windows", 2), protocol.pop("inference_s", 2.0)
    protocol |= {"name": "version 1", "steady_windows": 1, "steady_s": inference_s, "budget_s": inference_s}
    protocol |= {"window_s": protocol.get("window_s", 0.5), "interval": 1.0}
    outcome = record["outcome"]
    if outcome["type"] == "success":
        speed = outcome["speed"]
        counts = {"train": speed.pop("train_windows"), "inference": speed.pop("inference_windows")}
        for part, windows in counts.items():
            left_out = warmup if part == "train" else 0
            speed[part] = windows and {
                "windows": windows,
                "seconds": 0.0,
                "warmup_windows": left_out,
                "low": None,
                "high": None,
                "ended": "budget",
            }
        speed["train"] = speed["train"] or None
        # Without a steady state, the median has no interval, so the throughputs are flagged like those of new runs.
        outcome["flags"] = [
            {"metric": f"{part}_throughput", "kind": "wide", "detail": _NO_STEADY_STATE}
            for part in counts
            if speed[part]
        ]
    return record | {"schema_version": 2}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
"""Functions that convert a record (plain JSON values) to the next schema version, keyed by the record's version."""


@dataclass(frozen=True)
class StoredRun:
    """A run in a results directory."""

    path: Path
    """Directory of the run."""
    record: RunRecord


@dataclass(frozen=True)
class Loaded:
    """The runs in a results directory, ordered by start time, and one message for each unreadable record or copy."""

    runs: list[StoredRun]
    problems: list[str]


def results_dir(option: str | os.PathLike[str] | None = None) -> Path:
    """Return `option` if given, otherwise ``HARNESS_RESULTS``; by default, ``results`` in the current directory."""
    return Path(option or os.environ.get("HARNESS_RESULTS") or "results")


class _Version(msgspec.Struct):
    schema_version: int


def read_record(path: Path) -> RunRecord:
    """Read a ``record.json`` file. Raises `harness.RecordError` if it cannot be read; see `open_stored`."""
    return decode_record(read_stored(path, MAX_JSON_BYTES), path)


def decode_record(data: bytes, path: Path) -> RunRecord:
    """Decode a JSON record with this or an older schema version. Raises `harness.RecordError`, which names `path`."""
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise RecordError(
                f"{path}: this version of harness reads schema versions up to {SCHEMA_VERSION}, but the record has "
                f"version {version}; upgrade harness"
            )
        if version == SCHEMA_VERSION:
            return _plausible(msgspec.json.decode(data, type=RunRecord))
        raw = msgspec.json.decode(data)
        for step in range(version, SCHEMA_VERSION):
            if step not in MIGRATIONS:
                raise RecordError(
                    f"{path}: unknown schema version {version}; harness reads versions 1 to {SCHEMA_VERSION}"
                )
            raw = MIGRATIONS[step](raw)
        return _plausible(msgspec.convert(raw, RunRecord))
    except (
        ValueError,
        RecursionError,
        LookupError,
        TypeError,
    ) as error:  # migrating a damaged record raises the last two
        raise RecordError(f"{path}: not a valid record: {error}") from None


def _plausible(record: RunRecord) -> RunRecord:
    """Return the record if a run can have its values. Raises ValueError otherwise."""
    reason = problem(record)
    if reason:
        raise ValueError(reason)
    return record


def write_json(path: Path, value: object) -> None:
    """Atomically write a value as indented JSON. Raises `harness.RecordError`, which names the file."""
    try:
        with replacing(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(value), indent=1))
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror}") from None


def record_schema() -> str:
    """Return the JSON Schema (draft 2020-12) for ``record.json``."""
    schema = msgspec.json.schema(RunRecord)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "harness run record", **schema}
    return msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=1).decode()


def run_id(spec: RunSpec, key: str, repeat: int) -> str:
    """Return the ID of a run, which is also the name of its directory."""
    return f"{spec.task}-{spec.model}-{spec.backend}-s{spec.seed}-{key[:8]}-{repeat}"


class Store:
    """A results directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Create the directory, and remove incomplete runs of plans that were killed.

        Raises `harness.RecordError` if it cannot be created or is not writable.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise RecordError(
                f"{self.path}: cannot store results here: {error.strerror}; choose another directory with --results DIR"
            ) from None
        scratches.sweep(self.path)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Create a hidden directory for an unfinished run, and remove it on exit unless `commit` has renamed it.

        A results directory that was removed is created again. Raises `harness.RecordError` if this is not possible, or
        if the disk has no space for a record.
        """
        with ExitStack() as stack:
            try:
                path = stack.enter_context(scratches.scratch(self.path))
            except OSError as error:
                raise RecordError(f"{self.path}: cannot be written: {error.strerror}") from None
            yield path

    def commit(self, scratch: Path, record: RunRecord) -> StoredRun:
        """Assign the repeat number and run ID, write the record, and rename the directory.

        A results directory that was removed while the run was in progress is created again. If the record cannot be
        written, the run is saved elsewhere, and the `harness.RecordError` that is raised names this place.
        """
        try:
            return self._commit(scratch, record)
        except RecordError as error:
            named = _named(record, run_id(record.spec, record.spec.key, 1), 1)
            rescued = scratches.rescue(scratch, named.run_id, msgspec.json.format(msgspec.json.encode(named), indent=1))
            if rescued is None:
                raise RecordError(f"{error}; it could not be saved elsewhere either") from None
            raise RecordError(
                f"{error}; the run was saved in {rescued} instead. Make {self.path} writable, and move the directory "
                f"{named.run_id} there"
            ) from None

    def _commit(self, scratch: Path, record: RunRecord) -> StoredRun:
        try:
            scratches.collect(scratch)
            scratch.chmod(0o755)
        except OSError as error:
            raise RecordError(f"{scratch}: cannot be written: {error.strerror}") from None
        spec, key, repeat = record.spec, record.spec.key, 1
        while True:
            final = self.path / run_id(spec, key, repeat)
            if not is_stored(final):  # a dangling link counts
                named = _named(record, final.name, repeat)
                try:
                    write_json(scratch / RECORD, named)
                except RecordError:
                    (scratch / scratches.RESERVE).unlink(missing_ok=True)  # makes space if the disk is full
                    write_json(scratch / RECORD, named)
                try:
                    (scratch / scratches.RESERVE).unlink(missing_ok=True)
                    scratch.rename(final)
                except FileExistsError:
                    pass
                except OSError as error:
                    if not is_stored(final):  # otherwise, another process took this number; try the next one
                        raise RecordError(f"{final}: cannot be written: {error.strerror}") from None
                else:
                    return StoredRun(final, named)
            repeat += 1

    def load(self) -> Loaded:
        """Return all readable runs, each once.

        Unreadable records and copies of a run are listed in `Loaded.problems` and do not raise an exception.

        Raises `harness.RecordError` if the results directory itself cannot be read.
        """
        runs: list[StoredRun] = []
        problems: list[str] = []
        first: dict[tuple[str, str], StoredRun] = {}
        with no_collection():
            for path in self._directories():
                try:
                    run = StoredRun(path, read_record(path / RECORD))
                except RecordError as error:
                    # A symbolic link whose target is missing must be reported, unlike a missing record.
                    if not isinstance(error.__cause__, _NO_RECORD) or (path / RECORD).is_symlink():
                        problems.append(str(error))
                    continue
                other = first.setdefault((run.record.run_id, run.record.started_at), run)
                if other is not run and other.record == run.record:
                    problems.append(f"{path}: a copy of the run in {other.path}, which is ignored; remove the copy")
                else:
                    runs.append(run)
            runs.sort(key=lambda run: (run.record.started_at, run.record.run_id))
        return Loaded(runs, problems)

    def find(self, text: str) -> StoredRun:
        """Return the run that `text` refers to by its ID, a unique part of its ID, or the path of its directory.

        Raises `harness.UnknownNameError` if no run matches, `harness.UsageError` if several runs match, and
        `harness.RecordError` if the record cannot be read.
        """
        if os.sep in text or is_stored(Path(text) / RECORD):
            return StoredRun(Path(text), read_record(Path(text) / RECORD))
        names = {path.name: path for path in self._directories() if _may_hold_record(path)}
        matches = [text] if text in names else [name for name in names if name.startswith(text)]
        matches = matches or [name for name in names if text in name]
        if not matches:
            raise UnknownNameError("run", text, names, hint=f"(looked in {self.path})")
        if len(matches) > 1:
            shown = ", ".join(sorted(matches)[:6])
            raise UsageError(f"{len(matches)} runs match {text!r}: {shown}{' ...' if len(matches) > 6 else ''}")
        path = names[matches[0]]
        return StoredRun(path, read_record(path / RECORD))

    def _directories(self) -> list[Path]:
        try:
            with os.scandir(self.path) as entries:
                names = [e.name for e in entries if not e.name.startswith(".") and _is_candidate(e)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RecordError(f"{self.path}: cannot be read: {error.strerror}") from None
        return [self.path / name for name in sorted(names)]


def _named(record: RunRecord, name: str, repeat: int) -> RunRecord:
    return msgspec.structs.replace(record, run_id=name, key=record.spec.key, repeat=repeat)


@contextmanager
def no_collection() -> Iterator[None]:
    """Disable garbage collection while records are read.

    Records contain no reference cycles, and collection would take about half of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _is_candidate(entry: os.DirEntry[str]) -> bool:
    """Return True if an entry may be a run. This includes links that lead to a record, so that they are reported."""
    return entry.is_dir() and (not entry.is_symlink() or Path(entry.path, RECORD).exists())


def _may_hold_record(path: Path) -> bool:
    """Return whether a directory may contain a record.

    If this cannot be determined, return True, so that reading the record raises an exception with the reason.
    """
    try:
        (path / RECORD).stat()
    except _NO_RECORD:
        return False
    except OSError:
        return True
    return True
