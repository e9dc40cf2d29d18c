"""The HTTP server, which runs until a signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from msgspec.structs import replace
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from harness.deploy.predict import ModelJob, model_job, reader_of, stored_preprocessing
from harness.deploy.serving.app import build
from harness.deploy.serving.limits import Limits
from harness.deploy.serving.model import ServeJob
from harness.deploy.serving.service import Column, Description, Service
from harness.errors import UsageError
from harness.plan.exporter import ExportedRun
from harness.plan.weights import stored_run
from harness.plugins.catalog import Catalog
from harness.records import Preprocessing
from harness.records.store import StoredRun

TOKEN = "HARNESS_SERVE_TOKEN"
"""Environment variable that contains the token."""
BACKLOG = 1024
"""Maximum number of connections waiting to be accepted."""
MIN_TOKEN = 16
"""Minimum length of a token, in characters."""


def token_from(file: Path | None) -> bytes | None:
    """Return the token from a file or, by default, from the environment variable `TOKEN`. Return None if there is no
    token.

    Raises `harness.UsageError` if the token is too short, or if the file cannot be read.
    """
    if file is None:
        text, where = os.environ.get(TOKEN), TOKEN
        if text is None:
            return None
    else:
        where = str(file)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "the file is not encoded as UTF-8"
            raise UsageError(f"{file}: the token cannot be read: {reason}") from None
    token = text.strip()
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{where}: the token must have at least {MIN_TOKEN} printable ASCII characters without spaces; create one "
            "with: python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token.encode()


def check_address(host: str, token: bytes | None) -> None:
    """Raise `harness.UsageError` if the service would be reachable from other machines without a token."""
    if token is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} makes the service available to other machines, which requires a token; set {TOKEN}, or "
            "pass --token-file FILE"
        )


def is_loopback(host: str) -> bool:
    """Return whether an address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def service_of(
    source: StoredRun | ExportedRun,
    catalog: Catalog,
    limits: Limits,
    *,
    backend: str | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> Service:
    """Return a service for the trained model of a run, or for an exported model.

    By default, the model uses as many CPU threads as the run.

    Raises `harness.UsageError` if the run has no saved weights or preprocessing, or if its data are of a kind that
    cannot be sent to a service.
    """
    run = stored_run(source)
    preprocessing = stored_preprocessing(run)
    model = model_job(source, catalog, preprocessing.info, backend=backend, device=device)
    if threads is not None:
        model = replace(model, spec=replace(model.spec, threads=threads))
    job = ServeJob(model=model, preprocessing=preprocessing, limits=limits, connection=-1)
    return Service(job, _description(run, preprocessing, model, limits))


def _description(run: StoredRun, preprocessing: Preprocessing, model: ModelJob, limits: Limits) -> Description:
    from harness.deploy.predictions import names_of

    reader = reader_of(preprocessing)
    dates, categories = preprocessing.reading.get("dates", {}), preprocessing.reading.get("categories", ())
    columns = () if reader.kind != "table" else reader.columns
    return Description(
        run=run.record.run_id,
        task=preprocessing.task,
        kind=reader.kind,
        objective=preprocessing.info.objective,
        outputs=names_of(preprocessing.info),
        columns=tuple(
            Column(name, "date" if name in dates else "category" if name in categories else "number")
            for name in columns
        ),
        backend=model.spec.backend,
        model=model.spec.model,
        device=model.spec.device,
        threads=model.spec.threads,
        batch_size=limits.batch_size,
        max_examples=limits.request_examples,
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address. Raises `harness.UsageError` if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm, which would delay answers by 40 ms, only if the protocol is explicit.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host.strip("[]"), port))
    except OSError as error:
        bound.close()
        is_address = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        advice = "check the address (--host)" if is_address else "choose another port (--port)"
        raise UsageError(f"cannot listen on {host}, port {port}: {error.strerror}; {advice}") from None
    return bound


def run(
    service: Service,
    bound: socket.socket,
    *,
    token: bytes | None,
    hosts: Collection[str],
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Load the model, and answer requests until SIGINT or SIGTERM is received. After the signal, requests that have
    already arrived are still answered.
    """
    config = uvicorn.Config(
        build(service, token=token, hosts=hosts),
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=round(service.limits.drain_s),
        timeout_keep_alive=60,
        backlog=BACKLOG,
    )
    config.limits = service.limits  # type: ignore[attr-defined]
    # The loop is that of uvloop, if it is installed. It is faster than the loop of asyncio.
    with _quiet_signals(), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_run(service, uvicorn.Server(config), bound, on_ready))


async def _run(service: Service, server: uvicorn.Server, bound: socket.socket, on_ready: Callable[[], None]) -> None:
    with server.capture_signals():
        try:
            if await _loaded(service, server):
                bound.listen(BACKLOG)  # connections are refused until the model is loaded
                on_ready()
                await server._serve(sockets=[bound])
        finally:
            await service.stop()


async def _loaded(service: Service, server: uvicorn.Server) -> bool:
    """Load the model. Return False if SIGINT or SIGTERM is received before the model is loaded."""
    loading = asyncio.create_task(service.start())
    while not server.should_exit:
        done, _ = await asyncio.wait([loading], timeout=0.1)
        if done:
            await loading
            return True
    loading.cancel()
    await asyncio.wait([loading])
    return False


@contextlib.contextmanager
def _quiet_signals() -> Iterator[None]:
    """Ignore the signals that uvicorn raises again after handling them, so that the process exits normally."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Connection(HttpToolsProtocol):
    """An HTTP connection with limits. The connection is closed if there are too many connections, if the head of a
    request is too long or does not arrive in time, or if the client does not receive its answer.

    The uvicorn server limits only the time between two requests. Clients that send nothing, send very slowly or do not
    read their answer could therefore keep their connections open forever. The connection limit of uvicorn is not used,
    because idle connections would exhaust the limit and cause status 503 for all requests. The length of the request
    head is checked here, because httptools does not limit it.
    """

    _timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    """Number of received bytes of a request head that is still incomplete."""
    _write_timer: asyncio.TimerHandle | None = None

    @property
    def _limits(self) -> Limits:
        return self.config.limits  # type: ignore[attr-defined, no-any-return]

    def connection_made(self, transport: Any) -> None:
        """Start the timeout for the first request. Abort the connection if there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            transport.abort()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Start or stop the timeout, depending on whether the head of a request is complete. Abort the connection if
        the head is too long.
        """
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._is_waiting else 0
        if self._head_bytes > self._limits.header_bytes:
            self.transport.abort()
        self._watch()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a complete request even if the client has closed its sending side, and then close the connection."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timeouts."""
        super().connection_lost(exc)
        self._stop()
        self._stop_writing()

    def pause_writing(self) -> None:
        """Start the timeout for receiving the answer."""
        super().pause_writing()
        self._stop_writing()
        self._write_timer = self.loop.call_later(self._limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timeout for receiving the answer."""
        super().resume_writing()
        self._stop_writing()

    def _stop_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    @property
    def _is_waiting(self) -> bool:
        """True if no request is being answered. Received bytes then belong to the head of the next request."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if not self._is_waiting:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(self._limits.header_s, self._expired)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expired(self) -> None:
        self._timer = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


def address(bound: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def allowed_hosts(host: str) -> tuple[str, ...]:
    """Return the values that a service on this machine allows in the header ``Host``, without the port."""
    return tuple(dict.fromkeys(["127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host]))
