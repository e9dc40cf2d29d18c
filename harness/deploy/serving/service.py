"""A service: the model's process, the waiting requests and the metrics."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import msgspec
from msgspec import Struct

from harness.deploy.serving.batches import Batches
from harness.deploy.serving.metrics import Metrics
from harness.deploy.serving.model import ServeJob
from harness.deploy.serving.process import ModelProcess
from harness.errors import HarnessError
from harness.records.printing import note

MAX_WAIT_S = 30.0
"""Maximum time between two attempts to start the model's process, in seconds."""


class Column(Struct, frozen=True):
    """A feature column of a table."""

    name: str
    kind: str
    """``number``, ``date`` or ``category``."""


class Description(Struct, frozen=True, kw_only=True):
    """Description of a service, for clients."""

    run: str
    task: str
    kind: str
    """Kind of raw input: ``text``, ``table``, ``image`` or ``audio``."""
    objective: str
    outputs: tuple[str, ...]
    """Names of the classes or targets."""
    columns: tuple[Column, ...] = ()
    """Feature columns of a table."""
    backend: str
    model: str
    device: str
    threads: int
    """Number of CPU threads used by the model."""
    batch_size: int
    max_examples: int
    """Maximum number of examples per request."""


class Service:
    """A model that answers requests. If the model's process exits, it is restarted."""

    def __init__(self, job: ServeJob, description: Description) -> None:
        self.limits, self.description = job.limits, description
        self.metrics = Metrics()
        self.is_stopping = False
        self._process = ModelProcess(job, self._changed)
        self._make: Callable[[], ModelProcess] = lambda: ModelProcess(job, self._changed)
        self._restarting: asyncio.Task[None] | None = None
        self.batches = Batches(self._process, self.limits, self.metrics.batch)
        self.metrics.watch_waiting(lambda: self.batches.waiting_examples)

    @property
    def is_ready(self) -> bool:
        """True if the model is loaded and the service is not stopping."""
        return self._process.is_open and not self.is_stopping

    async def start(self) -> None:
        """Load the model. Raises `harness.HarnessError` if the model cannot be loaded."""
        ready = await self._process.start()
        self.description = msgspec.structs.replace(self.description, device=ready.device)

    async def stop(self) -> None:
        """End the model's process."""
        self.is_stopping = True
        if self._restarting is not None:
            self._restarting.cancel()
        await self._process.stop()

    def processes(self) -> dict[str, int]:
        """Return the ids of the service's processes, keyed by name."""
        ready = self._process.ready
        return {"http": os.getpid(), **({"model": ready.pid} if ready is not None and self._process.is_open else {})}

    def _changed(self) -> None:
        has_ended = self._process.ready is not None and not self._process.is_open
        # If the model has never been loaded, `start` raises an exception.
        if has_ended and not self.is_stopping and self._restarting is None:
            note(f"{self._process.problem}; it will be restarted")
            self._restarting = asyncio.get_running_loop().create_task(self._restart())
        self.batches.pump()

    async def _restart(self) -> None:
        """Start the model's process. Repeat the attempt until the process is running or the service is stopping."""
        wait_s = 0.5
        try:
            # A process can end again before this task continues, so the state of the process is checked.
            while not (self.is_stopping or self._process.is_open):
                await self._process.stop()
                self._process = self._make()
                self.batches.channel = self._process
                self.metrics.restarts.inc()
                try:
                    await self._process.start()
                except (HarnessError, OSError) as error:
                    note(f"{error}; it will be restarted in {wait_s:g} s")
                    await asyncio.sleep(wait_s)
                    wait_s = min(2 * wait_s, MAX_WAIT_S)
        finally:
            self._restarting = None
        self.batches.pump()
