"""Records on disk: one directory a run, holding ``record.json``, ``arrays.npz`` and ``log.txt``, and where asked for
``weights.safetensors`` and ``audit.json``.

A run is prepared in a hidden scratch directory and renamed into place once complete, so that a reader never sees half
of one, whatever happens to the writer.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import RecordError, UnknownNameError, UsageError
from harness.records import SCHEMA_VERSION, RunRecord
from harness.records.arrays import read_arrays
from harness.records.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECORD, ARRAYS, LOG, WEIGHTS = "record.json", "arrays.npz", "log.txt", "weights.safetensors"
AUDIT = "audit.json"
_SCRATCH = ".partial-"
_NO_RECORD = (FileNotFoundError, NotADirectoryError)
"""What reading the record of a directory raises that is no run at all."""


def _from_1(record: dict[str, Any]) -> dict[str, Any]:
    """Version 1 left a fixed number of windows out as warm-up and timed inference for a fixed time."""
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
    return record | {"schema_version": 2}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
"""Schema version -> function that turns a record of that version (plain JSON values) into one of the next."""


@dataclass(frozen=True)
class StoredRun:
    path: Path
    record: RunRecord


@dataclass(frozen=True)
class Loaded:
    """`runs` in the order in which they started; `problems` name each file that could not be read, and why."""

    runs: list[StoredRun]
    problems: list[str]


def results_dir(option: str | os.PathLike[str] | None = None) -> Path:
    """The option, else ``HARNESS_RESULTS``, else ``results`` in the current directory."""
    return Path(option or os.environ.get("HARNESS_RESULTS") or "results")


class _Version(msgspec.Struct):
    schema_version: int


def read_record(path: Path) -> RunRecord:
    """Read one ``record.json``. Raises `harness.RecordError`, naming the file and what is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    return decode_record(data, path)


def decode_record(data: bytes, path: Path) -> RunRecord:
    """A record from its JSON, of this or an older schema version. Raises `harness.RecordError`, naming `path`."""
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise RecordError(
                f"{path}: has schema version {version}, newer than the {SCHEMA_VERSION} that this harness reads; "
                "upgrade harness to read it"
            )
        if version == SCHEMA_VERSION:
            return msgspec.json.decode(data, type=RunRecord)
        raw = msgspec.json.decode(data)
        for step in range(version, SCHEMA_VERSION):
            if step not in MIGRATIONS:
                raise RecordError(f"{path}: has the unknown schema version {version}")
            raw = MIGRATIONS[step](raw)
        return msgspec.convert(raw, RunRecord)
    except (ValueError, RecursionError, LookupError, TypeError) as error:  # the last two from a migration of damage
        raise RecordError(f"{path}: is not a valid record: {error}") from None


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, whole or not at all. Raises `harness.RecordError` naming the file."""
    try:
        with replacing(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(value), indent=1))
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror}") from None


def record_schema() -> str:
    """The JSON Schema (draft 2020-12) of ``record.json``, as published in ``docs/reference/record.schema.json``."""
    schema = msgspec.json.schema(RunRecord)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "harness run record", **schema}
    return msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=1).decode()


class Store:
    """A directory of runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the directory and prove that it can be written. Raises `harness.RecordError`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path, prefix=_SCRATCH):
                pass
        except OSError as error:
            raise RecordError(
                f"{self.path}: cannot keep results here: {error.strerror}; choose another with --results DIR"
            ) from None

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new hidden directory for a run in the making; removed at the end unless `commit` renamed it."""
        try:
            path = Path(tempfile.mkdtemp(dir=self.path, prefix=_SCRATCH))
        except OSError as error:
            raise RecordError(f"{self.path}: cannot be written: {error.strerror}") from None
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def commit(self, scratch: Path, record: RunRecord) -> StoredRun:
        """Give the run its repeat number and name, write its record, and move it into place in one step."""
        spec, key = record.spec, record.spec.key
        stem = f"{spec.task}-{spec.model}-{spec.backend}-s{spec.seed}-{key[:8]}"
        scratch.chmod(0o755)
        repeat = 1
        while True:
            final = self.path / f"{stem}-{repeat}"
            if not final.exists():
                named = msgspec.structs.replace(record, run_id=final.name, key=key, repeat=repeat)
                write_json(scratch / RECORD, named)
                try:
                    scratch.rename(final)
                except FileExistsError:
                    pass
                except OSError as error:
                    if not final.exists():  # otherwise another process took the number: try the next
                        raise RecordError(f"{final}: cannot be written: {error.strerror}") from None
                else:
                    return StoredRun(final, named)
            repeat += 1

    def load(self) -> Loaded:
        """Every readable run. A record that cannot be read is a problem in the result, not an error."""
        runs, problems = [], []
        with no_collection():
            for path in self._directories():
                try:
                    runs.append(StoredRun(path, read_record(path / RECORD)))
                except RecordError as error:
                    if not isinstance(error.__cause__, _NO_RECORD):
                        problems.append(str(error))
            runs.sort(key=lambda run: (run.record.started_at, run.record.run_id))
        return Loaded(runs, problems)

    def find(self, text: str) -> StoredRun:
        """A run by its id, a unique part of it, or the path of its directory.

        Raises `harness.UnknownNameError` or `harness.UsageError` (several match) or `harness.RecordError`.
        """
        if os.sep in text or (Path(text) / RECORD).is_file():
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

    def arrays(self, run: StoredRun) -> dict[str, NDArray[Any]]:
        """The run's raw samples; empty for a run that failed before it had any. Raises `harness.RecordError`."""
        path = run.path / ARRAYS
        return read_arrays(path) if path.exists() else {}

    def _directories(self) -> list[Path]:
        try:
            with os.scandir(self.path) as entries:
                names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RecordError(f"{self.path}: cannot be read: {error.strerror}") from None
        return [self.path / name for name in sorted(names)]


@contextmanager
def no_collection() -> Iterator[None]:
    """The garbage collector off: it would look at the records read so far again and again, half of the time it takes to
    read ten thousand, and finds nothing, as they hold no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _may_hold_record(path: Path) -> bool:
    """False for what is no run at all; a record that cannot even be looked at is told as a problem when it is read."""
    try:
        (path / RECORD).stat()
    except _NO_RECORD:
        return False
    except OSError:
        return True
    return True
