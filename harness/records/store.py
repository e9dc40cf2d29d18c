"""Storage of records on disk, with one directory per run.

A directory contains ``record.json``, ``arrays.npz``, ``log.txt`` and, if requested, ``weights.safetensors``,
``preprocessing.json`` and ``audit.json``. New directories are written under a hidden name and renamed when they are
complete, so that readers never see incomplete runs.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from harness.errors import RecordError, UnknownNameError, UsageError
from harness.records import PROTOCOLS, SCHEMA_VERSION, RunRecord, RunSpec, Success
from harness.records import scratch as scratches
from harness.records.files import replacing
from harness.records.header import DECODER as HEADER
from harness.records.header import StoredHeader
from harness.records.index import Index, Summary, summary_of
from harness.records.plausible import problem
from harness.records.reading import MAX_JSON_BYTES, is_stored, read_stored, read_stored_state

RECORD, ARRAYS, LOG, WEIGHTS = "record.json", "arrays.npz", "log.txt", "weights.safetensors"
PREPROCESSING = "preprocessing.json"
EXPORT = "export.json"
"""File name of the description in a folder written by ``harness export``."""
AUDIT = "audit.json"
_NO_STEADY_STATE = "the run was recorded before steady-state detection was introduced (schema version 1)"
_NO_RECORD = (FileNotFoundError, NotADirectoryError)
"""Exceptions raised when reading a record from a directory that does not contain a run."""


def _from_1(record: dict[str, Any]) -> dict[str, Any]:
    """Migrate a record with schema version 1, which has a fixed number of warm-up windows."""
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
        # Flag the throughputs, because the median has no interval if no steady state was detected.
        outcome["flags"] = [
            {"metric": f"{part}_throughput", "kind": "wide", "detail": _NO_STEADY_STATE}
            for part in counts
            if speed[part]
        ]
    return record | {"schema_version": 2}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
"""Functions that convert a record (plain JSON values) to the next schema version. Each key is the schema version of a
record before the conversion."""


@dataclass(frozen=True)
class StoredRun:
    """A run in a results directory."""

    path: Path
    """Directory of the run."""
    record: RunRecord


@dataclass(frozen=True)
class Loaded:
    """The selected runs in a results directory, ordered by start time."""

    runs: list[StoredRun]
    problems: list[str]
    """One message for each unreadable record and for each additional copy of a run in the directory. Messages about
    runs that would not be selected are included."""
    summaries: list[Summary] = field(default_factory=list, compare=False)
    """Summaries of all readable runs, including those that are not selected, ordered by start time."""


MAX_LISTED = 10
"""Maximum number of runs listed in the message about an ambiguous id."""


def results_dir(option: str | os.PathLike[str] | None = None) -> Path:
    """Return `option`, ``HARNESS_RESULTS`` or ``results`` in the current directory, in this order of precedence."""
    return Path(option or os.environ.get("HARNESS_RESULTS") or "results")


class _Version(msgspec.Struct):
    schema_version: int


_RECORD = msgspec.json.Decoder(RunRecord)
_CURRENT = re.compile(rb'\s*\{\s*"schema_version"\s*:\s*%d\s*,' % SCHEMA_VERSION)
"""Beginning of a record with the current schema version, as written by `write_json`."""


def read_record(path: Path) -> RunRecord:
    """Read a ``record.json`` file. Raises `harness.RecordError` if the record cannot be read; see `open_stored`."""
    return decode_record(read_stored(path, MAX_JSON_BYTES), path)


def decode_record(data: bytes, path: Path) -> RunRecord:
    """Decode a JSON record with the current or an older schema version.

    Raises a `harness.RecordError` that names `path` if the record is not valid.
    """
    if _CURRENT.match(data):  # decode only once, and decode again with a message if this fails
        with contextlib.suppress(ValueError, RecursionError):
            record = _RECORD.decode(data)
            if record.schema_version == SCHEMA_VERSION and not problem(record):
                return record
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
    ) as error:  # Migrating a damaged record can raise LookupError or TypeError.
        raise RecordError(f"{path}: not a valid record: {error}") from None


def _plausible(record: RunRecord) -> RunRecord:
    """Return the record unchanged. Raises ValueError if the record contains values that a run cannot produce."""
    reason = problem(record)
    if reason:
        raise ValueError(reason)
    return record


def write_json(path: Path, value: object, *, linked_folder: bool = False) -> None:
    """Atomically write a value as indented JSON; see `harness.records.files.replacing`.

    Raises a `harness.RecordError` that names the file if the file cannot be written.
    """
    try:
        with replacing(path, linked_folder=linked_folder) as file:
            file.write(indented_json(value))
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror}") from None


def indented_json(value: object) -> bytes:
    """Return a value as indented JSON, as written by `write_json`."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1)


def record_schema() -> str:
    """Return the JSON Schema (draft 2020-12) for ``record.json``."""
    schema = msgspec.json.schema(RunRecord)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "harness run record", **schema}
    return msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=1).decode()


def run_id(spec: RunSpec, key: str, repeat: int) -> str:
    """Return the id of a run, which is also the name of its directory."""
    return f"{spec.stem}{_numbered(spec, key, repeat)}"


def earlier_run_id(spec: RunSpec, key: str, repeat: int) -> str:
    """Return the id that a run had before run ids contained the name of the dataset."""
    return f"{spec.stem_without_dataset}{_numbered(spec, key, repeat)}"


def renumbered(record: RunRecord, repeat: int) -> RunRecord:
    """Return a record with a different repeat number.

    If the run's id does not contain the name of the dataset, neither does the new id.
    """
    key = record.spec.key
    is_earlier = record.run_id == earlier_run_id(record.spec, record.key, record.repeat)
    name = (earlier_run_id if is_earlier else run_id)(record.spec, key, repeat)
    return msgspec.structs.replace(record, run_id=name, key=key, repeat=repeat)


def _numbered(spec: RunSpec, key: str, repeat: int) -> str:
    """Return the end of a run's id, which identifies the specification and the repeat."""
    return f"-s{spec.seed}-{key[:8]}-{repeat}"


@dataclass(frozen=True)
class _Validated:
    """A run whose record was completely decoded and validated."""

    whole: RunRecord
    run: StoredRun | StoredHeader


class _Reader(Protocol):
    def __call__(self, path: Path, data: bytes, *, validated: bool) -> _Validated | StoredHeader:
        """Read the record in the directory `path`. `validated` is True if the index has a valid entry for the record.

        Raises `harness.RecordError` if the record is not valid.
        """


def _whole(path: Path, data: bytes, *, validated: bool) -> _Validated:
    run = StoredRun(path, decode_record(data, path / RECORD))
    return _Validated(run.record, run)


def _header(path: Path, data: bytes, *, validated: bool) -> _Validated | StoredHeader:
    if validated:
        with contextlib.suppress(msgspec.DecodeError):  # a record with an older schema version
            return StoredHeader(path, HEADER.decode(data))
    record = decode_record(data, path / RECORD)
    return _Validated(record, StoredHeader(path, HEADER.decode(msgspec.json.encode(record))))


class Store:
    """A results directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Create the results directory, and remove the incomplete runs of commands that were killed.

        Raises `harness.RecordError` if the directory cannot be created or is not writable.
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
        """Create a hidden directory for an unfinished run.

        On exit, the directory is removed unless `commit` has renamed it.

        If the results directory was removed, it is created again. Raises `harness.RecordError` if the directory cannot
        be created, or if there is not enough disk space for a record.
        """
        with ExitStack() as stack:
            try:
                path = stack.enter_context(scratches.scratch(self.path))
            except OSError as error:
                raise RecordError(f"{self.path}: cannot be written: {error.strerror}") from None
            yield path

    def commit(self, scratch: Path, record: RunRecord) -> StoredRun:
        """Assign the repeat number and run ID, write the record, and rename the directory.

        If the results directory was removed while the run was in progress, it is created again. If the record cannot be
        written, the run is saved in another directory. In this case, a `harness.RecordError` that names this directory
        is raised.
        """
        try:
            return self._commit(scratch, record)
        except RecordError as error:
            named = _named(record, 1)
            rescued = scratches.rescue(scratch, named.run_id, msgspec.json.format(msgspec.json.encode(named), indent=1))
            if rescued is None:
                raise RecordError(f"{error}; the run could not be saved elsewhere either") from None
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
            if not self._has_repeat(_numbered(spec, key, repeat)):
                named = _named(record, repeat)
                try:
                    write_json(scratch / RECORD, named)
                except RecordError:
                    (scratch / scratches.RESERVE).unlink(missing_ok=True)  # Make space if the disk is full.
                    write_json(scratch / RECORD, named)
                try:
                    (scratch / scratches.RESERVE).unlink(missing_ok=True)
                    scratch.rename(final)
                except FileExistsError:
                    pass
                except OSError as error:
                    if not is_stored(final):  # If another process has taken this repeat number, try the next number.
                        raise RecordError(f"{final}: cannot be written: {error.strerror}") from None
                else:
                    return StoredRun(final, named)
            repeat += 1

    def _has_repeat(self, ending: str) -> bool:
        """Return True if the name of a file or directory ends with `ending`.

        The names of runs with equal specifications may begin differently: earlier ids do not contain the name of the
        dataset, and the user's data may have been renamed.
        """
        with os.scandir(self.path) as entries:
            return any(entry.name.endswith(ending) for entry in entries if not entry.name.startswith("."))

    def load(self, wanted: Callable[[Summary], bool] | None = None) -> Loaded:
        """Return the readable runs for which `wanted` returns True, or all readable runs if `wanted` is None.

        Unreadable records and additional copies of a run are listed in `Loaded.problems`, and do not raise an
        exception. A record is not read if the index has a valid entry for it (see `harness.records.index`) and `wanted`
        returns False for this entry.

        Raises `harness.RecordError` if the results directory itself cannot be read.
        """
        with no_collection():
            runs, problems, summaries = self._load(wanted, _whole)
        return Loaded([run for run in runs if isinstance(run, StoredRun)], problems, summaries)

    def headers(self, wanted: Callable[[Summary], bool]) -> list[StoredHeader]:
        """Return the headers of all readable runs for which `wanted` returns True, ordered by start time.

        All headers come from valid records. Records with a valid index entry are not validated again, because the index
        contains only valid records. Raises `harness.RecordError` if the results directory itself cannot be read.
        """
        with no_collection():
            runs, _, _ = self._load(wanted, _header)
        return [run for run in runs if isinstance(run, StoredHeader)]

    def _load(
        self, wanted: Callable[[Summary], bool] | None, read: _Reader
    ) -> tuple[list[StoredRun | StoredHeader], list[str], list[Summary]]:
        directories = self._directories()
        index = Index(None if wanted is None else self.path, len(directories))
        runs: dict[str, StoredRun | StoredHeader] = {}
        first: dict[tuple[str, str], Summary] = {}
        summaries: list[Summary] = []
        problems: list[str] = []
        parent = os.fspath(self.path)
        for name, is_link in directories.items():
            summary = None if is_link else index.known(name, f"{parent}/{name}/{RECORD}")
            if summary is None or wanted is None or wanted(summary):
                path = self.path / name
                try:
                    data, state = read_stored_state(path / RECORD, MAX_JSON_BYTES)
                    found = read(path, data, validated=summary is not None and index.is_known(name, state))
                except RecordError as error:
                    # A missing record is ignored, but a symbolic link whose target is missing is reported.
                    if not isinstance(error.__cause__, _NO_RECORD) or (path / RECORD).is_symlink():
                        problems.append(str(error))
                    continue
                if isinstance(found, _Validated):
                    summary = summary_of(name, found.whole)
                    index.add(summary, state)
                assert summary is not None
                if wanted is None or wanted(summary):
                    runs[name] = found.run if isinstance(found, _Validated) else found
            other = first.setdefault((summary.run_id, summary.started_at), summary)
            if other is not summary and self._are_copies(other.name, name, runs):
                problems.append(
                    f"{self.path / name}: this copy of the run in {self.path / other.name} is ignored; remove it"
                )
                runs.pop(name, None)
            else:
                summaries.append(summary)
        index.save()
        summaries.sort(key=lambda one: (one.started_at, one.run_id))
        return [runs[one.name] for one in summaries if one.name in runs], problems, summaries

    def _are_copies(self, one: str, other: str, loaded: Mapping[str, StoredRun | StoredHeader]) -> bool:
        """Return True if two directories contain equal records, and False if either has become unreadable."""

        def record(name: str) -> RunRecord:
            run = loaded.get(name)
            return run.record if isinstance(run, StoredRun) else read_record(self.path / name / RECORD)

        try:
            return record(one) == record(other)
        except RecordError:
            return False

    def find_trained(self, text: str) -> StoredRun:
        """Return the run identified by `text`, as `find` does, for commands that need a trained model.

        If several runs match, the runs without saved weights are ignored, so that runs with
        ``--weights`` do not hide the run that trained the model.
        """
        return self.find(text, trained=True)

    def find(self, text: str, *, trained: bool = False) -> StoredRun:
        """Return the run identified by `text`: its id, a unique part of its id, or the path of its directory.

        If several runs match and `trained` is True, runs without saved weights are ignored, provided that other runs
        remain.

        Raises `harness.UnknownNameError` if no run matches, `harness.UsageError` if several runs match, and
        `harness.RecordError` if the record cannot be read.
        """
        if is_stored(Path(text) / EXPORT) and not is_stored(Path(text) / RECORD):
            raise UsageError(f"{text} is an exported model, not a run; pass the run from which it was exported")
        if os.sep in text or is_stored(Path(text) / RECORD):
            return StoredRun(Path(text), read_record(Path(text) / RECORD))
        names = self._directories()
        matches = self._with_records(name for name in names if name == text)
        matches = matches or self._with_records(name for name in names if name.startswith(text))
        matches = matches or self._with_records(name for name in names if text in name)
        if not matches:
            raise UnknownNameError("run", text, self._with_records(names), hint=f"(looked in {self.path})")
        if trained and len(matches) > 1:
            matches = [name for name in matches if self._has_weights(name)] or matches
        if len(matches) > 1:
            listed = sorted(matches)[:MAX_LISTED]
            more = f"\n  ... and {len(matches) - MAX_LISTED} more" if len(matches) > MAX_LISTED else ""
            runs = "".join(f"\n  {line}" for line in _distinguished({name: self.path / name for name in listed}))
            raise UsageError(f"{len(matches)} runs match {text!r}; pass a longer part of one of these ids:{runs}{more}")
        path = self.path / matches[0]
        return StoredRun(path, read_record(path / RECORD))

    def _with_records(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if _may_hold_record(self.path / name)]

    def _has_weights(self, name: str) -> bool:
        """Return True if a run succeeded, did not use the weights of another run, and saved its weights."""
        try:
            record = read_record(self.path / name / RECORD)
        except RecordError:
            return False
        trained = isinstance(record.outcome, Success) and record.spec.weights is None
        return trained and is_stored(self.path / name / WEIGHTS)

    def _directories(self) -> dict[str, bool]:
        """Return the names of the directories that may contain a run, mapped to True for symbolic links."""
        try:
            with os.scandir(self.path) as entries:
                found = {e.name: e.is_symlink() for e in entries if not e.name.startswith(".") and _is_candidate(e)}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RecordError(f"{self.path}: cannot be read: {error.strerror}") from None
        return dict(sorted(found.items()))


def _distinguished(paths: Mapping[str, Path]) -> list[str]:
    """Return a line for each run, containing the run's id and the settings that differ between the runs."""
    found: dict[str, dict[str, str]] = {}
    for name, path in paths.items():
        try:
            record = read_record(path / RECORD)
        except RecordError:
            found[name] = {}
            continue
        settings = msgspec.to_builtins(record.spec)
        protocol = record.spec.protocol
        if protocol.name in PROTOCOLS and PROTOCOLS[protocol.name].protocol == protocol:
            settings["protocol"] = protocol.name
        values = {**settings, "repeat": record.repeat, "started": record.started_at}
        found[name] = {key: str(value) for key, value in _flat(values)}
    keys = dict.fromkeys(key for values in found.values() for key in values)
    differing = [key for key in keys if len({values.get(key, "none") for values in found.values() if values}) > 1]
    parts = [key.rpartition(".") for key in differing]
    named = {group for group, _, name in parts if group and name not in _IMPLIED}
    differing = [f"{group}{dot}{name}" for group, dot, name in parts if group not in named or name not in _IMPLIED]
    return [
        f"{name}: " + (", ".join(f"{key}={values.get(key, 'none')}" for key in differing) if values else "not readable")
        for name, values in found.items()
    ]


def _named(record: RunRecord, repeat: int) -> RunRecord:
    key = record.spec.key
    return msgspec.structs.replace(record, run_id=run_id(record.spec, key, repeat), key=key, repeat=repeat)


@contextmanager
def no_collection() -> Iterator[None]:
    """Disable garbage collection while records are read.

    Records contain no reference cycles, so garbage collection would free nothing and take about half of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _is_candidate(entry: os.DirEntry[str]) -> bool:
    """Return True if a directory entry may be a run.

    Links to records are also included, so that they can be reported.
    """
    return entry.is_dir() and (not entry.is_symlink() or Path(entry.path, RECORD).exists())


def _may_hold_record(path: Path) -> bool:
    """Return whether a directory may contain a record.

    If the directory cannot be read, return True. Reading the record then raises an exception with the reason.
    """
    try:
        (path / RECORD).stat()
    except _NO_RECORD:
        return False
    except OSError:
        return True
    return True


_IMPLIED = ("backend", "dataset_digest", "digest", "path")
"""Fields of a nested setting, such as ``weights`` or ``pretrained``, that follow from its other fields. They are listed
only if the other fields are equal."""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the names and values of all settings, including nested ones, except for values that are None."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key, value
