"""Storage of submissions.

Submissions: planned runs that continue after the command that submitted them has exited.

A submission has two files. The file in the results directory contains all information needed to store the
results. The file in the user's state directory contains the options that the executor needs to find the submission,
such as the address of a cluster. A results directory may have been written by another user, so options are never read
from it. Otherwise, a command that shows the progress could connect to an address chosen by that user.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from harness.errors import BusyError, RecordError, UsageError
from harness.interfaces import PlannedRun
from harness.records import ParityMark
from harness.records.files import make_directory, replacing
from harness.records.locations import state_dir
from harness.records.reading import MAX_JSON_BYTES, decode, read_stored
from harness.records.store import Store

FOLDER = ".submitted"
LOCK = ".lock"


class Submission(Struct, frozen=True, kw_only=True):
    """Runs submitted with ``--detach``, as stored in a file of the results directory."""

    version: Literal[1] = 1
    name: str
    """Identifier that the executor uses for the submission. The submission's file has the same name."""
    submitted_at: str
    """Time of submission in UTC, in the format of `RunRecord.started_at`."""
    executor: str
    runs: list[PlannedRun]
    """Submitted runs, with the digests of their plugins."""
    marks: dict[str, list[ParityMark]]
    """Parity results to store in the records, by key of the specification."""
    rerun: bool = False
    """True if the runs were submitted with ``--rerun``."""
    finished: bool = False
    """True if all available results are stored, but the command that submitted the runs with ``--rerun`` has not yet
    been repeated without ``--detach``. Without this mark, the repeated command would execute the runs again."""

    def run_id(self, index: int) -> str:
        """Return the value of `RunRecord.submission` for the run with this number."""
        return f"{self.name}/{index}"


class Access(Struct, frozen=True, kw_only=True):
    """The executor of a submission and the options that it needs to find the submission."""

    executor: str
    options: dict[str, str]
    results: str = ""
    """Resolved path of the results directory from which the runs were submitted."""


def new_name() -> str:
    """Return a unique name for a submission."""
    return f"submission-{secrets.token_hex(8)}"


def submissions(store: Store) -> list[Submission]:
    """Return the submissions in a results directory, oldest first.

    Raises `harness.RecordError` if a file cannot be read.
    """
    folder = store.path / FOLDER
    try:
        files = [] if folder.is_symlink() else [path for path in folder.iterdir() if path.suffix == ".json"]
    except OSError:
        return []
    found = [_read(path) for path in files if not path.name.startswith(".")]
    return sorted(
        (submission for submission in found if submission is not None),
        key=lambda submission: (submission.submitted_at, submission.name),
    )


@contextmanager
def locked(store: Store, *, create: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold the lock of the submissions in a results directory.

    If `create` is false and the results directory has no submissions, nothing is locked. Raises `harness.BusyError` if
    another process holds the lock and `wait` is false. Raises `harness.RecordError` if the lock file cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = store.path / FOLDER
    if not create and (folder.is_symlink() or not folder.is_dir()):
        yield
        return
    try:
        make_directory(folder)
        lock = FileLock(folder / LOCK, timeout=-1 if wait else 0)
        lock.acquire()
    except Timeout:
        raise BusyError(
            "another harness command is submitting or collecting the detached runs of this results directory; wait "
            "until it finishes, or pass --wait"
        ) from None
    except OSError as error:
        raise RecordError(f"{folder / LOCK}: cannot be locked: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def write(store: Store, submission: Submission) -> None:
    """Write a submission's file in the results directory. Raises `harness.RecordError`."""
    path = _path(store, submission)
    try:
        make_directory(path.parent)
        with replacing(path) as file:
            file.write(msgspec.json.encode(submission))
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {error.strerror}") from None


def remove(store: Store, submission: Submission) -> None:
    """Remove the files of a submission."""
    with contextlib.suppress(OSError):
        _own_path(submission).unlink(missing_ok=True)
    _path(store, submission).unlink(missing_ok=True)


def grant(store: Store, submission: Submission, options: Mapping[str, str]) -> None:
    """Store this user's options for a submission. Raises `harness.UsageError` if the options cannot be stored."""
    path = _own_path(submission)
    access = Access(executor=submission.executor, options=dict(options), results=os.path.realpath(store.path))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(msgspec.json.encode(access))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written: {error.strerror}; set XDG_STATE_HOME to a writable directory, or remove "
            "--detach"
        ) from None


def options_for(store: Store, submission: Submission, given: Access | None) -> dict[str, str]:
    """Return the options that the executor needs to find a submission.

    These options were stored when this user submitted the runs from this results directory. If there are no stored
    options, this function returns `given`, the options that the user passed to the command. Raises `harness.UsageError`
    if no options are stored and `given` is None or belongs to a different executor.
    """
    path = _own_path(submission)
    if path.exists():
        own = decode(read_stored(path, MAX_JSON_BYTES), Access, path)
        if (own.executor, own.results) == (submission.executor, os.path.realpath(store.path)):
            return own.options
    if given is not None and given.executor == submission.executor:
        return given.options
    name = submission.executor
    raise UsageError(
        f"these runs were not submitted from this directory by this user; if you trust the directory, pass --executor "
        f"{name} and the executor's options, such as its address (`harness list executors`)"
    )


def _path(store: Store, submission: Submission) -> Path:
    return store.path / FOLDER / f"{submission.name}.json"


def _own_path(submission: Submission) -> Path:
    return state_dir() / "submissions" / f"{submission.name}.json"


def _read(path: Path) -> Submission | None:
    try:
        submission = decode(read_stored(path, MAX_JSON_BYTES), Submission, path)
    except RecordError:
        if not path.exists():  # another process has collected the submission
            return None
        raise
    if not re.fullmatch(r"submission-[0-9a-f]{16}", submission.name) or submission.name != path.stem:
        raise RecordError(
            f"{path}: the submission is named {submission.name!r}, which differs from its file name; remove the file"
        )
    return submission
