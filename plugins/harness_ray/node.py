"""Execution of one attempt in a Ray task on a node of the cluster."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import ray

import harness
from harness_ray.placement import shares_node

PREFIX = "harness-ray-attempt-"
"""Name prefix of the directories for temporary files."""
CHUNK_BYTES = 64 * 2**10
"""Size of the chunks in which files are copied. Ray sends arguments and results of up to 100 KiB directly to the
receiving process. Larger values are kept in the object store of a node, and are lost if the node's raylet exits."""
REPORT_S = 0.5
"""Minimum interval between reports of events, in seconds."""
ANSWER_S = 60.0
"""Time limit for a response from the supervisor, in seconds."""
PROGRESS_S = 1.0
"""Minimum interval between reports of training progress, in seconds."""
RESULT = "result.json"
"""Name of the file that contains the record or the failure."""
NOTE = "the node's raylet exited during the run, but the run was not affected"


def execute(run: harness.PlannedRun, attempt: str, supervisor: Any, beat_s: float) -> bool:
    """Execute a run, and copy its record and all other files to the supervisor. Return False if the attempt has been
    lost.

    A report is sent at least every `beat_s` seconds, even if there are no events.
    """
    raylet = os.getppid()
    with scratch() as folder:
        with _Reports(attempt, supervisor, beat_s) as reports:
            record = harness.execute_run(run, folder, reports.add, lock=devices(run.spec))
        if os.getppid() != raylet:
            provenance = record.provenance
            provenance = msgspec.structs.replace(provenance, notes={**provenance.notes, "executor": NOTE})
            record = msgspec.structs.replace(record, provenance=provenance)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink())
        for path in files:
            if not _send(path, path.relative_to(folder).as_posix(), attempt, supervisor):
                return False
        result = Path(folder, RESULT)
        result.write_bytes(msgspec.json.encode(record))
        return _send(result, RESULT, attempt, supervisor)


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """Create a locked directory for temporary files, and remove it on exit.

    The lock (flock) is released when this process exits. Unlocked directories of the same user belong to processes that
    were killed, and are removed first.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid == os.geteuid() and (lock := _locked(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
    while True:
        folder = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
        lock = _locked(Path(folder.name))
        if lock is not None:
            break
    try:
        with folder:
            yield folder.name
    finally:
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """Lock a directory, and return the descriptor that holds the lock. Return None if another process holds the lock or
    has removed the directory."""
    try:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    if folder.exists():
        return file
    os.close(file)
    return None


def devices(spec: harness.RunSpec) -> tuple[str, ...]:
    """Return the devices that `harness.execute_run` locks for a run.

    For a run on a GPU, these are the GPUs that Ray has assigned to the task. If the run may use the CPU, the lock
    excludes all other runs on the node, even those of other commands.
    """
    gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return tuple(f"cuda:{gpu}" for gpu in gpus) if gpus and shares_node(spec) else ("cpu",)


def _send(path: Path, name: str, attempt: str, supervisor: Any) -> bool:
    with path.open("rb") as file:
        offset = 0
        while True:
            chunk = file.read(CHUNK_BYTES)
            if not _answer(supervisor.put.remote(attempt, name, offset, chunk)):
                return False
            offset += len(chunk)
            if len(chunk) < CHUNK_BYTES:
                return True


def _answer(reference: Any) -> Any:
    """Return the supervisor's response to a call.

    `ray.get` is not used for two reasons. While waiting, `ray.get` releases the task's CPUs, so Ray could start another
    task on these CPUs. In addition, `ray.get` terminates this process if the raylet has exited.
    """
    return reference.future().result(ANSWER_S)


class _Reports:
    """A thread that sends events and periodic reports to the supervisor."""

    def __init__(self, attempt: str, supervisor: Any, beat_s: float) -> None:
        self._attempt, self._supervisor, self._beat_s = attempt, supervisor, beat_s
        self._events: list[bytes] = []
        self._sent = 0
        self._progress = 0.0
        self._pruned = False
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="harness-reports", daemon=True)

    def add(self, event: harness.Event) -> None:
        """Report an event later. Raises `harness.TrialPruned` if the run is a trial that has been pruned."""
        if self._pruned:
            raise harness.TrialPruned
        if type(event).__struct_config__.tag == "progress":
            if time.monotonic() - self._progress < PROGRESS_S:
                return
            self._progress = time.monotonic()
        self._events.append(msgspec.json.encode(event))
        self._changed.set()

    def __enter__(self) -> _Reports:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._changed.set()
        self._thread.join(30.0)

    def _work(self) -> None:
        while True:
            closed = self._closing.is_set()
            new = self._events[self._sent :]
            with contextlib.suppress(
                ray.exceptions.RayError, TimeoutError
            ):  # Ray terminates this process if the supervisor has ended.
                self._pruned = bool(_answer(self._supervisor.report.remote(self._attempt, self._sent, new)))
                self._sent += len(new)
            if closed:
                return
            self._changed.wait(self._beat_s)
            self._closing.wait(REPORT_S)
            self._changed.clear()
