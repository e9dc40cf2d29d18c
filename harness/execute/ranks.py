"""Processes that train a model on several devices: the worker, which has rank 0, and its child processes.

Each process uses a separate device and separate cores. All processes load the same data and start from the same
weights, and each process computes its part of every batch. The framework sums the gradients, so all processes have
the same weights after each step. Only the worker measures, predicts and scores.

The worker controls each of the other processes through a pipe. Before a training step, the worker writes the batch
number and the learning rate to the pipes. Between training steps, the other processes wait for the next command without
using CPU time. A closed pipe means that the run has ended.

If a process fails, the other processes also fail or wait forever in a collective operation. The first failure is
recorded. However, the failure of a killed process takes precedence, because other processes may notice its termination
before the worker does. The time of a failure is the time at which the exception was raised. The exception is
raised before the session is closed. Closing the session can take some time, and can cause the other processes to fail.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from harness.errors import BadResultError, UnsupportedError
from harness.execute.child import calls_in_children, new_pipe
from harness.execute.rank_process import (
    CHECK,
    COMMAND,
    STEP,
    RankChecked,
    RankEnd,
    RankFailing,
    RankJob,
    RankReady,
    follow,
    seed_of,
    trained_digest,
)
from harness.measure.group import Group
from harness.records import Failure, PluginRef, RankMemory, RunRecord, RunSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.execute.preparation import Preparation
    from harness.interfaces import PreparedData
    from harness.measure.memory import PhaseMemory

SETTLE_S = 2.0
"""Time in seconds to wait after the first failure for other processes to fail."""
GIVE_UP_S = 10.0
"""Maximum time in seconds between the failure of a process and the resulting failure of the worker. If a process does
not respond within this time, the worker is assumed to be blocked in a collective operation and is terminated."""


class RankFailedError(Exception):
    """The failure of a process other than the worker."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Ranks(Group):
    """All processes of a run on several devices except the worker, which controls the other processes."""

    def __init__(self, prepared: Preparation, shares: Sequence[tuple[int, ...]], give_up: Callable[[Failure], None]):
        """Create the group without starting processes.

        Parameters
        ----------
        prepared : Preparation
            The worker's prepared data and session request. The session request contains the device group.
        shares : sequence of tuple of int
            Cores of each process.
        give_up : callable
            Function that records a failure and terminates the worker. The function is used when the worker's main
            thread is blocked.
        """
        assert prepared.request.group is not None
        self._prepared, self._shares, self._give_up = prepared, shares, give_up
        self.group = prepared.request.group
        self.size = self.group.size
        self._writers: list[Any] = []
        self._events: list[queue.SimpleQueue[RankReady | RankChecked | None]] = [
            queue.SimpleQueue() for _ in range(self.size - 1)
        ]
        self._futures: list[Future[RankEnd | Failure]] = []
        self._failing_at_s: dict[int, float] = {}
        """Time of the first exception in each process, indexed by rank."""
        self._failures: list[tuple[float, int, Failure]] = []
        """Time, rank and failure of each process that failed."""
        self._failed, self._noticed = threading.Event(), threading.Event()
        self._pids: list[int] = []
        self._ends: list[RankEnd] = []

    @contextlib.contextmanager
    def running(self, plugins: Sequence[PluginRef], weights: Mapping[str, Any]) -> Iterator[Ranks]:
        """Start the other processes and stop them on exit.

        `weights` are the worker's initial weights. Raises `RankFailedError` if another process failed before an
        exception was raised in the context.
        """
        with contextlib.ExitStack() as stack:
            pipes = [tuple(map(stack.enter_context, new_pipe())) for _ in range(self.size - 1)]
            self._writers = [writer for _, writer in pipes]
            readers = [reader.fileno() for reader, _ in pipes]
            try:
                with calls_in_children(
                    follow,
                    [self._job(rank, plugins, reader) for rank, reader in enumerate(readers, start=1)],
                    timeout_s=float("inf"),  # the worker has a time limit
                    environment={},
                    event_type=RankReady | RankChecked | RankFailing,
                    on_event=self._receive,
                    inputs=readers,
                ) as self._futures:
                    for number, future in enumerate(self._futures):
                        future.add_done_callback(partial(self._ended, number))
                    try:
                        self._await_ready(weights)
                        yield self
                    except Exception as error:
                        self._raise_first(error)
            finally:
                self._noticed.set()

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Store the time of an exception in the worker.

        Enter this context manager inside the session's context manager.
        """
        try:
            yield
        except Exception:
            self._failing_at_s[0] = time.monotonic()
            raise

    def step(self, epoch: int, index: int, learning_rate: float) -> None:
        self._command(STEP, epoch, index, learning_rate)

    def check(self, weights: Mapping[str, Any]) -> None:
        self._command(CHECK)
        own = trained_digest(weights, self._prepared)
        for rank, event in self._answers():
            if not isinstance(event, RankChecked) or event.weights_digest != own:
                raise BadResultError(f"the trained weights of rank {rank} differ from those of rank 0")

    def finish(self) -> None:
        """Stop the other processes and wait for their results."""
        for writer in self._writers:
            writer.close()
        for future in self._futures:
            end = future.result()
            if isinstance(end, Failure):
                raise RuntimeError(f"a process failed: {end.message}")
            self._ends.append(end)

    @property
    def pids_on_own_cores(self) -> list[int]:
        """Ids of the other processes. The list is empty unless all processes share the same cores."""
        return [] if any(self._shares) else self._pids

    def memory(self, worker: RankMemory, phases: PhaseMemory) -> list[RankMemory]:
        """Return the peak memory of all processes. Call this method after `finish`."""
        return [
            worker,
            *(
                RankMemory(
                    host_peak_bytes=max(end.host_peak_bytes, phases.by_process_bytes.get(pid, 0)),
                    device=end.device_memory,
                )
                for pid, end in zip(self._pids, self._ends, strict=True)
            ),
        ]

    def notes(self) -> dict[str, str]:
        """Return the settings of the group, which are recorded together with the settings of the session; see
        `GROUP_NOTES`."""
        request, size = self._prepared.request, self.size
        shares = " / ".join(",".join(map(str, share)) for share in self._shares)
        notes = {"processes": str(size), "cores_by_process": shares if any(self._shares) else "shared by all processes"}
        if any(not (each.trainable or each.name in request.frozen) for each in request.parameters):
            notes["batch_norm"] = "local"
        if request.recipe.dropout:
            notes["seeds"] = ", ".join(str(seed_of(self._prepared.spec.seed, rank)) for rank in range(size))
        return notes

    def _job(self, rank: int, plugins: Sequence[PluginRef], reader: int) -> RankJob:
        spec = self._prepared.spec
        devices = spec.used_devices
        return RankJob(
            spec=msgspec.structs.replace(spec, device=devices[rank] if len(devices) > 1 else devices[0]),
            plugins=tuple(plugins),
            group=msgspec.structs.replace(self.group, rank=rank),
            cores=self._shares[rank],
            commands=reader,
        )

    def _command(self, kind: int, epoch: int = 0, index: int = 0, rate: float = 0.0) -> None:
        if self._failed.is_set():
            raise RuntimeError("another process failed")
        command = COMMAND.pack(kind, epoch, index, rate)
        for writer in self._writers:
            writer.write(command)

    def _await_ready(self, weights: Mapping[str, Any]) -> None:
        from harness.records.arrays import digest

        own = digest(weights)
        for rank, event in self._answers():
            assert isinstance(event, RankReady)
            self._pids.append(event.pid)
            for what, theirs, ours in (
                ("prepared data", event.dataset_digest, self._prepared.data.digest),
                ("initial weights", event.weights_digest, own),
            ):
                if theirs != ours:
                    raise BadResultError(f"the {what} of rank {rank} differ from those of rank 0")

    def _answers(self) -> Iterator[tuple[int, RankReady | RankChecked]]:
        """Yield the next event from each process, with the process's rank."""
        for rank, events in enumerate(self._events, start=1):
            event = events.get()
            if event is None:
                raise RuntimeError("another process failed")
            yield rank, event

    def _receive(self, number: int, event: RankReady | RankChecked | RankFailing) -> None:
        if isinstance(event, RankFailing):
            self._failing_at_s.setdefault(number + 1, event.at_s)
        else:
            self._events[number].put(event)

    def _ended(self, number: int, future: Future[RankEnd | Failure]) -> None:
        """Record that a process has exited. This method is called in the thread that monitors the process."""
        error = future.exception()
        result = Failure(kind="error", message=str(error)) if error is not None else future.result()
        if isinstance(result, Failure) and not self._noticed.is_set():
            at_s = self._failing_at_s.get(number + 1, time.monotonic())
            self._failures.append((at_s, number + 1, result))
            self._failed.set()
            threading.Thread(target=self._end_blocked, name="harness-ranks", daemon=True).start()
        for events in self._events:
            if isinstance(result, Failure):
                events.put(None)

    def _end_blocked(self) -> None:
        if not self._noticed.wait(GIVE_UP_S):
            self._give_up(self._first())

    def _raise_first(self, error: Exception) -> NoReturn:
        """Raise `RankFailedError` if another process failed before the worker or was killed.

        Otherwise, raise `error`.
        """
        raised_at = self._failing_at_s.get(0, time.monotonic())
        if self._failed.wait(SETTLE_S):
            time.sleep(SETTLE_S / 4)  # another process may have been killed
        until = time.monotonic() + GIVE_UP_S
        while self._failing_at_s.keys() - {0} - {rank for _, rank, _ in self._failures} and time.monotonic() < until:
            time.sleep(0.05)  # a process that has failed is closing its session
        self._noticed.set()
        killed = any(failure.kind in ("crash", "oom") for _, _, failure in self._failures)
        if killed or any(at_s < raised_at for at_s, _, _ in self._failures):
            raise RankFailedError(self._first()) from error
        raise error

    def _first(self) -> Failure:
        """Return the first failure of a killed process. If no process was killed, return the first failure."""
        _, rank, failure = min(self._failures, key=lambda each: (each[2].kind not in ("crash", "oom"), each[0]))
        return msgspec.structs.replace(failure, message=f"rank {rank} of {self.size}: {failure.message}")


def differs_from_one_device(record: RunRecord) -> str:
    """Return the reason why the losses on several devices differ from the losses on one device.

    Return an empty string if the losses do not differ.
    """
    if record.provenance.notes.get("batch_norm") == "local":
        return "each process normalizes its part of a batch with the statistics of that part"
    return "each process draws its own dropout masks" if record.spec.recipe.dropout else ""


GROUP_NOTES = ("processes", "cores_by_process", "batch_norm", "seeds", "collectives")
"""Names of the notes that are recorded only for runs on several devices."""


def addresses(count: int) -> tuple[str, ...]:
    """Return `count` local addresses with unused ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)


def check_batches(data: PreparedData, spec: RunSpec) -> None:
    """Raise `harness.UnsupportedError` if a training batch has fewer examples than there are devices."""
    if len(data.train) < spec.devices:
        raise UnsupportedError(
            f"the training split has only {len(data.train)} examples for {spec.devices} devices; use --devices 1"
        )
