"""Tests of the measurement of a service: the requests, the answers and their quality."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import math
import select
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from own_files import houses, photos, reviews, write_csv, write_sound

from harness.checks.latency import target
from harness.checks.latency.bodies import JSON, _date, bodies
from harness.checks.latency.target import (
    Answers,
    Client,
    Target,
    capacity_qps,
    check_url,
    limited,
    outputs,
    peak_memory,
)
from harness.checks.latency.target_child import Quality
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.new_data import columns_of, reader
from harness.data.user_files.tables import Table
from harness.errors import HarnessError, UsageError
from harness.execute.preparation import load_and_prepare
from harness.interfaces import PreparedData, Split
from harness.measure.quality.scorer import scorer
from harness.plugins import discover
from harness.plugins.catalog import Catalog
from harness.records import DataInfo

# ---- requests ----------------------------------------------------------------------------------------------


def loaded(path: Path, task: str, **options: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return the raw and prepared data, and the options with which they were read."""
    chosen = discover().task(task)
    dataset = UserDataset(path, chosen.kind, chosen.objective)
    settled = msgspec.to_builtins(dataset.settle(msgspec.convert(options, dataset.Options))[0])
    return *load_and_prepare(chosen, dataset, settled, {}), settled


def assert_read_as_sent(raw: Any, found: dict[str, Any]) -> None:
    for name, array in raw.test.inputs.items():
        if array.dtype != object:
            np.testing.assert_array_equal(found[name], array)
            continue
        for sent, received in zip(array.flat, found[name].flat, strict=True):
            np.testing.assert_array_equal(received, sent)


@pytest.mark.plugins("regression")
@pytest.mark.parametrize("moment", ["2021-{:02d}-03", "2021-{:02d}-03T04:05:06", "0{:d}:15"])
def test_rows_of_a_table_are_read_as_sent(tmp_path: Path, moment: str) -> None:
    columns = houses(40)
    columns["sold"] = [moment.format(1 + n % 9) if n % 7 else "" for n in range(40)]
    path = write_csv(tmp_path / "houses.csv", columns)
    raw, data, options = loaded(path, "regression", target_column="price", date_columns=["sold"])
    names = columns_of(options, data.reading)
    content_type, sent = bodies("table", raw.test.inputs, {}, data.reading, names)
    assert content_type == JSON
    rows = [json.loads(body)["instances"][0] for body in sent]
    table = Table(
        "rows", {name: [row[name] for row in rows] for name in names}, [f"row {n + 1}" for n in range(len(rows))]
    )
    read = reader("table", "regression", data.info.label_names, options, data.reading).read(table)
    assert_read_as_sent(raw, read.inputs)


@pytest.mark.plugins("vision", "speech", "nlp")
@pytest.mark.parametrize("kind", ["image", "audio", "text"])
def test_texts_images_and_recordings_are_read_as_sent(tmp_path: Path, kind: str) -> None:
    if kind == "text":
        path, task = write_csv(tmp_path / "reviews.csv", reviews(40)), "nlp"
    elif kind == "image":
        path, task = photos(tmp_path / "photos", 12), "vision"
    else:
        path, task = tmp_path / "sounds", "speech"
        for number in range(24):
            write_sound(path / "ab"[number % 2] / f"{number}.wav", seed=number)
    raw, data, options = loaded(path, task)
    content_type, sent = bodies(kind, raw.test.inputs, raw.details, data.reading, ())
    reads = reader(kind, "classification", data.info.label_names, options, data.reading)
    if kind == "text":
        assert [json.loads(body)["instances"][0] for body in sent] == list(raw.test.inputs["text"])
        return
    suffix = content_type.partition("/")[2]
    for number, body in enumerate(sent):
        (tmp_path / "sent").mkdir(exist_ok=True)
        (tmp_path / "sent" / f"{number:03d}.{suffix}").write_bytes(body)
    assert_read_as_sent(raw, reads.read(tmp_path / "sent").inputs)


def test_last_second_of_a_day_is_sent_as_a_time_of_this_day() -> None:
    assert _date({"hour": 24 - 0.4 / 3600}) == "23:59:59"


def test_other_kinds_cannot_be_sent() -> None:
    with pytest.raises(UsageError, match="cannot be sent to a service"):
        bodies("points", {}, {}, {}, ())


# ---- answers -----------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """A service that answers with the number in the request, fails for 13, closes the connection for 17, does not
    answer 18, and sends single bytes of a long answer to 19."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        number = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"][0]
        if number == 17:
            self.close_connection = True
            return
        if number == 18:
            self._wait(1000)
            return
        if number == 19:
            self._send(200, "", length=1000)
            while not self._wait(0.02):
                self.wfile.write(b" ")
            return
        self._send(503 if number == 13 else 200, json.dumps({"predictions": [{"values": {"price": number}}]}))

    def do_GET(self) -> None:
        wrong = self.headers["authorization"] != "Bearer right"
        self._send(401 if wrong else 200, 'harness_peak_memory_bytes{process="http"} 1.5e+03\n')

    def _wait(self, seconds: float) -> bool:
        """Wait for at most the given time. Return True if the client has closed the connection."""
        self.close_connection = bool(select.select([self.connection], [], [], seconds)[0])
        return self.close_connection

    def _send(self, status: int, content: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content) if length is None else length))
        self.send_header("server-timing", "queue;dur=1.500, model;dur=2.000")
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


INFO = DataInfo(
    kind="features", inputs={}, objective="regression", outputs=1, label_names=("price",),
    target_mean=(10.0,), target_scale=(2.0,),
)  # fmt: skip


def test_client_keeps_answers_and_counts_failures(url: str) -> None:
    answers = Answers()
    client = Client(Target(url), JSON, [json.dumps({"instances": [n]}).encode() for n in range(20)], answers)
    assert client.answer([3, 13, 4, 17, 5]) == 2
    client.close()
    assert [sample for sample, _ in answers.contents] == [3, 4, 5]
    assert answers.failures == {"status 503": 1, "RemoteDisconnected": 1}
    assert answers.parts_ms() == {"queue": 1.5, "model": 2.0}
    indices, values = outputs(answers, INFO, ("price",))
    np.testing.assert_array_equal(indices, [3, 4, 5])
    np.testing.assert_array_equal(values, [[-3.5], [-3.0], [-2.5]])


def test_capacity_excludes_failures(url: str) -> None:
    def measured(number: int) -> float:
        clients = [Client(Target(url), JSON, [json.dumps({"instances": [number]}).encode()], Answers())]
        try:
            return capacity_qps(clients, 1, 0.05)
        finally:
            clients[0].close()

    assert measured(3) > 0
    with pytest.raises(HarnessError, match=r"did not answer any query with status 200 \(status 503: \d+\); check"):
        measured(13)


@pytest.mark.parametrize("number", [18, 19])
def test_query_without_an_answer_within_the_time_limit_fails(url: str, number: int) -> None:
    content = [json.dumps({"instances": [n]}).encode() for n in (3, number)]
    client = Client(Target(url, timeout_s=0.2), JSON, content, Answers())
    start = time.monotonic()
    with limited([client]):
        assert client.answer([0, 1, 0]) == 1
    assert 0.2 <= time.monotonic() - start < 10
    client.close()
    assert client.answers.failures == {"no answer within 0.2 s": 1}
    assert [sample for sample, _ in client.answers.contents] == [0, 0]


def test_capacity_of_a_service_that_hangs_is_not_measured(url: str) -> None:
    content = [json.dumps({"instances": [n]}).encode() for n in (3, 18)]
    clients = [Client(Target(url, timeout_s=0.2), JSON, content, Answers()) for _ in range(4)]
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.callback(client.close)
        with pytest.raises(HarnessError, match=r"queries failed \(no answer within 0.2 s: \d+\), so the"):
            capacity_qps(clients, 2, 0.3)


@pytest.mark.parametrize(
    ("answered", "rejected", "unanswered", "may_reject", "stops"),
    [
        (968, 0, 32, False, False),
        (200, 0, 32, False, True),
        (200, 0, 31, False, False),
        (200, 0, 32, True, True),
        (31, 32, 0, False, True),
        (33, 32, 0, False, False),
        (1, 1000, 0, True, False),
    ],
)
def test_measurement_is_stopped_if_its_result_would_be_useless(
    answered: int, rejected: int, unanswered: int, may_reject: bool, stops: bool
) -> None:
    answers = Answers([(0, b"")] * answered, may_reject=may_reject, unanswered=unanswered)
    answers.failures.update({"status 503": rejected, "no answer within 1 s": unanswered})
    with pytest.raises(HarnessError, match="so the measurement was stopped") if stops else contextlib.nullcontext():
        answers.check()


def test_client_opens_an_idle_connection_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    connect = http.client.HTTPConnection.connect
    monkeypatch.setattr(http.client.HTTPConnection, "connect", lambda self: opened.append(self) or connect(self))
    client = Client(Target(url), JSON, [b'{"instances": [3]}'], Answers())
    client.answer([0, 0])
    assert len(opened) == 1
    monkeypatch.setattr(target, "IDLE_S", 0.0)
    client.answer([0])
    client.close()
    assert len(opened) == 2
    assert not client.answers.failures


@pytest.mark.parametrize(("values", "words"), [([11.0, 13.0], ""), ([11.0, 14.0], "differ from the run's predictions")])
def test_quality_of_a_regression_compares_values(catalog: Catalog, values: list[float], words: str) -> None:
    info = msgspec.structs.replace(INFO, label_names=("height",))
    predicted = np.array([[0.5], [1.5]], np.float32)
    split = Split(inputs={}, targets=predicted)
    data = PreparedData(train=split, validation=split, test=split, info=info)
    judge = scorer(info, "rmse", [catalog.metric("rmse")])
    contents = [(n, json.dumps({"predictions": [{"values": {"height": x}}]}).encode()) for n, x in enumerate(values)]
    quality = Quality(data, judge, predicted)
    assert quality.problem(Answers(contents)).startswith("the answers" if words else "")
    assert words in quality.problem(Answers(contents))
    assert quality.values(Answers(contents))["run_score"] == 0.0
    assert quality.problem(Answers()) == "the service did not answer any query"


@pytest.mark.parametrize(("wrong", "words"), [(1, ""), (2, "only 98.0% of the answers have the label")])
def test_fast_service_with_wrong_labels_is_not_valid(catalog: Catalog, wrong: int, words: str) -> None:
    info = DataInfo(kind="tokens", inputs={}, objective="classification", outputs=2, label_names=("a", "b"))
    targets = np.zeros(100, np.int64)
    split = Split(inputs={}, targets=targets)
    data = PreparedData(train=split, validation=split, test=split, info=info)
    judge = scorer(info, "accuracy", [catalog.metric("accuracy")])
    outputs = {True: b'{"predictions": [{"label": "a", "probabilities": {"a": 1, "b": 0}}]}'}
    outputs[False] = b'{"predictions": [{"label": "b", "probabilities": {"a": 0, "b": 1}}]}'
    # The service answers 50 queries for each of two examples, and answers the last query for each example correctly.
    answers = Answers()
    for query in range(100):
        answers.add(query % 2, outputs[query >= wrong])
    quality = Quality(data, judge, np.tile(np.array([[1, 0]], np.float32), (100, 1)))
    assert quality.problem(answers).startswith(words)
    assert bool(quality.problem(answers)) == bool(words)
    assert quality.values(answers)["score"] == pytest.approx(1 - wrong / 100)
    assert quality.values(answers)["examples"] == 2
    assert len(set(map(id, [content for _, content in answers.contents]))) == 2


def test_memory_of_a_service_is_read_with_the_token(url: str) -> None:
    assert peak_memory(Target(url, "right")) == {"http": 1500}
    with pytest.raises(UsageError, match="requires a token; set HARNESS_SERVE_TOKEN"):
        Target(url).get("/metrics")


def test_service_that_does_not_answer_is_reported() -> None:
    with pytest.raises(HarnessError, match=r"does not respond: .* start it with harness serve"):
        Target("http://127.0.0.1:9").get("/model")


def test_probabilities_become_logits_with_the_same_softmax() -> None:
    info = DataInfo(kind="tokens", inputs={}, objective="classification", outputs=2, label_names=("a", "b"))
    answers = Answers([(0, b'{"predictions": [{"label": "b", "probabilities": {"b": 0.75, "a": 0.25}}]}')])
    _, values = outputs(answers, info, ("a", "b"))
    np.testing.assert_allclose(values, [[math.log(0.25), math.log(0.75)]], rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated"),
        (b"{}", "missing required field `predictions`"),
        (b'{"predictions": []}', "contains 0 predictions instead of 1"),
        (b'{"predictions": [{"values": {"price": 1}}, {"values": {"price": 1}}]}', "contains 2 predictions"),
        (b'{"predictions": [{"values": {"rent": 1}}]}', "its values do not have the names price"),
        (b'{"predictions": [{"values": {"price": 1, "rent": 1}}]}', "its values do not have the names price"),
        (b'{"predictions": [{"values": {"price": null}}]}', "Expected `float`, got `null`"),
        (b"[]", "Expected `object`"),
        (b"1", "Expected `object`"),
    ],
)
def test_answer_of_another_service_is_reported(content: bytes, reason: str) -> None:
    with pytest.raises(HarnessError, match=f"for test example 7 is not a prediction of the run's model: .*{reason}"):
        outputs(Answers([(7, content)]), INFO, ("price",))


@pytest.mark.parametrize("label", [b'"a"', b'"c"', b"null"])
def test_label_that_contradicts_the_probabilities_is_reported(label: bytes) -> None:
    info = DataInfo(kind="tokens", inputs={}, objective="classification", outputs=2, label_names=("a", "b"))
    content = b'{"predictions": [{"label": %b, "probabilities": {"b": 0.75, "a": 0.25}}]}' % label
    with pytest.raises(HarnessError, match="does not have the highest probability"):
        outputs(Answers([(0, content)]), info, ("a", "b"))


def test_images_are_scaled_to_the_range_of_image_files() -> None:
    from PIL import Image

    image = np.arange(17, dtype=np.uint8).reshape(1, 1, 17, 1)
    _, (scaled,) = bodies("image", {"image": image}, {"pixel_max": 16}, {}, ())
    pixels = np.asarray(Image.open(io.BytesIO(scaled)))
    np.testing.assert_allclose(pixels / 255, image[0, :, :, 0] / 16, atol=0.5 / 255)
    _, (same,) = bodies("image", {"image": image}, {}, {}, ())
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(same))), image[0, :, :, 0])


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://a", "http://", "http://a:b", "http://a/path", "http://a?q", "http://user:word@a"],
)
def test_wrong_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a service"):
        check_url(url)
