"""Simultaneous execution of several runs on this machine.

Each run uses separate cores and, if there are GPUs, a separate GPU.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec

from harness.errors import RecordError, UsageError
from harness.execute.attempt import execute_attempt
from harness.execute.child import new_pipe
from harness.execute.cores import core_shares, ordered_cores
from harness.execute.estimate import setting_of
from harness.execute.runner import LOCAL, BudgetUsedUpError
from harness.interfaces import Attempt, Coordinator, Executor, PlannedRun, TrialPruned
from harness.measure.cgroup import available_cores
from harness.measure.nvml import gpus
from harness.records import EpochEnded, Event, Placement, RunRecord, RunSpec, Success

_SHARED = "not measured, because other runs used the same processor"


@dataclass(frozen=True)
class Lane:
    """A set of cores, and optionally a GPU, on which runs are executed one after another."""

    cores: tuple[int, ...]
    gpu: str = ""
    """Value of ``CUDA_VISIBLE_DEVICES`` for the runs. The string is empty if all GPUs are visible."""


def lanes_for(specs: Sequence[RunSpec], jobs: int) -> tuple[Lane, ...]:
    """Divide the cores and GPUs of this machine into `jobs` lanes.

    Raises `harness.UsageError` if the machine does not have enough cores or GPUs for `jobs` runs at the same time.
    """
    if jobs < 1:
        raise UsageError(f"the number of simultaneous runs must be at least 1, got {jobs}")
    if any(spec.devices > 1 for spec in specs):
        raise UsageError("--jobs cannot be combined with runs on several devices; remove --jobs or use --devices 1")
    cores, threads = available_cores(), max((spec.threads for spec in specs), default=1)
    if jobs * threads > cores:
        raise UsageError(
            f"--jobs {jobs} with {threads} {'thread' if threads == 1 else 'threads'} per run needs {jobs} x "
            f"{threads} = {jobs * threads} cores, but {cores} {'is' if cores == 1 else 'are'} available; "
            + _advice(jobs, threads, cores)
        )
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("--jobs is not available, because this system cannot restrict a process to some of the cores")
    shares = core_shares(ordered_cores(), jobs)
    visible = _gpus_for(specs, jobs)
    return tuple(Lane(tuple(sorted(shares[job][:threads])), visible[job] if visible else "") for job in range(jobs))


def _advice(jobs: int, threads: int, cores: int) -> str:
    fewer = f"pass --jobs {cores // threads}" if cores >= 2 * threads else "remove --jobs"
    return f"{fewer}, or pass --threads {cores // jobs}" if cores >= jobs else fewer


def _gpus_for(specs: Sequence[RunSpec], jobs: int) -> list[str]:
    """Return the GPUs of the lanes. If no run can use a GPU, return an empty list."""
    devices = {spec.device for spec in specs} - {"cpu"}
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = [name.strip() for name in allowed.split(",") if name.strip()] if allowed is not None else None
    names = [str(number) for number in range(len(gpus()))] if found is None else found
    if not devices or not names:
        return []
    chosen = sorted(device for device in devices if ":" in device)
    if chosen and jobs > 1:
        raise UsageError(f"--jobs assigns a GPU to each run; pass --device cuda instead of {', '.join(chosen)}")
    if jobs > len(names):
        raise UsageError(
            f"--jobs {jobs} requires {jobs} GPUs, one per run, but {len(names)} {'is' if len(names) == 1 else 'are'} "
            f"available; pass at most --jobs {len(names)}, or --device cpu"
        )
    return names[:jobs]


Turn = list[int]
"""Numbers of the runs that one lane executes in sequence."""


def turns_of(specs: Sequence[RunSpec], *, quality_only: bool) -> list[Turn]:
    """Divide planned runs into turns. The runs are numbered from 1.

    A turn contains one run for each of the compared settings, in the order in which the settings first occur. All runs
    of a turn have the same seed and split. If only quality is measured, each run is a separate turn.
    """
    divided: list[Turn] = []
    rank: dict[str, int] = {}
    last: tuple[object, ...] = ()
    settings: set[str] = set()
    for number, spec in enumerate(specs, start=1):
        case, setting = (spec.task, spec.dataset, spec.split, spec.seed), setting_of(spec)
        rank.setdefault(setting, number)
        if quality_only or case != last or setting in settings:
            divided.append([])
            settings = set()
        divided[-1].append(number)
        settings.add(setting)
        last = case
    for turn in divided:
        turn.sort(key=lambda number: rank[setting_of(specs[number - 1])])
    return divided


@dataclass
class _Worker:
    """State of a lane during execution."""

    lane: Lane
    turn: deque[PlannedRun] = field(default_factory=deque)
    """Remaining runs of the current turn."""
    turns: dict[tuple[str, str], int] = field(default_factory=dict)
    """Number of turns executed so far, by task and dataset."""
    attempt: Attempt | None = None
    verdicts: queue.SimpleQueue[bool] = field(default_factory=queue.SimpleQueue)
    """Verdict after each epoch of a trial: True if the trial is pruned."""


class SideBySide(Executor):
    """Executor that executes several runs at the same time on this machine.

    Each lane executes one run at a time. A turn consists of one run of each compared setting, and is executed by a
    single lane. For each task and dataset, the order of the runs is reversed in every other turn. The compared settings
    are therefore interleaved within each lane (A B B A).
    """

    name = LOCAL
    summary = "this machine, several runs at the same time"
    prunes = True

    def __init__(self, lanes: Sequence[Lane], turns: Sequence[Turn], checked_at: str = "") -> None:
        """Create an executor with the given lanes. `checked_at` is stored in the records as `Placement.checked_at`."""
        self._lanes, self._turns, self._checked_at = tuple(lanes), turns, checked_at
        self._machine_cores = available_cores()

    def execute(self, runs: Sequence[PlannedRun], coordinator: Coordinator) -> None:
        """Execute the runs, one turn after another.

        If a run cannot be executed, no further runs are started. The exception is raised after the runs in progress
        have finished.
        """
        by_number = {run.index: run for run in runs}
        turns = deque(turn for numbers in self._turns if (turn := [by_number[n] for n in numbers if n in by_number]))
        workers = [_Worker(lane) for lane in self._lanes]
        messages: queue.SimpleQueue[tuple[_Worker, Event | RunRecord | BaseException]] = queue.SimpleQueue()
        ending: BudgetUsedUpError | None = None
        failed: BaseException | None = None
        closing = threading.Event()
        lifeline, held = new_pipe()
        # Contexts are closed in reverse order. Closing `held` first terminates the children and thus ends the threads.
        with lifeline, ThreadPoolExecutor(len(workers)) as threads, held:

            def proceed(worker: _Worker) -> None:
                """Start the next run of a lane, if there is one."""
                nonlocal ending
                if ending is not None or failed is not None:
                    return
                if not worker.turn and turns:
                    worker.turn.extend(_ordered(worker, turns.popleft()))
                if not worker.turn:
                    return
                try:
                    attempt = worker.attempt = coordinator.start(worker.turn.popleft())
                except BudgetUsedUpError as error:
                    ending = error
                    return

                def send(message: Event | RunRecord | BaseException) -> None:
                    messages.put((worker, message))
                    # Wait for the verdict, so that a pruned trial ends after the same epoch on every machine.
                    if _may_prune(attempt, message) and not closing.is_set() and worker.verdicts.get():
                        raise TrialPruned

                threads.submit(self._carry_out, worker.lane, attempt, send, lifeline)

            def store_finished() -> None:
                """Store the results that have been received but not yet stored."""
                while not messages.empty():
                    worker, message = messages.get()
                    if worker.attempt is not None and isinstance(message, RunRecord):
                        attempt_id, worker.attempt = worker.attempt.id, None
                        with contextlib.suppress(RecordError, KeyboardInterrupt):
                            coordinator.finish(attempt_id, message)

            try:
                for worker in workers:
                    proceed(worker)
                while any(worker.attempt for worker in workers):
                    worker, message = messages.get()
                    assert worker.attempt is not None
                    if isinstance(message, KeyboardInterrupt):
                        raise message
                    if isinstance(message, BaseException):
                        # The attempt stays open, and is recorded as failed when the exception is raised below.
                        failed, worker.attempt = failed or message, None
                        coordinator.message("a run could not be executed; waiting for the runs in progress to finish")
                    elif isinstance(message, RunRecord):
                        attempt_id, worker.attempt = worker.attempt.id, None
                        coordinator.finish(attempt_id, message)
                        proceed(worker)
                    else:
                        pruned = False
                        try:
                            coordinator.event(worker.attempt.id, message)
                        except TrialPruned:
                            pruned = True
                        if _may_prune(worker.attempt, message):
                            worker.verdicts.put(pruned)
            except BaseException:
                closing.set()
                for worker in workers:
                    worker.verdicts.put(False)
                store_finished()
                raise
        if failed is not None:
            raise failed
        if ending is not None:
            raise ending

    def _carry_out(
        self,
        lane: Lane,
        attempt: Attempt,
        send: Callable[[Event | RunRecord | BaseException], None],
        lifeline: io.FileIO,
    ) -> None:
        """Restrict this thread and its children to the lane's cores, and execute one attempt in this thread."""
        try:
            os.sched_setaffinity(0, lane.cores)  # 0 is the calling thread; its children inherit the cores
            record = execute_attempt(
                attempt.run,
                attempt.directory,
                send,
                environment={"CUDA_VISIBLE_DEVICES": lane.gpu} if lane.gpu else {},
                lifeline=lifeline,
            )
            checked_at = "" if attempt.run.quality_only else self._checked_at
            placement = Placement(jobs=len(self._lanes), cores=lane.cores, gpu=lane.gpu, checked_at=checked_at)
            send(_placed(record, placement, self._machine_cores))
        except BaseException as error:  # raised in the thread of the coordinator
            send(error)


def _may_prune(attempt: Attempt, message: Event | RunRecord | BaseException) -> bool:
    """Return True if an event marks the end of an epoch of a trial, after which the trial may be pruned."""
    return attempt.run.trial is not None and isinstance(message, EpochEnded)


def _ordered(worker: _Worker, turn: Sequence[PlannedRun]) -> Sequence[PlannedRun]:
    """Return the runs of a turn. For each task and dataset, the order is reversed in every second turn."""
    case = turn[0].spec.task, turn[0].spec.dataset
    number = worker.turns.get(case, 0)
    worker.turns[case] = number + 1
    return turn[::-1] if number % 2 else turn


def _placed(record: RunRecord, placement: Placement, machine_cores: int) -> RunRecord:
    """Return the record of a run that was executed at the same time as other runs.

    In the record, `Environment.cores` is the number of cores of the whole machine, not of the lane. The processor's
    energy counters include the energy used by all simultaneous runs.
    """
    environment = msgspec.structs.replace(record.environment, cores=machine_cores)
    outcome = record.outcome
    if isinstance(outcome, Success) and not record.quality_only:
        energy = msgspec.structs.replace(outcome.energy, cpu=None, cpu_source=_SHARED)
        outcome = msgspec.structs.replace(outcome, energy=energy)
    return msgspec.structs.replace(record, environment=environment, placement=placement, outcome=outcome)
