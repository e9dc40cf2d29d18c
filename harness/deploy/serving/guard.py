"""Access control and metrics for all HTTP requests."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from typing import Any

from harness.deploy.serving.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Receive, Send], Awaitable[None]]

OPEN = ("/", "/docs", "/health", "/ready", "/page.js", "/page.css")
"""Paths that do not require a token."""
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        b"media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]


class Guard:
    """ASGI middleware that checks each request before passing it to the application.

    If there is a token, requests must contain the header ``Authorization: Bearer TOKEN``. Without a token, the service
    can be accessed only from this machine, and the header ``Host`` must name one of `hosts`. This prevents other
    websites from sending requests through the user's browser (DNS rebinding). Requests that another website sends
    through a browser are always rejected.
    """

    def __init__(self, app: Application, token: bytes | None, hosts: Collection[str], metrics: Metrics) -> None:
        self._app, self._token, self._hosts, self._metrics = app, token, hosts, metrics

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        try:
            problem = self._problem(scope["path"], dict(scope["headers"]))
            if problem is None:
                await self._app(scope, receive, counted)
            else:
                await _refuse(counted, *problem)
        finally:
            self._metrics.request(scope["path"], status, time.perf_counter() - start)

    def _problem(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and origin.partition("://")[2] != host:
            return 403, "requests from other websites are not allowed"
        if self._token is None:
            if _name(host) not in self._hosts:
                return 403, f"the host {host[:100]!r} is not allowed; the service accepts: {', '.join(self._hosts)}"
            return None
        if path in OPEN:
            return None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
            return None
        return 401, "the token is missing or wrong; send the header 'Authorization: Bearer TOKEN'"


def _name(host: str) -> str:
    """Return the value of the header ``Host`` without the port."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


async def _refuse(send: Send, status: int, detail: str) -> None:
    headers = [(b"connection", b"close")]  # the body of the request is not read
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    await send_json(send, status, json.dumps({"detail": detail}).encode(), headers)


async def send_json(send: Send, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Send an answer whose body is a JSON document."""
    content = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*content, *headers]})
    await send({"type": "http.response.body", "body": body})
