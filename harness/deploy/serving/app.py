"""The HTTP interface of a service, built with FastAPI: its paths and their access control."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from harness.deploy.serving.guard import Application, Guard
from harness.deploy.serving.predictions import Predictions
from harness.deploy.serving.schema import openapi
from harness.deploy.serving.service import Service

FILES = Path(__file__).parent / "page"


def build(service: Service, *, token: bytes | None, hosts: Collection[str]) -> Application:
    """Return the application. `hosts` contains the host names that clients may use if there is no token.

    The paths are plain Starlette routes, because `Bodies` reads the bodies of requests and `openapi` describes them.
    """

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        yield
        await service.stop()

    routes: list[BaseRoute] = [
        Route("/predict", Predictions(service), methods=["POST"]),
        *_state(service),
        Route("/openapi.json", JSONResponse(openapi(service.description, service.limits)), methods=["GET"]),
        *_page(),
    ]
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=running, routes=routes)
    return Guard(app, token, hosts, service.metrics)


def _state(service: Service) -> list[Route]:
    async def ready(request: Request) -> Response:
        if service.is_ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, 503, {"retry-after": "1"})

    async def model(request: Request) -> Response:
        return Response(msgspec.json.encode(service.description), media_type="application/json")

    async def metrics(request: Request) -> Response:
        service.metrics.read_memory(service.processes())
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    health = JSONResponse({"status": "ok"})
    return [
        Route("/health", health, methods=["GET"]),
        Route("/ready", ready),
        Route("/model", model),
        Route("/metrics", metrics),
    ]


def _page() -> list[Route]:
    files = (
        ("/", "index.html", "text/html"),
        ("/page.js", "page.js", "text/javascript"),
        ("/page.css", "page.css", "text/css"),
        ("/docs", "index.html", "text/html"),
    )
    return [
        Route(path, Response((FILES / name).read_bytes(), media_type=media_type), methods=["GET"])
        for path, name, media_type in files
    ]
