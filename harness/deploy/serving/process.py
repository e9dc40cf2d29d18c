"""Communication of the HTTP process with the model's process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec

from harness.deploy.serving.frames import Done, Frames, Ready, Work, framed
from harness.deploy.serving.model import ServeJob, Stopped, serve_model
from harness.errors import HarnessError
from harness.execute.child import call_in_child, children
from harness.execute.variables import child_environment
from harness.plugins.environments import interpreter
from harness.records import Failure

STOP_S = 5.0
"""Maximum time for the model's process to exit after its socket is closed, in seconds."""
_FRAME = msgspec.msgpack.Decoder(Done | Ready)


class ModelEndedError(HarnessError):
    """Error for requests that remained unanswered because the model's process exited."""


class ModelProcess(asyncio.Protocol):
    """A child process with the model, and the batches that the process has not answered yet.

    `on_change` is called after each answer, when the process exits, and when it does not answer within
    `Limits.batch_s`. If the process does not answer in time, no further batches can be sent, and the caller should call
    `stop`.
    """

    def __init__(self, job: ServeJob, on_change: Callable[[], None]) -> None:
        self._job, self._on_change = job, on_change
        self._frames = Frames()
        self._sent: deque[asyncio.Future[Done]] = deque()
        self._stack = contextlib.ExitStack()
        self._ended: Future[Stopped | Failure] | None = None
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[Ready] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.ready: Ready | None = None
        """First message of the process, or None if the model has not been loaded."""
        self.problem = ""
        """Reason why no batches can be sent, or an empty string."""

    @property
    def in_flight(self) -> int:
        """Number of unanswered batches."""
        return len(self._sent)

    @property
    def is_open(self) -> bool:
        """True if batches can be sent."""
        return self.ready is not None and self._transport is not None and not self._transport.is_closing()

    async def start(self) -> Ready:
        """Start the process and wait until the model is loaded. Raises `ModelEndedError` if the process fails or does
        not load the model within `Limits.load_s`."""
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        here, there = socket.socketpair()
        with there:
            spec = self._job.model.spec
            job = msgspec.structs.replace(self._job, connection=there.fileno())

            def call(lifeline: io.FileIO) -> Stopped | Failure:
                return call_in_child(
                    serve_model,
                    job,
                    timeout_s=float("inf"),
                    environment=child_environment(spec),
                    interpreter=interpreter(spec.env),
                    pass_fds=(job.connection,),
                    lifeline=lifeline,
                )

            self._ended = self._stack.enter_context(children(1))(call)
            # The child inherits its end of the pair; this process closes it only after the child has started.
            here.setblocking(False)
            await loop.create_connection(lambda: self, sock=here)
            self._ended.add_done_callback(lambda _: loop.call_soon_threadsafe(self._on_end))
            try:
                async with asyncio.timeout(self._job.limits.load_s):
                    return await self._ready
            except TimeoutError:
                self.problem = f"the model was not loaded within {self._job.limits.load_s:g} s"
                raise ModelEndedError(self.problem) from None

    def send(self, work: Work) -> asyncio.Future[Done]:
        """Send a batch, and return a future for its answers."""
        assert self._transport is not None
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._sent.append(future)
        if self._timer is None:
            self._watch()
        self._transport.write(framed(work))
        return future

    async def stop(self) -> None:
        """Close the socket, which causes the process to exit. Kill the process if it is still running after `STOP_S`
        seconds.
        """
        if self._transport is not None:
            self._transport.close()
        if self._ended is not None:
            with contextlib.suppress(Exception):  # `_on_end` reports the failure of the process
                await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._ended)), STOP_S)
        await asyncio.get_running_loop().run_in_executor(None, self._stack.close)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for content in self._frames.feed(data):
            frame = _FRAME.decode(content)
            if isinstance(frame, Ready):
                assert self._ready is not None
                self.ready = frame
                if not self._ready.done():
                    self._ready.set_result(frame)
            else:
                future = self._sent.popleft()
                self._watch()
                if not future.done():
                    future.set_result(frame)
                self._on_change()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def _watch(self) -> None:
        """Start the timeout for the oldest unanswered batch, if any."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._sent:
            self._timer = asyncio.get_running_loop().call_later(self._job.limits.batch_s, self._on_timeout)

    def _on_timeout(self) -> None:
        """Close the socket. `_on_end` reports the failure to the waiting requests when the process has been stopped."""
        self.problem = f"the model process did not answer for {self._job.limits.batch_s:g} s"
        if self._transport is not None:
            self._transport.abort()
        self._on_change()

    def _on_end(self) -> None:
        assert self._ended is not None
        raised = self._ended.exception()
        if raised is not None:  # such as OSError if the process could not be started
            reason = str(raised) or type(raised).__name__
        else:
            result = self._ended.result()
            reason = result.message if isinstance(result, Failure) else "it was stopped"
        self.problem = self.problem or f"the model process ended: {reason}"
        error = ModelEndedError(self.problem)
        waiting: list[asyncio.Future[Any]] = [*([self._ready] if self._ready is not None else []), *self._sent]
        self._sent.clear()
        self._watch()
        if self._transport is not None:
            self._transport.close()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
        self._on_change()
