"""The child processes of a parity check, and the order in which they run their computations.

Each backend runs in a child process. The process first imports the framework and prepares the data, which uses one
core. If two cores are available, both processes import the framework and prepare the data at the same time. The
backends also compute at the same time if there are enough cores for all threads and neither backend uses a GPU.
Otherwise, the second backend starts computing after the first has finished, so that the backends do not compete for
cores or GPU memory.

In its last computations, the second backend uses the trained weights of the first backend (*late* weights). The second
backend starts without the trained weights of the first backend, and waits for them only when they are needed.
"""

from __future__ import annotations

import functools
import io
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec

from harness.checks.parity.evidence import (
    LATE,
    Handed,
    ParityJob,
    Ready,
    StageStarted,
    compute_evidence,
    compute_roundings,
)
from harness.checks.parity.gate import Gate, gates
from harness.checks.parity.report import ParityReport
from harness.execute.child import call_in_child, children
from harness.execute.variables import child_environment
from harness.measure.cgroup import available_cores
from harness.plugins.environments import interpreter
from harness.records import Failure


class Gathered(msgspec.Struct, frozen=True):
    """The results of a child process, or a description of its failure."""

    directory: Path
    report: ParityReport | None
    failure: Failure | None


Sent = Ready | Handed | StageStarted
"""Events that a child process sends."""


def stage_lines(title: str, say: Callable[[str], None]) -> Callable[[Sent], None]:
    """Return a function that passes a line to `say` whenever a stage starts. The line contains `title` and the time
    since `stage_lines` was called."""
    start = time.monotonic()

    def on_event(event: Sent) -> None:
        if isinstance(event, StageStarted):
            say(f"{title}: {event.stage} (after {time.monotonic() - start:.0f} s)")

    return on_event


def gather(job: ParityJob, directory: Path, timeout_s: float, **more: Any) -> Gathered:
    """Run the computations of a job in a child process, which saves the arrays in `directory`.

    `more` contains additional arguments for `harness.execute.child.call_in_child`.
    """
    returned = call_in_child(compute_evidence, job, timeout_s=timeout_s, **_options(job, directory), **more)
    if isinstance(returned, Failure):
        return Gathered(directory, None, returned)
    return Gathered(directory, returned, None)


def _options(job: ParityJob, directory: Path) -> dict[str, Any]:
    """Create the directory of a child process, and return the arguments of `call_in_child` for its environment."""
    directory.mkdir()
    return {
        "environment": child_environment(job.spec),
        "interpreter": interpreter(job.spec.env),
        "directory": directory,
        "limit_option": "harness parity --timeout",
    }


def gather_both(
    first: ParityJob, second: ParityJob, directory: Path, timeout_s: float, *, say: Callable[[str], None]
) -> dict[str, Gathered]:
    """Run the computations of both backends, in parallel if possible, and return the results by backend.

    The second backend uses the trained weights of the first backend. If the first backend fails, the second is
    terminated, and only the failure is returned.
    """
    cores = available_cores()
    paths = [directory / f"{name}.gate" for name in ("first", "second", "late")]
    folders = [directory / name for name in ("first", "second")]
    first = msgspec.structs.replace(first, turn=str(paths[0]))
    second = msgspec.structs.replace(second, turn=str(paths[1]), late=str(folders[0] / LATE), late_gate=str(paths[2]))

    def start_call(job: ParityJob, folder: Path, number: int) -> Future[Gathered]:
        title = f"{job.spec.backend_in_env} in {job.spec.precision}"
        say(title)
        show = stage_lines(title, say)

        def on_event(event: Sent) -> None:
            show(event)
            turns.on_event(number, event)

        call = start(
            functools.partial(
                gather,
                job,
                folder,
                timeout_s,
                event_type=Sent,
                on_event=on_event,
            )
        )
        call.add_done_callback(lambda _: turns.settle(number, None))
        return call

    with gates(*paths) as opened, children(2) as start:
        turns = _Turns(opened, side_by_side=first.spec.threads + second.spec.threads <= cores)
        one = start_call(first, folders[0], 0)
        if cores > 1:
            other = start_call(second, folders[1], 1)
            one.result()
        else:
            turns.settle(1, None)
            one.result()
            other = start_call(second, folders[1], 1)
        turns.end_first()
        results = {first.spec.backend_in_env: one.result()}
        if one.result().report is not None:
            results[second.spec.backend_in_env] = other.result()
        return results


class _Turns:
    """Controller that opens the gates at which the two child processes wait."""

    def __init__(self, opened: Sequence[Gate], *, side_by_side: bool) -> None:
        """Store three gates. Each child process waits at one of the first two gates before it computes. The second
        child process also waits at the third gate, until the first backend has been trained and its weights are known.

        `side_by_side` is True if there are enough cores for the threads of both children.
        """
        self._first, self._second, self._late = opened
        self._enough_cores = side_by_side
        self._devices: dict[int, str | None] = {}
        self._changing = threading.Lock()

    def on_event(self, number: int, event: Sent) -> None:
        if isinstance(event, Ready):
            self.settle(number, event.device)
        elif isinstance(event, Handed) and self._side_by_side:
            self._late.open()

    def settle(self, number: int, device: str | None) -> None:
        """Store the device of a child process that has prepared its data. The device is None if the process has exited
        or was not started."""
        with self._changing:
            self._devices.setdefault(number, device)
            if len(self._devices) == 2:
                self._first.open()
                if self._side_by_side:
                    self._second.open()

    @property
    def _side_by_side(self) -> bool:
        return self._enough_cores and set(self._devices.values()) == {"cpu"}

    def end_first(self) -> None:
        """Open the remaining gates of the second child process after the first has exited."""
        self._second.open()
        self._late.open()


def gather_roundings(
    job: ParityJob,
    numbers: Sequence[int],
    directory: Path,
    timeout_s: float,
    on_event: Callable[[Sent], None] = lambda _: None,
) -> list[Path]:
    """Compute the float64 reference from perturbed weights, using two child processes if there are enough cores.

    `on_event` receives the events of the child processes. Return the directories that contain the arrays, or an empty
    list if a child process failed.
    """
    parts = 2 if 2 * job.spec.threads <= available_cores() else 1
    folders = [directory / f"roundings-{part}" for part in range(parts)]

    def compute(part: int, lifeline: io.FileIO) -> bool:
        own = msgspec.structs.replace(job, roundings=tuple(numbers[part::parts]))
        options = _options(own, folders[part])
        returned = call_in_child(
            compute_roundings,
            own,
            timeout_s=timeout_s,
            lifeline=lifeline,
            event_type=Sent,
            on_event=on_event,
            **options,
        )
        return not isinstance(returned, Failure)

    with children(parts) as start:
        calls = [start(functools.partial(compute, part)) for part in range(parts)]
        return folders if all(call.result() for call in calls) else []
