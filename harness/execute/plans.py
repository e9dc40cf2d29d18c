"""Files that describe the plans in a results directory.

``harness status`` uses these files to report the progress of the plans.

A plan is written to a file in a hidden folder of the results directory when its first run starts. The process that
executes the plan holds a lock (flock) on the file, so that other processes can determine whether the plan is still
running. Progress is determined from the runs' records, because a run is complete only if its record exists.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import platform
import secrets
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from harness.errors import RecordError
from harness.execute.estimate import kind_of, setting_of
from harness.records import Failure, RunSpec, Success
from harness.records.files import make_directory, replacing
from harness.records.reading import MAX_JSON_BYTES, decode, read_stored
from harness.records.scratch import in_use
from harness.records.store import Store, StoredRun

FOLDER = ".plans"
MAX_PLANS = 10
"""Number of plans kept in a results directory."""


class PlannedRun(Struct, frozen=True, array_like=True):
    """A planned run that had no usable record when the plan was started."""

    key: str
    title: str
    setting: str
    """Identifier of the specification without its seed, split and device."""
    kind: str
    """Identifier of the combination of task, dataset, model, backend and protocol."""


class Plan(Struct, frozen=True, kw_only=True):
    """The runs executed by a command or a call to `harness.run`, as stored in a file."""

    version: Literal[1] = 1
    started_at: str
    """Start time in UTC, in the format of `RunRecord.started_at`."""
    host: str
    pid: int
    directory: str
    """Working directory of the command."""
    command: list[str]
    """Arguments of the ``harness`` command, or an empty list if the plan was started from Python."""
    skipped: int
    """Number of planned runs that were skipped because the results directory already contained them."""
    runs: list[PlannedRun]
    """Planned runs that were not skipped, in execution order."""
    submission: str = ""
    """Name of the submission if the runs continue after the command has exited, or an empty string otherwise; see
    `harness.execute.detached`."""
    jobs: int = 1
    """Number of runs executed at the same time."""
    quality_only: bool = False
    """True if only quality is measured."""


@dataclass(frozen=True)
class Progress:
    """The progress of a plan."""

    plan: Plan
    alive: bool
    """True if the process that executes the plan is running."""
    done: int
    """Number of runs that have succeeded since the plan started."""
    failed: int
    running: int
    left: list[PlannedRun]
    """Runs that have no record yet or were interrupted, including the current run, in execution order."""
    seconds_left: float
    """Total expected duration of the runs in `left` whose duration can be estimated."""
    unknown: int
    """Number of runs in `left` whose duration cannot be estimated."""


@contextmanager
def recorded(
    store: Store,
    specs: Sequence[RunSpec],
    *,
    skipped: int,
    command: Sequence[str],
    jobs: int = 1,
    quality_only: bool = False,
    submission: str = "",
    titles: Mapping[str, str] = {},
) -> Iterator[None]:
    """Write a plan to a file and hold a lock on the file.

    `titles` maps the key of each run to its title. An OSError is ignored, because runs can be executed without the
    file.
    """
    plan = Plan(
        started_at=_now(),
        host=platform.node(),
        pid=os.getpid(),
        directory=os.getcwd(),  # noqa: PTH109 - the directory may have been removed
        command=list(command),
        skipped=skipped,
        runs=[
            PlannedRun(spec.key, titles.get(spec.key, spec.title), setting_of(spec), kind_of(spec)) for spec in specs
        ],
        jobs=jobs,
        quality_only=quality_only,
        submission=submission,
    )
    folder = store.path / FOLDER
    path = folder / f"{_name(plan.started_at)}-{secrets.token_hex(4)}.json"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            make_directory(folder)
            _remove_old(folder)
            with replacing(path) as file:
                file.write(msgspec.json.encode(plan))
            # NFS requires write access for an exclusive lock.
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def progress(store: Store, submissions: Mapping[str, int] = {}) -> tuple[list[Progress], list[str]]:
    """Return the progress of all running plans and of the most recent plan, ordered by start time.

    Also return a message for each plan file that cannot be read. `submissions` contains, for each submission, the
    number of runs that are being executed.

    Raises `harness.RecordError` if the results directory cannot be read.
    """
    plans: list[tuple[Plan, bool]] = []
    problems: list[str] = []
    for path in _files(store.path / FOLDER):
        try:
            plan = decode(read_stored(path, MAX_JSON_BYTES), Plan, path)
            plans.append((plan, plan.submission in submissions or _is_locked(path)))
        except RecordError as error:
            problems.append(str(error))
    now = _now()
    plans.sort(key=lambda each: (each[0].started_at <= now, each[0].started_at))  # see `_files`
    shown = [each for each in plans if each[1] or each is plans[-1]]
    kinds = {run.kind.rpartition("\0")[0] for plan, _ in shown for run in plan.runs}
    loaded = store.load(lambda run: "\0".join(msgspec.structs.astuple(run.setting)[:4]) in kinds)
    running = in_use(store.path)
    return [
        _progress(plan, alive, submissions.get(plan.submission, running), loaded.runs) for plan, alive in shown
    ], problems


def _progress(plan: Plan, alive: bool, running: int, stored: Sequence[StoredRun]) -> Progress:
    since: dict[str, list[bool]] = defaultdict(list)
    durations: dict[str, list[float]] = defaultdict(list)
    for run in stored:
        record = run.record
        succeeded = isinstance(record.outcome, Success)
        interrupted = isinstance(record.outcome, Failure) and record.outcome.kind == "interrupted"
        if record.started_at >= plan.started_at and not interrupted:
            since[record.request_key or record.key].append(succeeded)
        if succeeded and record.quality_only == plan.quality_only:
            for label in (setting_of(record.spec), kind_of(record.spec)):
                durations[label].append(record.wall_s)
    wanted = Counter(run.key for run in plan.runs)
    done = {key: min(count, sum(since[key])) for key, count in wanted.items()}
    failed = {key: min(count - done[key], len(since[key]) - sum(since[key])) for key, count in wanted.items()}
    finished = {key: done[key] + failed[key] for key in wanted}
    left = []
    for planned in plan.runs:
        if finished[planned.key]:
            finished[planned.key] -= 1
        else:
            left.append(planned)
    expected = [_expected_s(planned, durations) for planned in left]
    return Progress(
        plan,
        alive,
        done=sum(done.values()),
        failed=sum(failed.values()),
        running=min(running, len(left)) if alive else 0,
        left=left,
        seconds_left=sum(seconds for seconds in expected if seconds is not None) / max(1, plan.jobs),
        unknown=expected.count(None),
    )


def _expected_s(run: PlannedRun, durations: Mapping[str, list[float]]) -> float | None:
    known = durations.get(run.setting) or durations.get(run.kind)
    return statistics.median(known) if known else None


def _files(folder: Path) -> list[Path]:
    """Return the paths of the plan files, oldest first. The folder is ignored if it is a symbolic link.

    A plan from the future was started while the clock was wrong, and counts as older than all other plans. Otherwise,
    it would be reported as the most recent plan for years.
    """
    try:
        if folder.is_symlink():
            return []
        found = [path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith(".")]
        now = f"{_name(_now())}~"  # greater than all names with the same time
        return sorted(found, key=lambda path: (path.name <= now, path.name))
    except OSError:
        return []


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _name(started_at: str) -> str:
    return started_at.replace(":", "")


def _remove_old(folder: Path) -> None:
    for path in _files(folder)[: -(MAX_PLANS - 1)]:
        if not _is_locked(path):
            path.unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    """Return True if a process holds the lock on a plan file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # raised if the file system does not support locks
        return False
    finally:
        os.close(file)
    return False
