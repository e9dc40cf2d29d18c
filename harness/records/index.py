"""The index of a results directory, which allows commands to select runs without reading all records.

For each validated record, the index contains the identity of the record's file and the values used to select runs. The
index is only a cache, and can be deleted. The values in a report never come from the index. The index is a single file,
which is replaced atomically. The index is in the user's cache directory, to which other users cannot write. An index
that is missing, damaged or written by another version of this package is ignored and replaced. See
``docs/explanation/reliability.md``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from harness.errors import RecordError
from harness.records.files import make_directory, replacing
from harness.records.locations import cache_dir
from harness.records.reading import read_stored
from harness.records.record import RunRecord

SMALLEST = 1000
"""Minimum number of directories in a results directory for which an index is used. Reading fewer records takes less
than 0.2 s."""
SETTLED_NS = 2 * 10**9
"""Minimum age in nanoseconds at which a file is added to the index. If a file changes twice within the resolution of
its timestamps, the second change may not be detected."""
MAX_NAMES = 1000
"""Maximum total size of the values in one row of the index, in bytes. Records with longer values are not indexed."""
KEPT_DAYS = 30
"""Number of days after which an unused index is removed."""
_DIGEST_BYTES = 32


class Setting(Struct, frozen=True, array_like=True):
    """The fields of a run's specification that commands use to select runs."""

    task: str
    dataset: str
    model: str
    backend: str
    device: str
    precision: str


class Summary(NamedTuple):
    """The values used to select and order a run."""

    name: str
    """Name of the run's directory."""
    run_id: str
    started_at: str
    setting: Setting


Identity = tuple[int, int, int, int]
"""Size, modification time (mtime), inode change time (ctime) and inode number of a file. A user can set the mtime, but
not the ctime."""


class _Row(Struct, frozen=True, array_like=True):
    name: str
    identity: Identity
    run_id: str
    started_at: str
    setting: int
    """Position in `_Content.settings`."""


class _Content(Struct, frozen=True, array_like=True):
    settings: list[Setting]
    rows: list[_Row]


def summary_of(name: str, record: RunRecord) -> Summary:
    """Return the summary of a record in the directory `name`."""
    setting = Setting(*(getattr(record.spec, field) for field in Setting.__struct_fields__))
    return Summary(name, record.run_id, record.started_at, setting)


def identity_of(state: os.stat_result) -> Identity:
    """Return the identity of a file. Any change to the file changes its identity."""
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


class Index:
    """The index of a results directory.

    `known` returns an entry, `add` collects entries, and `save` writes them. If the index cannot be used,
    the methods do not raise an exception, and `known` returns None.
    """

    def __init__(self, results: Path | None, count: int) -> None:
        """Read the index of the directory `results`, which contains `count` directories.

        If `results` is None, no index is used.
        """
        self._opened_ns = time.time_ns()
        self._rows: dict[str, tuple[Identity, Summary]] = {}
        self._added: dict[str, tuple[Identity, Summary]] = {}
        self._path = _location(results) if results is not None and count >= SMALLEST else None
        if self._path is not None:
            self._rows = _read(self._path, (count + SMALLEST) * (MAX_NAMES + 200))

    def known(self, name: str, path: str) -> Summary | None:
        """Return the summary of the record in the directory `name`, or None if no entry is valid for `path`."""
        found = self._rows.get(name)
        if found is None:
            return None
        try:
            # With a string, `os.lstat` takes half as long as with a Path.
            if identity_of(os.lstat(path)) != found[0]:
                return None
        except (OSError, ValueError):
            return None
        self._added[name] = found
        return found[1]

    def is_known(self, name: str, state: os.stat_result) -> bool:
        """Return whether the entry for the directory `name` is valid for a record file with the status `state`."""
        found = self._rows.get(name)
        return found is not None and identity_of(state) == found[0]

    def add(self, summary: Summary, state: os.stat_result) -> None:
        """Add the summary of a valid record. `state` is the file's status before the record was read."""
        if state.st_ctime_ns < self._opened_ns - SETTLED_NS and _is_short(summary):
            self._added[summary.name] = (identity_of(state), summary)

    def save(self) -> None:
        """Write the index to disk if its content has changed. OSError is ignored."""
        if self._path is None or self._added == self._rows:
            return
        with contextlib.suppress(OSError):
            self._path.parent.parent.mkdir(parents=True, exist_ok=True)
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            make_directory(self._path.parent)  # Raise OSError if the directory is a link.
            _sweep(self._path.parent)
            with replacing(self._path) as file:
                payload = _encode(self._added)
                file.write(_digest(payload))
                file.write(payload)


def _location(results: Path) -> Path | None:
    """Return the path of a results directory's index file, or None if there is no cache directory."""
    try:
        name = hashlib.sha256(os.fsencode(os.path.realpath(results))).hexdigest()[:32]
        return cache_dir() / f"indexes-{os.geteuid()}" / name
    except (OSError, RuntimeError, ValueError):
        return None


def _read(path: Path, limit: int) -> dict[str, tuple[Identity, Summary]]:
    """Return the rows of an index, keyed by name, or an empty dictionary if the index is missing or cannot be used."""
    try:
        for place in (path, path.parent):
            if place.lstat().st_uid != os.geteuid():
                return {}
        data = read_stored(path, limit)
        payload = memoryview(data)[_DIGEST_BYTES:]
        if data[:_DIGEST_BYTES] != _digest(payload):
            return {}
        content = msgspec.msgpack.decode(payload, type=_Content)
        settings = content.settings
        rows = {
            row.name: (row.identity, Summary(row.name, row.run_id, row.started_at, settings[row.setting]))
            for row in content.rows
        }
        os.utime(path)  # Update the time of use, because `_sweep` removes unused indexes.
    except (OSError, RecordError, ValueError, IndexError):
        return {}
    return rows


def _encode(rows: dict[str, tuple[Identity, Summary]]) -> bytes:
    settings: dict[Setting, int] = {}
    encoded = [
        _Row(name, identity, one.run_id, one.started_at, settings.setdefault(one.setting, len(settings)))
        for name, (identity, one) in rows.items()
    ]
    return msgspec.msgpack.encode(_Content(list(settings), encoded))


def _digest(payload: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(_code())
    digest.update(payload)
    return digest.digest()


@cache
def _code() -> bytes:
    """Return a digest of the code that validates records. If the code changes, all indexes become invalid."""
    digest = hashlib.sha256(msgspec.__version__.encode())
    for file in sorted(Path(__file__).parent.glob("*.py*")):
        digest.update(file.read_bytes())
    return digest.digest()


def _sweep(directory: Path) -> None:
    """Remove the indexes that have not been used for `KEPT_DAYS` days."""
    oldest = time.time() - KEPT_DAYS * 86400
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                Path(entry.path).unlink(missing_ok=True)


def _is_short(summary: Summary) -> bool:
    """Return True if a summary's values fit into a row and are valid Unicode.

    Some directory names are not valid Unicode.
    """
    values = (summary.name, summary.run_id, summary.started_at, *msgspec.structs.astuple(summary.setting))
    try:
        return sum(len(value.encode()) for value in values) <= MAX_NAMES
    except UnicodeEncodeError:
        return False
