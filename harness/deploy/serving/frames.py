"""Messages exchanged between the HTTP process and the model process over a pair of sockets.

Each message is a frame. A frame consists of the length of the content in four bytes (big-endian), followed by the
content in MessagePack.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

HEADER = struct.Struct(">I")


class File(Struct, frozen=True, array_like=True):
    """An uploaded file."""

    name: str
    """Name for messages. The suffix determines the format of tables."""
    content: bytes


class Part(Struct, frozen=True, array_like=True):
    """Examples of one request: instances from JSON, or uploaded files."""

    instances: list[Any] = []
    """Texts, or objects that map column names to values."""
    files: list[File] = []


class Work(Struct, frozen=True, array_like=True):
    """A batch of requests."""

    parts: list[msgspec.Raw]
    """Encoded `Part` of each request. Parts are encoded as they arrive, so a value that cannot be encoded affects only
    its own request.
    """


class Answer(Struct, frozen=True, array_like=True):
    """The answer to one request."""

    status: int
    """HTTP status."""
    body: bytes
    """JSON document."""
    examples: int = 0
    """Number of examples that were computed."""


class Done(Struct, frozen=True, array_like=True, tag=True):
    """The answers to a batch of requests, in the order of the requests."""

    answers: list[Answer]
    prepare_s: float
    """Time spent reading and preparing the examples, in seconds."""
    compute_s: float
    """Time spent computing the outputs, in seconds."""


class Ready(Struct, frozen=True, array_like=True, tag=True):
    """The first message from the model process."""

    device: str
    pid: int


def framed(message: Struct) -> bytes:
    """Return a message as a frame."""
    content = msgspec.msgpack.encode(message)
    return HEADER.pack(len(content)) + content


class Frames:
    """A splitter that returns the contents of complete frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Add received data, and yield the content of each complete frame."""
        self._data += data
        while len(self._data) >= HEADER.size:
            (size,) = HEADER.unpack_from(self._data)
            end = HEADER.size + size
            if len(self._data) < end:
                return
            content = bytes(memoryview(self._data)[HEADER.size : end])
            del self._data[:end]
            yield content


def received(connection: socket.socket) -> Iterator[bytes]:
    """Yield the content of each frame from a blocking socket until the other end is closed."""
    # A buffer is reused, because `recv` would allocate a large object each time and shrink it to the size of the data.
    # The small remainders fragment the heap, and the memory of a process would grow with the number of messages.
    frames, buffer = Frames(), memoryview(bytearray(1 << 20))
    while size := connection.recv_into(buffer):
        yield from frames.feed(buffer[:size])
