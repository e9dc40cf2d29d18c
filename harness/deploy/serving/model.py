"""The model's process, which answers batches of requests."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from harness.data.batches import batch_sizes
from harness.deploy.predict import ModelJob, blank, opened_model, reader_of, transformed
from harness.deploy.predictions import names_of, probabilities
from harness.deploy.serving.frames import Answer, Done, Part, Ready, Work, framed, received
from harness.deploy.serving.limits import Limits
from harness.deploy.serving.requests import RefusedError, Requests
from harness.errors import DataError, HarnessError
from harness.execute.child import ChildContext
from harness.interfaces import Session
from harness.plugins.catalog import Catalog
from harness.records import DataInfo, Preprocessing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Inputs = dict[str, NDArray[Any]]

_WORK, _PART = msgspec.msgpack.Decoder(Work), msgspec.msgpack.Decoder(Part)


class ServeJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for the child process that serves a model."""

    model: ModelJob
    preprocessing: Preprocessing
    limits: Limits
    connection: int
    """File descriptor of the socket over which requests arrive."""


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the child process, which exits when the socket is closed at the other end."""

    answers: int


class Prepared(msgspec.Struct, frozen=True):
    """A batch of requests with examples that are ready to be computed."""

    answers: list[Answer | None]
    """Response to each rejected request, and None for each of the other requests."""
    counts: list[int]
    """Number of examples in each accepted request."""
    warnings: list[list[str]]
    inputs: dict[str, Any]
    """Prepared inputs of all accepted requests, or an empty dictionary."""
    seconds: float


def serve_model(job: ServeJob, context: ChildContext) -> Stopped:
    """Answer batches of requests until the socket is closed.

    This thread, which opened the session, computes the outputs. Another thread reads and prepares the next batch in the
    meantime.
    """
    info, limits = job.model.info, job.limits
    answers = 0
    with (
        socket.socket(fileno=job.connection) as connection,
        opened_model(job.model) as (prepared, session),
        session.inference(),
    ):
        requests = Requests(reader_of(job.preprocessing), context.directory, limits)
        preparation = Preparing(job.preprocessing, requests, prepared.catalog)
        for size in batch_sizes(limits.batch_size):
            computed(
                session, {name: np.repeat(array, size, axis=0) for name, array in blank(info).items()}, limits, info
            )
        connection.sendall(framed(Ready(prepared.device.name, os.getpid())))
        for work in _ahead(preparation, connection):
            start = time.perf_counter()
            found = answered(session, work, limits, info)
            done = Done(answers=found, prepare_s=work.seconds, compute_s=time.perf_counter() - start)
            answers += len(found)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # raised if the server has ended
                connection.sendall(framed(done))
    return Stopped(answers=answers)


def _ahead(preparation: Preparing, connection: socket.socket) -> Iterator[Prepared]:
    """Yield prepared batches. The next batch is prepared in advance."""
    ready: queue.Queue[Prepared | None] = queue.Queue(maxsize=1)

    def prepare() -> None:
        try:
            for content in received(connection):
                ready.put(preparation.prepared([_PART.decode(part) for part in _WORK.decode(content).parts]))
        finally:
            ready.put(None)

    threading.Thread(target=prepare, name="harness-prepare", daemon=True).start()
    while (work := ready.get()) is not None:
        yield work


class Preparing:
    """Preparation of requests in batches, with the preprocessing fitted to the training data."""

    def __init__(self, preprocessing: Preprocessing, requests: Requests, catalog: Catalog) -> None:
        self._preprocessing, self._requests, self._catalog = preprocessing, requests, catalog

    def prepared(self, parts: Sequence[Part]) -> Prepared:
        """Read and prepare the examples of all requests. Requests with invalid examples are rejected individually."""
        start = time.perf_counter()
        answers: list[Answer | None] = [None] * len(parts)
        warnings: list[list[str]] = [[] for _ in parts]
        raw: dict[int, Inputs] = {}
        texts = None
        with contextlib.suppress(Exception):  # find the request that causes the problem below
            texts = self._requests.read_texts(parts)
        if texts is not None:
            raw = dict(enumerate(texts))
        else:
            for number, part in enumerate(parts):
                try:
                    raw[number], warnings[number] = self._requests.read(part)
                except Exception as error:
                    answers[number] = refusal(error)
        inputs, failed = self._transformed(raw)
        for number, answer in failed.items():
            answers[number] = answer
        counts = [len(next(iter(found.values()))) for number, found in raw.items() if number not in failed]
        kept = [noted for noted, answer in zip(warnings, answers, strict=True) if answer is None]
        return Prepared(answers, counts, kept, inputs, time.perf_counter() - start)

    def _transformed(self, raw: Mapping[int, Inputs]) -> tuple[Inputs, dict[int, Answer]]:
        """Return the prepared inputs, and error responses for the requests whose examples cannot be prepared."""
        if not raw:
            return {}, {}
        with contextlib.suppress(Exception):  # find the request that causes the problem below
            return self._together(list(raw.values())), {}
        single: list[Inputs] = []
        failed: dict[int, Answer] = {}
        for number, inputs in raw.items():
            try:
                single.append(self._together([inputs]))
            except Exception as error:
                failed[number] = refusal(error)
        return _joined(single) if single else {}, failed

    def _together(self, raw: Sequence[Inputs]) -> Inputs:
        return transformed(self._preprocessing, _joined(raw), self._catalog)


def _joined(inputs: Sequence[Inputs]) -> Inputs:
    if len(inputs) == 1:
        return inputs[0]
    return {name: np.concatenate([found[name] for found in inputs]) for name in inputs[0]}


def answered(session: Session, work: Prepared, limits: Limits, info: DataInfo) -> list[Answer]:
    """Return the answers to a batch of requests, in the order of the requests."""
    if not work.inputs:
        return [answer for answer in work.answers if answer is not None]
    outputs = computed(session, work.inputs, limits, info)
    is_finite = np.isfinite(outputs).all(axis=1)
    # The probabilities of the whole batch are computed at once. Requests with outputs that are not finite are refused.
    found = predictions(np.where(is_finite[:, None], outputs, 0.0), info)
    answers: list[Answer] = []
    accepted, end = iter(zip(work.counts, work.warnings, strict=True)), 0
    for answer in work.answers:
        if answer is None:
            count, warnings = next(accepted)
            start, end = end, end + count
            answer = _answer(found[start:end], warnings, is_finite=bool(is_finite[start:end].all()))
        answers.append(answer)
    return answers


def computed(session: Session, inputs: Inputs, limits: Limits, info: DataInfo) -> NDArray[Any]:
    """Return the outputs ``[N, outputs]``. The outputs are computed in batches of the sizes in `batch_sizes`.

    Only a few sizes are used, because some frameworks compile the model for each size. Batches are padded with copies
    of their last example.
    """
    count = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, count, limits.batch_size):
        part = {name: array[start : start + limits.batch_size] for name, array in inputs.items()}
        length = min(limits.batch_size, count - start)
        missing = next(size for size in batch_sizes(limits.batch_size) if size >= length) - length
        if missing:
            part = {
                name: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for name, array in part.items()
            }
        parts.append(session.fetch(session.predict(part))[:length])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _answer(found: Sequence[Mapping[str, Any]], warnings: Sequence[str], *, is_finite: bool) -> Answer:
    if not is_finite:
        return refused(500, "the model's outputs for these examples are not finite")
    body: dict[str, Any] = {"predictions": found}
    if warnings:
        body["warnings"] = warnings
    return Answer(status=200, body=msgspec.json.encode(body), examples=len(found))


def predictions(outputs: NDArray[Any], info: DataInfo) -> list[dict[str, Any]]:
    """Return the predictions as JSON values. Each prediction contains the label and the probabilities, or the values in
    the targets' units.
    """
    names = names_of(info)
    if info.objective == "regression":
        return [{"values": dict(zip(names, row, strict=True))} for row in info.in_target_unit(outputs).tolist()]
    return [
        {"label": names[best], "probabilities": dict(zip(names, row, strict=True))}
        for best, row in zip(outputs.argmax(axis=1).tolist(), probabilities(outputs).tolist(), strict=True)
    ]


def refusal(error: Exception) -> Answer:
    """Return the answer to a request whose examples cannot be used. Unexpected exceptions are logged."""
    if isinstance(error, RefusedError):
        return refused(error.status, error.detail, error.errors)
    if isinstance(error, DataError):
        return refused(422, str(error))
    traceback.print_exception(error, file=sys.stderr)
    reason = str(error) if isinstance(error, HarnessError) else type(error).__name__
    return refused(500, f"the examples could not be prepared: {reason}")


def refused(status: int, detail: str, errors: Sequence[Mapping[str, Any]] = ()) -> Answer:
    body = {"detail": detail, **({"errors": errors} if errors else {})}
    return Answer(status=status, body=msgspec.json.encode(body))
