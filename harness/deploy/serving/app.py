"""The HTTP interface of a service, built with FastAPI."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import ClientDisconnect

from harness.deploy.serving import schema
from harness.deploy.serving.batches import OverloadedError, Timed
from harness.deploy.serving.bodies import Bodies
from harness.deploy.serving.guard import Application, Guard
from harness.deploy.serving.process import ModelEndedError
from harness.deploy.serving.requests import RefusedError
from harness.deploy.serving.service import Service

FILES = Path(__file__).parent / "page"


def build(service: Service, *, token: bytes | None, hosts: Collection[str]) -> Application:
    """Return the application. `hosts` contains the host names that clients may use if there is no token."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.stop()

    app = FastAPI(
        title=f"{service.description.task}: {service.description.model}",
        description=f"Predictions of the model that run {service.description.run} trained.",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=running,
    )
    _add_predict(app, service)
    _add_state(app, service)
    _add_page(app)
    _add_errors(app)
    return Guard(app, token, hosts, service.metrics)


def _add_predict(app: FastAPI, service: Service) -> None:
    bodies = Bodies(service.description.kind, service.limits)

    @app.post(
        "/predict",
        summary="Predict examples",
        responses=schema.predict_responses(service.description),
        openapi_extra=schema.predict_request(service.description, service.limits),
    )
    async def predict(request: Request) -> Response:
        """Return a prediction for each example, in the same order."""
        async with bodies.part(request) as (part, examples):
            found = await service.batches.answer(part, examples)
        answer = found.answer
        return Response(answer.body, answer.status, {"server-timing": _timing(found)}, "application/json")


def _timing(found: Timed) -> str:
    """Return the durations, in milliseconds, in the format of the header ``Server-Timing`` (W3C)."""
    parts = {"queue": found.queue_s, "prepare": found.prepare_s, "model": found.compute_s}
    return ", ".join(f"{name};dur={1e3 * seconds:.3f}" for name, seconds in parts.items())


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health", summary="Check that the server runs", responses=schema.STATUS)
    async def health() -> Response:
        """Return status 200 while the HTTP server runs."""
        return JSONResponse({"status": "ok"})

    @app.get("/ready", summary="Check that the model is loaded", responses=schema.READY)
    async def ready() -> Response:
        """Return status 200 if predictions can be requested, and 503 otherwise."""
        if service.is_ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, 503, {"retry-after": "1"})

    @app.get("/model", summary="Describe the model", responses=schema.MODEL)
    async def model() -> Response:
        """Return the run, the kind of input, the names of the outputs and the limits."""
        return Response(msgspec.json.encode(service.description), media_type="application/json")

    @app.get("/metrics", summary="Metrics for Prometheus", responses=schema.METRICS)
    async def metrics() -> Response:
        """Return the metrics in the text format of Prometheus."""
        service.metrics.read_memory(service.processes())
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI) -> None:
    for path, name, media_type in (
        ("/", "index.html", "text/html"),
        ("/page.js", "page.js", "text/javascript"),
        ("/page.css", "page.css", "text/css"),
        ("/docs", "index.html", "text/html"),
    ):
        app.add_route(path, _static((FILES / name).read_bytes(), media_type), include_in_schema=False)


def _static(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


def _add_errors(app: FastAPI) -> None:
    def problem(status: int, detail: str, retry_after_s: float | None = None, **more: Any) -> Response:
        headers = {} if retry_after_s is None else {"retry-after": str(math.ceil(retry_after_s))}
        if status in (408, 413, 503):
            headers["connection"] = "close"  # the body may not have been read
        return JSONResponse({"detail": detail, **more}, status, headers)

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        more = {"errors": error.errors} if error.errors else {}
        return problem(error.status, error.detail, 1 if error.status == 503 else None, **more)

    @app.exception_handler(OverloadedError)
    async def overloaded(request: Request, error: OverloadedError) -> Response:
        return problem(503, str(error), error.retry_after_s)

    @app.exception_handler(ModelEndedError)
    async def ended(request: Request, error: ModelEndedError) -> Response:
        return problem(503, "the model failed while it computed this or another request; try again", 1)

    @app.exception_handler(TimeoutError)
    async def late(request: Request, error: TimeoutError) -> Response:
        return problem(504, "there was no answer within the time limit; send fewer examples, or try again later")

    @app.exception_handler(ClientDisconnect)
    async def disconnected(request: Request, error: ClientDisconnect) -> Response:
        return problem(400, "the client closed the connection")
