"""The spool directory on the head node, in which a supervisor keeps results until they are collected."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from harness import Environment, PlannedRun
from harness_ray.attempts import Running
from harness_ray.node import RESULT
from harness_ray.placement import Group

COLLECTED = "collected"
"""Name prefix of marker files. A marker file indicates that the results of a run have been collected."""
PREFIX = "harness-ray-spool-"
"""Name prefix of spool directories. The prefix is followed by the cluster's address and the supervisor's name."""
ATTACHED = "run-"
"""Name prefix of a supervisor whose command waits for the results."""
KEPT_S = 7 * 24 * 3600.0
"""Time in seconds to keep the results of a submission after its supervisor has exited."""
CLASSES = "classes.json"
"""Name of the file that stores which class of machine was chosen for each group of runs."""


class Spool:
    """The files of a supervisor. If the supervisor's process is killed, the process that replaces it continues with
    these files.

    Disk space is required only for the files of runs. Everything else is also kept in memory, so that the supervisor
    continues if the disk is full.
    """

    def __init__(self, name: str, address: str) -> None:
        """Open or create the directory of the supervisor `name` in the cluster at `address`, and remove the files of
        unfinished attempts.

        Raises PermissionError if the directory belongs to another user or is a symbolic link.
        """
        self._prefix = PREFIX + re.sub(r"[^0-9A-Za-z.]", "-", address) + "-"
        self.path = Path(tempfile.gettempdir(), self._prefix + name)
        self.path.mkdir(mode=0o700, exist_ok=True)
        if self.path.is_symlink() or self.path.lstat().st_uid != os.geteuid():
            raise PermissionError(f"{self.path} belongs to another user, or is a link")
        for path in self.path.glob("partial-*"):
            shutil.rmtree(path, ignore_errors=True)

    def remove_orphans(self, existing: Collection[str]) -> None:
        """Remove the directories of this cluster whose supervisors do not exist. `existing` contains the names of the
        cluster's supervisors.

        A supervisor does not remove its directory if its command is killed, or if the head node shuts down. The
        directory of a submission is kept for `KEPT_S` seconds, because it may contain results that a command will
        collect.
        """
        for path in self.path.parent.glob(f"{self._prefix}*"):
            with contextlib.suppress(OSError):
                name, found = path.name.removeprefix(self._prefix), path.lstat()
                kept_s = 0.0 if name.startswith(ATTACHED) else KEPT_S
                if name not in existing and found.st_uid == os.geteuid() and time.time() - found.st_mtime >= kept_s:
                    shutil.rmtree(path, ignore_errors=True)

    def folder(self, attempt: str) -> Path:
        """Return the directory that contains an attempt's files."""
        finished = self._finished(attempt)
        return finished if finished.exists() else self.path / f"partial-{attempt}"

    def finish(self, attempt: str, events: Sequence[bytes]) -> dict[str, int]:
        """Mark an attempt as finished, and return the sizes of its files by name."""
        folder = self.folder(attempt)
        sizes = _sizes(folder)
        with contextlib.suppress(OSError):  # such as a full disk
            self._events(attempt).write_bytes(msgspec.json.encode([event.decode() for event in events]))
        with contextlib.suppress(OSError):  # The result is lost only if this process is killed.
            folder.rename(self._finished(attempt))
        return sizes

    def keep_failure(self, attempt: str, content: bytes) -> None:
        """Store the failure of a run without a record, unless the disk is full."""
        folder = self.folder(attempt)
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / RESULT).write_bytes(content)
            folder.rename(self._finished(attempt))

    def forget(self, attempt: str) -> None:
        """Remove an attempt's files."""
        shutil.rmtree(self.folder(attempt), ignore_errors=True)

    def mark_collected(self, attempt: str, index: int) -> None:
        """Mark the run with the number `index` as done, and remove the attempt's files."""
        mark = self.path / f"{COLLECTED}-{index}"
        with contextlib.suppress(OSError):  # such as a full disk
            mark.touch()
        self.forget(attempt)
        self._events(attempt).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            mark.touch()

    def collected(self) -> set[int]:
        """Return the numbers of the runs whose results have been collected."""
        return {int(path.name.partition("-")[2]) for path in self.path.glob(f"{COLLECTED}-*")}

    def finished_attempts(self, runs: Iterable[PlannedRun]) -> dict[str, Running]:
        """Return the attempts that have finished, but whose results have not been collected."""
        by_index = {run.index: run for run in runs}
        found = {}
        for path in self.path.glob("finished-*"):
            attempt = path.name.partition("-")[2]
            files = _sizes(path)
            if RESULT not in files:  # for example, a program has removed old temporary files
                shutil.rmtree(path, ignore_errors=True)
                continue
            events: list[str] = []
            with contextlib.suppress(OSError, msgspec.DecodeError):
                events = msgspec.json.decode(self._events(attempt).read_bytes())
            run = by_index[int(attempt.partition("-")[0])]
            found[attempt] = Running(run, "", [event.encode() for event in events], files=files)
        return found

    def keep_classes(self, classes: Mapping[Group, Environment]) -> None:
        """Store the class of machine that was chosen for each group of runs, unless the disk is full."""
        with contextlib.suppress(OSError):
            path = self.path / f"{CLASSES}.new"
            path.write_bytes(msgspec.json.encode(list(classes.items())))
            path.replace(self.path / CLASSES)

    def classes(self) -> dict[Group, Environment]:
        """Return the stored classes."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            content = (self.path / CLASSES).read_bytes()
            return dict(msgspec.json.decode(content, type=list[tuple[Group, Environment]]))
        return {}

    def remove(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _finished(self, attempt: str) -> Path:
        return self.path / f"finished-{attempt}"

    def _events(self, attempt: str) -> Path:
        return self.path / f"events-{attempt}.json"


def _sizes(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
