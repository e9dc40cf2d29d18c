"""Tests of the limits on connections, with a small application in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from harness.deploy.serving.limits import Limits
from harness.deploy.serving.server import Connection

CONTENT = b"a" * 2**24


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    content = CONTENT if scope["path"] == "/large" else b"a"
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(content)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": content})


Clients = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


def served(limits: Limits, count: int, scenario: Callable[[Clients], Awaitable[None]]) -> None:
    """Run a server, and pass `count` connections to the scenario."""

    async def main() -> None:
        config = uvicorn.Config(application, http=Connection, ws="none", log_config=None)
        config.limits = limits  # type: ignore[attr-defined]
        config.load()
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
        try:
            async with asyncio.timeout(10):
                await scenario(clients)
        finally:
            for _, writer in clients:
                writer.close()
            server.close()

    # The loop is that of the server: uvloop, if it is installed.
    factory = uvicorn.Config(application).get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


async def status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    return await reader.readline()


async def ended(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def test_connections_above_the_limit_are_closed_and_the_others_are_served() -> None:
    async def scenario(clients: Clients) -> None:
        assert await ended(clients[2][0]) == b""
        for reader, writer in clients[:2]:
            assert await status(reader, writer) == b"HTTP/1.1 200 OK\r\n"

    served(Limits(connections=2), 3, scenario)


def test_connection_of_a_client_that_does_not_read_is_closed() -> None:
    async def scenario(clients: Clients) -> None:
        reader, writer = clients[0]
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.3)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await ended(reader)) < len(CONTENT)

    served(Limits(write_s=0.1), 1, scenario)


def test_client_that_reads_receives_a_large_answer() -> None:
    async def scenario(clients: Clients) -> None:
        reader, writer = clients[0]
        writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(CONTENT)

    served(Limits(write_s=5.0), 1, scenario)


def test_connection_with_a_head_that_does_not_end_is_closed() -> None:
    async def scenario(clients: Clients) -> None:
        reader, writer = clients[0]
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        for _ in range(64):
            if not writer.is_closing():
                writer.write(b"a" * 2**14)
            await asyncio.sleep(0.001)
        assert await ended(reader) == b""

    served(Limits(header_bytes=2**16), 1, scenario)


def test_connection_answers_requests_in_order_when_they_arrive_in_one_segment() -> None:
    async def scenario(clients: Clients) -> None:
        reader, writer = clients[0]
        request = b"GET / HTTP/1.1\r\nHost: a\r\n"
        writer.write((request + b"\r\n") * 50 + request + b"Connection: close\r\n\r\n")
        assert (await reader.read()).count(b"HTTP/1.1 200 OK\r\n") == 51

    served(Limits(header_bytes=2**10), 1, scenario)


def test_client_that_closed_its_sending_side_receives_its_answer_and_the_connection_is_closed() -> None:
    async def scenario(clients: Clients) -> None:
        for reader, writer in clients:
            writer.write(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
            writer.write_eof()
            content = await reader.read()  # until the server closes the connection
            assert content.startswith(b"HTTP/1.1 200 ")
            assert content.endswith(b"\r\n\r\na")

    served(Limits(), 2, scenario)


def test_connection_is_closed_with_an_incomplete_request_or_none() -> None:
    async def scenario(clients: Clients) -> None:
        for sent, (reader, writer) in zip((b"", b"GET / HTTP/1.1\r\nho"), clients, strict=True):
            writer.write(sent)
            writer.write_eof()
            assert await reader.read() == b""

    served(Limits(), 2, scenario)
