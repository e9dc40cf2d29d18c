"""Additional processes that train a model on several devices together with the worker; see `harness.execute.ranks`.

Each process executes commands that the worker sends through a pipe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from harness.execute.child import ChildContext
from harness.execute.cores import use_cores
from harness.interfaces import DeviceGroup
from harness.records import DeviceMemory, PluginRef, RunSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.execute.preparation import Preparation
    from harness.interfaces import Batch, PreparedData, Session

QUEUED_STEPS = 16
"""Maximum number of steps that a process other than the worker may queue on its device."""
COMMAND = struct.Struct("<BIId")
"""Format of a command, which consists of its kind, the epoch, the index of the batch, and the learning rate."""
STEP, CHECK = range(2)


class RankJob(Struct, frozen=True, kw_only=True):
    """Job for a process other than the worker."""

    spec: RunSpec
    """Specification of the run, with the device of this process."""
    plugins: tuple[PluginRef, ...]
    group: DeviceGroup
    cores: tuple[int, ...]
    """Cores that the process may use. An empty tuple selects the cores of the worker."""
    commands: int
    """File descriptor from which the process reads commands."""


class RankReady(Struct, frozen=True, tag="ready"):
    """Event that a process sends when it has prepared the data and the initial weights."""

    pid: int
    dataset_digest: str
    weights_digest: str


class RankChecked(Struct, frozen=True, tag="checked"):
    """Event that contains a digest of a process's trainable weights."""

    weights_digest: str


class RankFailing(Struct, frozen=True, tag="failing"):
    """Event that a process sends when it has raised an exception and is about to exit."""

    at_s: float
    """Time of the exception on the system's monotonic clock, which all processes share."""


class RankEnd(Struct, frozen=True, kw_only=True):
    """The result of a process other than the worker."""

    host_peak_bytes: int
    """Peak resident memory since the last reset."""
    device_memory: DeviceMemory | None


def seed_of(seed: int, rank: int) -> int:
    """Return the random seed of a process's session, which is used for dropout masks, for example.

    The worker uses the seed of the run. The seeds of other processes are derived from the run's seed with numpy's
    `SeedSequence`.
    """
    import numpy as np

    return seed if rank == 0 else int(np.random.SeedSequence([seed, rank]).generate_state(1)[0])


def in_group(prepared: Preparation, group: DeviceGroup) -> Preparation:
    """Return a copy of `prepared` for a session in `group`."""
    request = dataclasses.replace(prepared.request, group=group, seed=seed_of(prepared.spec.seed, group.rank))
    return dataclasses.replace(prepared, request=request)


def follow(job: RankJob, context: ChildContext) -> RankEnd:
    """Train in a process other than the worker, as directed by the worker."""
    from harness.execute.preparation import prepare

    os.set_inheritable(job.commands, False)
    use_cores(job.cores)
    prepared = in_group(prepare(job.spec, job.plugins), job.group)
    try:
        with _reported(context):
            return _train(prepared, job, context)
    except Exception as error:
        if prepared.backend.is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise


def _train(prepared: Preparation, job: RankJob, context: ChildContext) -> RankEnd:
    from harness.execute.preparation import opened_session, starting_weights
    from harness.measure.memory import peak_bytes
    from harness.records.arrays import digest

    weights, _ = starting_weights(prepared)
    context.send(RankReady(os.getpid(), prepared.data.digest, digest(weights)))
    with opened_session(prepared, weights) as session, _reported(context):
        steps = Steps(session, prepared.data, job.spec, job.group)
        for kind, epoch, index, rate in _commands(job.commands):
            if kind == STEP:
                steps.step(epoch, index, rate)
            else:
                context.send(RankChecked(trained_digest(session.get_weights(), prepared)))
        session.synchronize()
        return RankEnd(host_peak_bytes=peak_bytes(), device_memory=session.device_memory())


@contextlib.contextmanager
def _reported(context: ChildContext) -> Iterator[None]:
    """Report the time of an exception to the worker."""
    try:
        yield
    except Exception:
        context.send(RankFailing(time.monotonic()))
        raise


class Steps:
    """The training steps of a process other than the worker."""

    def __init__(self, session: Session, data: PreparedData, spec: RunSpec, group: DeviceGroup) -> None:
        self._session, self._data, self._spec, self._group = session, data, spec, group
        self._epoch = 0
        self._batches: Iterator[Batch] = iter(())
        self._next = 0
        self._queued: list[Any] = []

    def step(self, epoch: int, index: int, learning_rate: float) -> None:
        """Execute the training step on batch number `index` of an epoch."""
        from harness.data.batches import Part, training_batches

        data, spec = self._data, self._spec
        if epoch != self._epoch or index < self._next:
            self._epoch, self._next = epoch, 0
            part = Part(self._group.rank, self._group.size)
            self._batches = training_batches(data.train, spec.recipe.batch_size, spec.seed, epoch, data.augment, part)
        for _ in range(index - self._next):
            next(self._batches)
        handle = self._session.train_step(next(self._batches), learning_rate)
        self._next = index + 1
        self._queued.append(handle)
        if len(self._queued) == QUEUED_STEPS:
            for each in self._queued:
                self._session.fetch(each)
            self._queued.clear()


def _commands(descriptor: int) -> Iterator[tuple[int, int, int, float]]:
    with open(descriptor, "rb") as file:
        while len(data := file.read(COMMAND.size)) == COMMAND.size:
            yield COMMAND.unpack(data)


def trained_digest(weights: Mapping[str, Any], prepared: Preparation) -> str:
    """Return a digest of the trainable weights.

    Running statistics are not included, because they differ between processes.
    """
    from harness.records.arrays import digest

    trained = {parameter.name for parameter in prepared.request.parameters if parameter.trainable}
    return digest({name: array for name, array in weights.items() if name in trained})
