"""Client for services that answer queries over HTTP. The client stores the answers received during a measurement."""

from __future__ import annotations

import http.client
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from harness.errors import HarnessError, UsageError
from harness.records import DataInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIMEOUT_S = 60.0
"""Maximum time to wait for an answer, in seconds."""
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

    @classmethod
    def with_token(cls, url: str) -> Target:
        """Return a target that uses the token in ``HARNESS_SERVE_TOKEN``.

        Child processes inherit this environment variable, so the token is never written to a file.
        """
        return cls(url, os.environ.get("HARNESS_SERVE_TOKEN", ""))

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection to the server. The first request opens the connection."""
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)

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
    _known: dict[bytes, bytes] = field(default_factory=dict)

    def add(self, sample: int, content: bytes) -> None:
        """Store an answer."""
        self.contents.append((sample, self._known.setdefault(content, content)))

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

    def answer(self, samples: Sequence[int]) -> int:
        """Send a query for each sample, and store the answers. Return the number of failed queries. Failed queries do
        not raise exceptions."""
        failed = 0
        for sample in samples:
            if time.monotonic() - self._used_s > IDLE_S:
                self._connection.close()  # the next request opens the connection again
            try:
                self._connection.request("POST", "/predict", self._bodies[sample], self._headers)
                response = self._connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                self.answers.failures[type(error).__name__] += 1
                failed += 1
                continue
            finally:
                self._used_s = time.monotonic()
            if response.status == 200:
                self.answers.add(sample, content)
                self.answers.timings.append(response.headers.get("server-timing", ""))
            else:
                self.answers.failures[f"status {response.status}"] += 1
                failed += 1
        return failed

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def capacity_qps(clients: Sequence[Client], samples: int, seconds: float) -> float:
    """Return the number of queries per second that the service answers when each client sends a query as soon as its
    previous one is answered. Each client must have a separate object for its answers.

    Raises `harness.HarnessError` if the service does not answer any query with status 200."""
    counts = [0] * len(clients)
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < end:
            clients[number].answer([(number + counts[number]) % samples])
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(clients))]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answered = sum(counts) - sum(client.answers.failures.total() for client in clients)
    if not answered:
        failed = Answers(failures=sum((client.answers.failures for client in clients), Counter()))
        raise HarnessError(
            f"the service did not answer any query with status 200 ({failed.listed_failures()}); check its log, "
            "and verify that /ready returns status 200"
        )
    return answered / (time.perf_counter() - start)


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

    Raises `harness.HarnessError` if an answer does not contain exactly one prediction with the outputs of the run's
    model, or if its label does not have the highest probability.
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
