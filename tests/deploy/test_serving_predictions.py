"""Tests of the HTTP interface in this process, with a service whose model is replaced."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from harness.deploy.serving import service as serving
from harness.deploy.serving.app import build
from harness.deploy.serving.batches import OverloadedError, Timed
from harness.deploy.serving.frames import Answer
from harness.deploy.serving.limits import Limits
from harness.deploy.serving.metrics import Metrics
from harness.deploy.serving.model import Prepared, answered, refused
from harness.deploy.serving.process import ModelEndedError
from harness.deploy.serving.service import Description, Service
from harness.records import DataInfo

BODY = b'{"predictions": []}'
Answering = Callable[[msgspec.Raw, int], Awaitable[Timed]]


async def at_once(part: msgspec.Raw, examples: int) -> Timed:
    return Timed(Answer(200, BODY, examples), 0.001, 0.0025, 0.5)


def failing(error: Exception) -> Answering:
    async def answer(part: msgspec.Raw, examples: int) -> Timed:
        raise error

    return answer


def application(answer: Answering = at_once, limits: Limits = Limits()) -> Any:  # noqa: B008
    description = Description(
        run="a-run",
        task="nlp",
        kind="text",
        objective="classification",
        outputs=("neg", "pos"),
        backend="torch",
        model="bert-tiny",
        device="cpu",
        threads=1,
        batch_size=32,
        max_examples=limits.request_examples,
    )
    service = SimpleNamespace(
        description=description,
        limits=limits,
        metrics=Metrics(),
        is_ready=True,
        processes=dict,
        batches=SimpleNamespace(answer=answer),
    )
    return build(service, token=None, hosts=("a",))  # type: ignore[arg-type]


async def chunks(*parts: bytes) -> AsyncIterator[dict[str, Any]]:
    for number, part in enumerate(parts, 1):
        yield {"type": "http.request", "body": part, "more_body": number < len(parts)}


async def asked(
    app: Any, body: AsyncIterator[dict[str, Any]], method: str = "POST", path: str = "/predict"
) -> tuple[int, dict[str, str], bytes]:
    """Return the status, the headers and the body of the answer to a request."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"a"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": headers, "query_string": b""}
    await app(scope, body.__anext__, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent)


def predict(app: Any, *parts: bytes) -> tuple[int, dict[str, str], bytes]:
    return asyncio.run(asked(app, chunks(*parts)))


TEXT = json.dumps({"instances": ["good"]}).encode()


def test_answer_of_the_model_is_sent_with_the_durations() -> None:
    status, headers, body = predict(application(), TEXT[:5], TEXT[5:])
    assert (status, body) == (200, BODY)
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == str(len(BODY))
    assert headers["server-timing"] == "queue;dur=1.000, prepare;dur=2.500, model;dur=500.000"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("error", "status", "words", "retry_after"),
    [
        (OverloadedError(7), 503, "the service is overloaded; try again in 7 s", "7"),
        (ModelEndedError("it ended"), 503, "the model failed while processing this request or another one", "1"),
        (TimeoutError(), 504, "there was no answer within the time limit", None),
    ],
)
def test_problem_of_the_model_is_answered_with_the_reason(
    error: Exception, status: int, words: str, retry_after: str | None
) -> None:
    found, headers, body = predict(application(failing(error)), TEXT)
    assert (found, words in json.loads(body)["detail"]) == (status, True)
    assert headers.get("retry-after") == retry_after
    assert headers.get("connection") == ("close" if status == 503 else None)


def test_bodies_of_waiting_requests_are_limited_together() -> None:
    async def main() -> None:
        released = asyncio.Event()

        async def wait(part: msgspec.Raw, examples: int) -> Timed:
            await released.wait()
            return await at_once(part, examples)

        app = application(wait, Limits(pending_bytes=2 * len(TEXT)))
        waiting = [asyncio.create_task(asked(app, chunks(TEXT))) for _ in range(2)]
        await asyncio.sleep(0)
        rejected = chunks(TEXT[:5], TEXT[5:9], TEXT[9:])
        status, headers, _ = await asked(app, rejected)
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert [message async for message in rejected] == []  # otherwise, the client would not read the answer
        released.set()
        assert [(await task)[0] for task in waiting] == [200, 200]
        assert (await asked(app, chunks(TEXT + b" " * len(TEXT))))[0] == 200  # all bodies were released

    asyncio.run(main())


def test_body_is_not_kept_while_the_request_waits() -> None:
    size, held = 2**22, []

    async def measure(part: msgspec.Raw, examples: int) -> Timed:
        held.append(tracemalloc.get_traced_memory()[0])
        return await at_once(part, examples)

    app, large = application(measure), (b'{"instances": ["', b"a" * size, b'"]}')
    tracemalloc.start()
    try:
        assert predict(app, TEXT)[0] == 200
        assert predict(app, *large)[0] == 200
    finally:
        tracemalloc.stop()
    assert size < held[1] - held[0] < 2 * size  # only the encoded examples


def test_body_that_is_too_large_is_discarded() -> None:
    limits = Limits(body_bytes=len(TEXT))
    status, headers, body = predict(application(limits=limits), TEXT, b" ")
    assert (status, headers["connection"]) == (413, "close")
    assert "send at most" in json.loads(body)["detail"]
    read = 0

    async def endless() -> AsyncIterator[dict[str, Any]]:
        nonlocal read
        while True:
            read += 1
            yield {"type": "http.request", "body": TEXT, "more_body": True}

    assert asyncio.run(asked(application(limits=limits), endless()))[0] == 413
    assert read == 5


def test_body_that_arrives_slowly_is_refused() -> None:
    async def slow() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "http.request", "body": TEXT[:5], "more_body": True}
        await asyncio.sleep(60)

    status, headers, body = asyncio.run(asked(application(limits=Limits(body_s=0.01)), slow()))
    assert (status, headers["connection"]) == (408, "close")
    assert "did not arrive within 0.01 s" in json.loads(body)["detail"]


def test_client_that_disconnects_ends_its_request() -> None:
    async def ending() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "http.request", "body": TEXT[:5], "more_body": True}
        yield {"type": "http.disconnect"}

    assert asyncio.run(asked(application(), ending()))[0] == 400


# ---- other paths -------------------------------------------------------------------------------------------


def request(method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    return asyncio.run(asked(application(), chunks(TEXT), method, path))


def test_operations_of_the_description_exist() -> None:
    status, _, body = request("GET", "/openapi.json")
    paths = json.loads(body)["paths"]
    assert status == 200
    assert {(path, *operations) for path, operations in paths.items()} == {
        ("/predict", "post"),
        ("/health", "get"),
        ("/ready", "get"),
        ("/model", "get"),
        ("/metrics", "get"),
    }
    for path, operations in paths.items():
        for method, operation in operations.items():
            status, headers, _ = request(method.upper(), path)
            described = operation["responses"][str(status)]
            assert headers["content-type"].partition(";")[0] in described["content"]


@pytest.mark.parametrize(
    ("method", "path", "status", "detail", "allow"),
    [
        ("GET", "/predict", 405, "Method Not Allowed", {"POST"}),
        ("POST", "/health", 405, "Method Not Allowed", {"GET", "HEAD"}),
        ("DELETE", "/", 405, "Method Not Allowed", {"GET", "HEAD"}),
        ("GET", "/nothing", 404, "Not Found", set()),
    ],
)
def test_unknown_path_and_method_are_refused(method: str, path: str, status: int, detail: str, allow: set[str]) -> None:
    found, headers, body = request(method, path)
    methods = set(filter(None, headers.get("allow", "").split(", ")))  # in any order
    assert (found, json.loads(body), methods) == (status, {"detail": detail}, allow)


# ---- the model's side --------------------------------------------------------------------------------------


class Constant:
    """A session that returns the given outputs, padded like the batch."""

    def __init__(self, outputs: Iterable[Any]) -> None:
        self._outputs = np.array(list(outputs), np.float32)

    def predict(self, inputs: Any) -> Any:
        return np.resize(self._outputs, (len(inputs["x"]), 2))

    def fetch(self, outputs: Any) -> Any:
        return outputs


def test_requests_of_a_batch_are_answered_separately() -> None:
    info = DataInfo(kind="text", objective="classification", outputs=2, label_names=("neg", "pos"), inputs={})
    outputs = [[1.0, 0.0], [0.0, 3.0], [np.nan, 0.0], [0.0, 0.0]]
    bad = refused(422, "no")
    work = Prepared([None, bad, None, None], [2, 1, 1], [[], [], ["odd"]], {"x": np.zeros((4, 1))}, 0.0)
    first, second, third, fourth = answered(Constant(outputs), work, Limits(), info)  # type: ignore[arg-type]
    found = msgspec.json.decode(first.body)["predictions"]
    assert [prediction["label"] for prediction in found] == ["neg", "pos"]
    assert found[1]["probabilities"]["pos"] == pytest.approx(1 / (1 + np.exp(-3)))
    assert (first.status, first.examples, second) == (200, 2, bad)
    assert (third.status, b"not finite" in third.body, third.examples) == (500, True, 0)
    assert msgspec.json.decode(fourth.body)["warnings"] == ["odd"]
    assert msgspec.json.decode(fourth.body)["predictions"][0]["probabilities"] == {"neg": 0.5, "pos": 0.5}


# ---- the start of another process --------------------------------------------------------------------------


def test_process_that_ends_while_it_is_being_started_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        """A process. The second one ends before the service notices that it has started."""

        made = 0
        ready, problem = object(), "the model process ended"

        def __init__(self, job: Any, on_change: Callable[[], None]) -> None:
            Process.made += 1
            self._number, self._on_change, self.is_open, self.in_flight = Process.made, on_change, False, 0

        async def start(self) -> Any:
            self.is_open = True
            if self._number == 2:
                self.end()

        async def stop(self) -> None:
            self.is_open = False

        def end(self) -> None:
            self.is_open = False
            self._on_change()

    async def main() -> tuple[bool, float]:
        job = SimpleNamespace(limits=Limits())
        service = Service(job, SimpleNamespace())  # type: ignore[arg-type]
        await service._process.start()
        service._process.end()  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
        restarts = service.metrics.registry.get_sample_value("harness_model_restarts_total")
        assert restarts is not None
        return service.is_ready, restarts

    monkeypatch.setattr(serving, "ModelProcess", Process)
    assert asyncio.run(main()) == (True, 2.0)
