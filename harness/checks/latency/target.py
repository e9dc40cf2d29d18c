"""Client for services that answer queries over HTTP. The client stores the answers received during a measurement."""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from harness.errors import HarnessError, UsageError
from harness.records import DataInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIMEOUT_S = 10.0
"""Default time limit for a query, in seconds."""
CHECK_S = 0.05
"""Time between two checks of the time limits, in seconds."""
MIN_FAILED = 32
"""Minimum number of failed queries required to stop a measurement."""
UNANSWERED, FAILED = 0.1, 0.5
"""A measurement is stopped if the fraction of queries that exceed the time limit is above the first value, or if the
fraction of queries that fail for any reason is above the second value."""
IDLE_S = 30.0
"""Time after which an unused connection is reopened, in seconds. Servers close idle connections, so the next query on
such a connection would fail."""
CONNECTIONS = 64
"""Number of connections, each with a separate thread. The service therefore receives at most 64 queries at the same
time. Further queries wait in this process, and their waiting time counts toward their latency."""


@dataclass(frozen=True)
class Target:
    """Address of a service."""

    url: str
    """URL of the server, such as ``http://127.0.0.1:8000``."""
    token: str = ""
    timeout_s: float = TIMEOUT_S
    """Time limit for a query, in seconds."""

    @classmethod
    def with_token(cls, url: str, timeout_s: float | None = None) -> Target:
        """Return a target that uses the token in ``HARNESS_SERVE_TOKEN``.

        Child processes inherit this environment variable, so the token is never written to a file.
        """
        return cls(url, os.environ.get("HARNESS_SERVE_TOKEN", ""), timeout_s or TIMEOUT_S)

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection to the server. The first request opens the connection."""
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=self.timeout_s)

    def headers(self) -> dict[str, str]:
        """Return the headers to send with each request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def get(self, path: str) -> bytes:
        """Return the content of a page. Raises `harness.HarnessError` if the service does not respond with status
        200."""
        connection = self.connect()
        try:
            connection.request("GET", path, headers=self.headers())
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise HarnessError(
                f"the service at {self.url} does not respond: {error}; start it with harness serve"
            ) from None
        finally:
            connection.close()
        if response.status == 401:
            raise UsageError(f"the service at {self.url} requires a token; set HARNESS_SERVE_TOKEN")
        if response.status != 200:
            raise HarnessError(f"the service at {self.url} responds to {path} with status {response.status}")
        return content


class Description(msgspec.Struct, frozen=True):
    """Fields of a service's description that are needed for a measurement."""

    run: str
    backend: str
    device: str
    threads: int
    batch_size: int


def described(target: Target) -> Description:
    """Return the description of a service. Raises `harness.HarnessError` if the server does not serve a run."""
    content = target.get("/model")
    try:
        return msgspec.json.decode(content, type=Description)
    except msgspec.DecodeError as error:
        raise HarnessError(f"{target.url} is not a service started with harness serve: {error}") from None


def check_url(url: str) -> None:
    """Raise `harness.UsageError` if `url` is not the address of an HTTP server."""
    parts = urlsplit(url)
    try:
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # raised if the port is not a number
        valid = False
    if not valid or parts.path not in ("", "/") or parts.query or parts.username:
        raise UsageError(
            f"--target {url} is not the address of a service; use an address such as http://127.0.0.1:8000"
        )


def peak_memory(target: Target) -> dict[str, int]:
    """Read the service's metrics, and return the peak memory of each of its processes, in bytes, by process name. The
    dictionary is empty if the service does not report its memory."""
    try:
        text = target.get("/metrics").decode()
    except (HarnessError, UnicodeDecodeError):
        return {}
    pattern = r'^harness_peak_memory_bytes\{process="(\w+)"\} (\S+)$'
    return {name: int(float(value)) for name, value in re.findall(pattern, text, re.MULTILINE)}


@dataclass
class Answers:
    """Answers received from a service. All methods can be called from several threads."""

    contents: list[tuple[int, bytes]] = field(default_factory=list)
    """Sample and content of each answer with status 200. Identical contents are stored only once."""
    failures: Counter[str] = field(default_factory=Counter)
    """Number of queries that failed, by reason."""
    failed_s: list[float] = field(default_factory=list)
    """Latency of each query that failed, in seconds, as measured by LoadGen."""
    timings: list[str] = field(default_factory=list)
    """Values of the ``Server-Timing`` header."""
    unanswered: int = 0
    """Number of queries that were not answered within the time limit."""
    may_reject: bool = False
    """True if the service may reject most queries, as in a search for the highest rate."""
    _known: dict[bytes, bytes] = field(default_factory=dict)

    def add(self, sample: int, content: bytes) -> None:
        """Store an answer."""
        self.contents.append((sample, self._known.setdefault(content, content)))

    def check(self, min_failed: int = MIN_FAILED) -> None:
        """Raise `harness.HarnessError` if the measurement is useless because too many queries failed."""
        failed = self.failures.total()
        total = failed + len(self.contents)
        is_useless = self.unanswered > UNANSWERED * total or (failed > FAILED * total and not self.may_reject)
        if failed < min_failed or not is_useless:
            return
        raise HarnessError(
            f"{failed:,} of the first {total:,} queries failed ({self.listed_failures()}), so the measurement was "
            "stopped; check the log of the service, or use a lower rate (--target-qps) or a longer time limit "
            "(--query-timeout)"
        )

    def listed_failures(self) -> str:
        """Return the number of failed queries for each reason, in decreasing order."""
        return ", ".join(f"{reason}: {count}" for reason, count in self.failures.most_common())

    def parts_ms(self) -> dict[str, float]:
        """Return the median duration of each part of the service's work, in milliseconds, as reported by the
        service."""
        values: dict[str, list[float]] = {}
        for timing in self.timings:
            for name, duration in re.findall(r"(\w+);dur=([\d.]+)", timing):
                values.setdefault(name, []).append(float(duration))
        return {name: float(np.median(durations)) for name, durations in values.items()}


class Client:
    """A connection to a service, which sends one query at a time."""

    def __init__(self, target: Target, content_type: str, bodies: Sequence[bytes], answers: Answers) -> None:
        self._target, self._bodies = target, bodies
        self.answers = answers
        """Object that collects the answers. A different object can be assigned between measurements."""
        self._headers = {"Content-Type": content_type, **target.headers()}
        self._connection = target.connect()
        self._used_s = time.monotonic()
        self._limit = threading.Lock()
        self._end_s = math.inf
        self._socket: socket.socket | None = None

    def answer(self, samples: Sequence[int]) -> int:
        """Send a query for each sample, and store the answers. Return the number of failed queries. Failed queries do
        not raise exceptions."""
        return sum(not self._is_answered(sample) for sample in samples)

    def _is_answered(self, sample: int) -> bool:
        """Send a query, and store the answer. Return False if the query failed."""
        if time.monotonic() - self._used_s > IDLE_S:
            self._connection.close()  # the next request opens the connection again
        reason, content, timing = "", b"", ""
        with self._limit:
            self._end_s = time.monotonic() + self._target.timeout_s
        try:
            self._connection.request("POST", "/predict", self._bodies[sample], self._headers)
            self._socket = self._connection.sock
            response = self._connection.getresponse()
            content, timing = response.read(), response.headers.get("server-timing", "")
            if response.status != 200:
                reason = f"status {response.status}"
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            reason = type(error).__name__
        with self._limit:
            is_late = self._end_s == -math.inf or reason == "TimeoutError"
            self._end_s, self._socket = math.inf, None
        self._used_s = time.monotonic()
        if is_late:
            self._connection.close()
            self.answers.unanswered += 1
            reason = f"no answer within {self._target.timeout_s:g} s"
        if reason:
            self.answers.failures[reason] += 1
        else:
            self.answers.add(sample, content)
            self.answers.timings.append(timing)
        return not reason

    def expire(self, now_s: float) -> None:
        """Abort the current query if its time limit has been exceeded.

        The time limit of a socket applies to each part of an answer, so a service that sends one byte at a time could
        otherwise delay a query indefinitely.
        """
        with self._limit:
            if now_s > self._end_s and self._socket is not None:
                self._end_s = -math.inf
                with contextlib.suppress(OSError):  # raised if the service has closed the connection
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextlib.contextmanager
def limited(clients: Sequence[Client]) -> Iterator[None]:
    """Enforce the time limits of the queries of `clients`, which are used in other threads."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(CHECK_S):
            for client in clients:
                client.expire(time.monotonic())

    thread = threading.Thread(target=watch, name="harness-query-limits", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def capacity_qps(clients: Sequence[Client], samples: int, seconds: float) -> float:
    """Return the number of queries per second that the service answers when each client sends its next query as soon as
    the previous one is answered. Each client must have a separate object for its answers.

    Raises `harness.HarnessError` if the service does not answer any query with status 200, or leaves many queries
    unanswered.
    """
    counts, answered_s = [0] * len(clients), [0.0] * len(clients)
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < end:
            if not clients[number].answer([(number + counts[number]) % samples]):
                answered_s[number] = time.perf_counter()
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(clients))]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Answers(
        contents=[content for client in clients for content in client.answers.contents],
        failures=sum((client.answers.failures for client in clients), Counter()),
        unanswered=sum(client.answers.unanswered for client in clients),
        may_reject=True,
    )
    if not found.contents:
        raise HarnessError(
            f"the service did not answer any query with status 200 ({found.listed_failures()}); check its log, "
            "and verify that /ready returns status 200"
        )
    found.check(min_failed=1)
    return len(found.contents) / (max(answered_s) - start)


class _Prediction(msgspec.Struct):
    """Prediction for one example, in the format that `harness serve` returns."""

    label: str | None = None
    probabilities: dict[str, float] | None = None
    values: dict[str, float] | None = None


class _Body(msgspec.Struct):
    predictions: list[_Prediction]


_BODY = msgspec.json.Decoder(_Body)


def outputs(answers: Answers, info: DataInfo, names: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the sample index of each answer, and the answers as model outputs, float32 ``[N, outputs]``. For
    classification, the outputs are the logarithms of the probabilities, which can be used as logits. For regression,
    the outputs are standardized targets.

    Raises `harness.HarnessError` if an answer does not contain exactly one prediction, if the prediction does not have
    the outputs of the run's model, or if the predicted label does not have the highest probability.
    """
    rows: dict[bytes, list[float]] = {}
    for sample, content in answers.contents:
        if content not in rows:
            try:
                rows[content] = _row(content, info, names)
            except (msgspec.DecodeError, ValueError) as error:
                raise HarnessError(
                    f"the service's answer for test example {sample} is not a prediction of the run's model: "
                    f"{error}; check that the service serves this run"
                ) from None
    found = np.array([rows[content] for _, content in answers.contents], np.float64).reshape(-1, len(names))
    if info.objective == "regression":
        found = (found - np.array(info.target_mean)) / np.array(info.target_scale)
    else:
        found = np.log(np.maximum(found, np.finfo(np.float64).tiny))
    return np.array([sample for sample, _ in answers.contents], np.int64), found.astype(np.float32)


def _row(content: bytes, info: DataInfo, names: Sequence[str]) -> list[float]:
    """Return the outputs in an answer, in the order of `names`. Raises `ValueError` if the answer is not valid."""
    predictions = _BODY.decode(content).predictions
    if len(predictions) != 1:
        raise ValueError(f"it contains {len(predictions)} predictions instead of 1")
    (prediction,) = predictions
    kind = "values" if info.objective == "regression" else "probabilities"
    found = getattr(prediction, kind)
    if found is None or found.keys() != set(names):
        raise ValueError(f"its {kind} do not have the names {', '.join(names)}")
    if kind == "probabilities" and found.get(prediction.label) != max(found.values()):
        raise ValueError(f"the label {prediction.label!r} does not have the highest probability")
    return [found[name] for name in names]
