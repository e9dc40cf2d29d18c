"""Grouping of waiting requests into batches."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from harness.deploy.serving.frames import Answer, Done, Work
from harness.deploy.serving.limits import Limits
from harness.errors import HarnessError

MAX_IN_FLIGHT = 2
"""Maximum number of batches sent to the model before it has answered the first one. One batch is prepared while
another one is computed."""


class Channel(Protocol):
    """The part of `harness.deploy.serving.process.ModelProcess` that this module uses."""

    @property
    def in_flight(self) -> int: ...

    @property
    def is_open(self) -> bool: ...

    def send(self, work: Work) -> asyncio.Future[Done]: ...


class OverloadedError(HarnessError):
    """Error for a request that was rejected because too many examples are waiting."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the service is overloaded; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Timed:
    """An answer, and the durations of the stages of its computation, in seconds."""

    answer: Answer
    queue_s: float
    """Time that the request waited before it was sent to the model."""
    prepare_s: float
    """Time spent preparing the batch that contains the request."""
    compute_s: float
    """Time spent computing the batch that contains the request."""


@dataclass(eq=False)
class Waiting:
    """A request that is waiting to be sent to the model."""

    part: msgspec.Raw
    examples: int
    arrived_s: float
    answer: asyncio.Future[Timed]


class Batches:
    """Waiting requests, which are sent to the model in batches in their order of arrival.

    A request is sent immediately if the model is not busy. If the model is busy, a batch is sent when it is full, or
    when the model has answered all previous batches. Batches are therefore larger under load. If incomplete batches
    were sent while the model was busy, small and large batches would alternate, because the clients of one batch send
    their next requests while another batch is computed. `on_batch` is called with the number of examples of each batch.
    """

    def __init__(self, channel: Channel, limits: Limits, on_batch: Callable[[int], None] = lambda examples: None):
        self.channel, self._limits, self._on_batch = channel, limits, on_batch
        self._waiting: deque[Waiting] = deque()
        self.waiting_examples = 0
        """Number of examples that have not yet been sent to the model."""
        self._rate = 0.0
        """Recent rate of computation, in examples per second."""

    async def answer(self, part: msgspec.Raw, examples: int) -> Timed:
        """Return the answer to a request. Raises `OverloadedError` if too many examples are waiting, and `TimeoutError`
        if there is no answer within `Limits.answer_s`.
        """
        if self._waiting and self.waiting_examples + examples > self._limits.waiting_examples:
            raise OverloadedError(self._retry_after_s())
        loop = asyncio.get_running_loop()
        request = Waiting(part, examples, time.perf_counter(), loop.create_future())
        self._waiting.append(request)
        self.waiting_examples += examples
        timer = loop.call_later(self._limits.answer_s, self._expire, request)
        try:
            self.pump()
            return await request.answer
        finally:
            timer.cancel()
            if request.answer.cancelled():
                self._drop(request)

    def _expire(self, request: Waiting) -> None:
        """Raise `TimeoutError` in the request's call to `answer`."""
        if not request.answer.done():
            request.answer.set_exception(TimeoutError())
            self._drop(request)

    def _drop(self, request: Waiting) -> None:
        """Remove a request from the queue, unless it has been sent to the model."""
        if request in self._waiting:
            self._waiting.remove(request)
            self.waiting_examples -= request.examples

    def pump(self) -> None:
        """Send waiting requests to the model if it accepts another batch."""
        while self._waiting and self.channel.is_open and self._is_due():
            if batch := self._take():
                self._send(batch)

    def _is_due(self) -> bool:
        """Return True if another batch should be sent now."""
        is_full = self.waiting_examples >= self._limits.batch_size
        return self.channel.in_flight < (MAX_IN_FLIGHT if is_full else 1)

    def _take(self) -> list[Waiting]:
        """Remove the first requests from the queue, and return them as a batch. A batch has at most `Limits.batch_size`
        examples, unless a single request has more. Requests whose clients are no longer waiting are dropped."""
        batch: list[Waiting] = []
        total = 0
        while self._waiting and (not batch or total + self._waiting[0].examples <= self._limits.batch_size):
            request = self._waiting.popleft()
            self.waiting_examples -= request.examples
            if not request.answer.done():
                batch.append(request)
                total += request.examples
        return batch

    def _send(self, batch: list[Waiting]) -> None:
        sent_s = time.perf_counter()
        future = self.channel.send(Work([request.part for request in batch]))
        future.add_done_callback(lambda done: self._settle(batch, sent_s, done))

    def _settle(self, batch: list[Waiting], sent_s: float, done: asyncio.Future[Done]) -> None:
        error = done.exception()
        if error is not None:
            for request in batch:
                if not request.answer.done():
                    request.answer.set_exception(error)
            return
        result = done.result()
        examples = sum(answer.examples for answer in result.answers)
        if examples:  # otherwise, all requests were rejected
            self._on_batch(examples)
            rate = examples / max(1e-6, time.perf_counter() - sent_s)
            self._rate = 0.9 * self._rate + 0.1 * rate if self._rate else rate
        for request, answer in zip(batch, result.answers, strict=True):
            if not request.answer.done():
                queued_s = sent_s - request.arrived_s
                request.answer.set_result(Timed(answer, queued_s, result.prepare_s, result.compute_s))

    def _retry_after_s(self) -> int:
        """Return the estimated time until all waiting examples are computed, in whole seconds."""
        return max(1, math.ceil(self.waiting_examples / self._rate)) if self._rate else 1
