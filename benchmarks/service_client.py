"""The load generator of `benchmarks.service`, which sends prepared requests over keep-alive connections.

The generator shares the cores of the machine with the service, so it does not use an HTTP library. Each response must
have a ``Content-Length`` header.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

TEXTS = (
    "a great film that I would see again",
    "the plot makes no sense at all, and the actors look as if they knew it",
    "not bad",
    "two hours of my life that I would like to have back",
)
END_OF_HEAD, LENGTH = b"\r\n\r\n", b"content-length: "


def texts(count: int) -> list[str]:
    """Return `count` texts."""
    return list(itertools.islice(itertools.cycle(TEXTS), count))


def requests(size: int) -> Iterator[bytes]:
    """Yield requests with `size` texts, in an endless cycle."""
    starts = range(len(TEXTS)) if size < len(TEXTS) else range(1)
    return itertools.cycle([_request(texts(start + size)[start:]) for start in starts])


def _request(instances: Sequence[str]) -> bytes:
    body = json.dumps({"instances": instances}).encode()
    head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class Load:
    """Results of sending requests."""

    latencies_s: list[float] = field(default_factory=list)
    """Latency of each request. For random arrivals, the latency includes the time that a request waits before it is
    sent."""
    failed: int = 0
    """Number of requests whose response did not have status 200."""
    seconds: float = 0.0
    """Time until the last response."""

    def add(self, latency_s: float, status: int) -> None:
        """Add the result of a request."""
        self.latencies_s.append(latency_s)
        self.failed += status != 200


class Connection(asyncio.Protocol):
    """A connection on which one request is sent at a time. `on_answer` is called with the connection, the time at which
    the request was due, and the status of the response.
    """

    def __init__(self, on_answer: Callable[[Connection, float, int], None]) -> None:
        self._on_answer = on_answer
        self._received = b""
        self._due_s = 0.0
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, request: bytes, due_s: float) -> None:
        """Send a request."""
        self._due_s = due_s
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(END_OF_HEAD)
        if end < 0:
            return
        start = self._received.index(LENGTH, 0, end) + len(LENGTH)
        length = int(self._received[start : self._received.index(b"\r", start)])
        if len(self._received) >= end + len(END_OF_HEAD) + length:
            status = int(self._received[9:12])
            self._received = b""
            self._on_answer(self, self._due_s, status)


async def closed_loop(port: int, size: int, connections: int, seconds: float) -> Load:
    """Send requests with `size` texts on each connection. Each request is sent as soon as the response to the previous
    one has arrived.
    """
    loop = asyncio.get_running_loop()
    load, content, idle, finished = Load(), requests(size), 0, loop.create_future()

    def answered(connection: Connection, due_s: float, status: int) -> None:
        nonlocal idle
        now = time.perf_counter()
        load.add(now - due_s, status)
        if now < end:
            connection.send(next(content), now)
            return
        connection.transport.close()
        idle += 1
        if idle == connections:
            finished.set_result(None)

    opened = [
        (await loop.create_connection(lambda: Connection(answered), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    start = time.perf_counter()
    end = start + seconds
    for connection in opened:
        connection.send(next(content), time.perf_counter())
    await finished
    load.seconds = time.perf_counter() - start
    return load


async def random_arrivals(port: int, rate: float, seconds: float, on_tenth: Callable[[Load], None]) -> None:
    """Send requests with one text at random times (a Poisson process), at `rate` requests per second. After each tenth
    of the duration, call `on_tenth` in another thread with the results of that tenth.
    """
    loop = asyncio.get_running_loop()
    load, content = Load(), requests(1)
    idle: deque[Connection] = deque()
    waiting: deque[float] = deque()

    def answered(connection: Connection, due_s: float, status: int) -> None:
        load.add(time.perf_counter() - due_s, status)
        if waiting:
            connection.send(next(content), waiting.popleft())
        else:
            idle.append(connection)

    for _ in range(64):
        idle.append((await loop.create_connection(lambda: Connection(answered), "127.0.0.1", port))[1])
    draw, start = random.Random(0), time.perf_counter()
    due_s = start
    for tenth in range(1, 11):
        while due_s < start + seconds * tenth / 10:
            due_s += draw.expovariate(rate)
            if (wait_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            if idle:
                idle.popleft().send(next(content), due_s)
            else:
                waiting.append(due_s)
        if tenth == 10:
            while len(idle) < 64:
                await asyncio.sleep(0.01)
        found, load = load, Load()
        await asyncio.to_thread(on_tenth, found)
    for connection in idle:
        connection.transport.close()
