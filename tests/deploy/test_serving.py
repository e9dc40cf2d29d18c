"""Tests of the HTTP service of a trained model, through a server in a separate process, as a user would start it."""

from __future__ import annotations

import base64
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import harness_cli
from serving import JSON, ROW, TOKEN, Server, start, stop, train

import harness
from harness.checks.latency import measure
from harness.deploy.serving import server as serving
from harness.deploy.serving.limits import Limits
from harness.errors import UsageError
from harness.execute.child import call_in_child
from harness.plugins import discover
from harness.records.store import Store


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a results directory with a run on a table, while the toy backend is installed."""
    with pytest.MonkeyPatch.context() as patch:
        yield train(tmp_path_factory.mktemp("served"), patch)


@pytest.fixture(scope="module")
def server(results: Path) -> Iterator[Server]:
    running = start(results, "--max-body-mb", "1", "--threads", "2")
    yield running
    stop(running)


# ---- predictions -------------------------------------------------------------------------------------------


def test_predictions_equal_those_of_harness_predict(server: Server, results: Path) -> None:
    (run,) = harness.load(results).runs
    expected = run.predict(results.parent / "houses.csv").predicted_price
    content = (results.parent / "houses.csv").read_bytes()
    rows = pd.read_csv(results.parent / "houses.csv").drop(columns="price")
    instances = json.loads(rows.to_json(orient="records"))
    lines = "".join(json.dumps(row) + "\n" for row in instances).encode()
    answers = [
        server.predict(instances),
        server.upload(("houses.csv", content)),
        server.request("POST", "/predict", content, {"Content-Type": "text/csv"})[:2],
        server.request("POST", "/predict", lines, {"Content-Type": "application/x-ndjson"})[:2],
    ]
    for status, answer in answers:
        assert status == 200, answer
        found = [prediction["values"]["price"] for prediction in answer["predictions"]]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_numbers_may_be_sent_as_text(server: Server) -> None:
    """The page of the service sends what the user entered."""
    assert server.predict([{**ROW, "area": "70.5"}]) == server.predict([ROW])


def test_requests_that_arrive_together_get_their_own_answers(server: Server) -> None:
    towns = ["Ulm", "Bonn", "Kiel"]
    rows = [{**ROW, "rooms": n, "town": towns[n % 3]} for n in range(40)]
    single = [server.predict([row])[1]["predictions"][0] for row in rows]
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=30) for _ in rows]
    for connection, row in zip(connections, rows, strict=True):
        bad = {**row, "rooms": "many"}
        connection.request("POST", "/predict", json.dumps({"instances": [bad if row["rooms"] == 7 else row]}), JSON)
    found = [json.loads(connection.getresponse().read()) for connection in connections]
    for connection in connections:
        connection.close()
    assert "'many', which is not a number" in found.pop(7)["detail"]
    del single[7]
    values = [answer["predictions"][0]["values"]["price"] for answer in found]
    np.testing.assert_allclose(values, [answer["values"]["price"] for answer in single], rtol=1e-5)


# ---- bad requests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not valid JSON"),
        (b'{"instances": [', 400, "not valid JSON"),
        (b'{"instances": [{"rooms": "\xff"}]}', 400, "UTF-8"),
        (b'{"instances": ' + b"[" * 100_000, 422, "example 0: Expected `object`, got `array`"),
        (b'{"instances": [NaN]}', 400, "NaN, infinite numbers"),
        (b'{"instances": [{"rooms": "\\ud800 rooms"}]}', 400, "unpaired surrogates"),
        (b"[]", 422, "the expected form"),
        (b'{"instances": "text"}', 422, "the expected form"),
        (b'{"instances": [1]}', 422, "example 0: Expected `object`, got `int`"),
        (b'{"instances": [{}, {"rooms": [1]}]}', 422, "example 1: Expected"),
        (b'{"instances": [], "more": 1}', 422, "the expected form"),
        (b'{"instances": []}', 422, "the list of instances is empty"),
        (b'{"instances": [{}]}', 422, "example 0: the column 'rooms' is missing"),
        (b'{"instances": [%s]}' % b",".join([b"{}"] * 1025), 413, "1,025 examples"),
        (b" " * (2**20 + 1), 413, "send at most 1,048,576 bytes"),
        (json.dumps({"instances": [{**ROW, "rooms": "many"}]}).encode(), 422, "example 0: mixed types"),
        (json.dumps({"instances": [{**ROW, "rooms": 10**400}]}).encode(), 422, "more than 64 bits"),
        (json.dumps({"instances": [{**ROW, "sold": "tomorrow"}]}).encode(), 422, "sold"),
    ],
)
def test_bad_json_is_answered_with_the_reason(server: Server, body: bytes, status: int, words: str) -> None:
    found, answer, _ = server.request("POST", "/predict", body, JSON)
    assert (found, words in answer["detail"]) == (status, True), answer
    if answer["detail"].startswith("example"):
        assert answer["detail"].startswith(f"example {answer['errors'][0]['index']}: {answer['errors'][0]['message']}")


@pytest.mark.parametrize(
    ("name", "content", "status", "words"),
    [
        ("houses.csv", b"", 422, "the file is empty"),
        ("houses.csv", b"rooms,area\n1,2\n", 422, "town"),
        ("houses.csv", b"rooms,area,town,sold\n1,2,Ulm\n", 422, "row 1"),
        ("houses.csv", b"rooms,area,town,sold\n1,2,\xff,2021-03-04\n", 422, "UTF-8"),
        ("houses.csv", b"\x1f\x8b123", 422, "compressed with gzip"),
        ("../../houses.parquet", b"PAR1", 415, "unsupported format"),
        ("houses", b"rooms\n", 415, "unsupported format"),
    ],
)
def test_bad_file_is_answered_with_the_reason(
    server: Server, name: str, content: bytes, status: int, words: str
) -> None:
    found, answer = server.upload((name, content))
    assert (found, words in answer["detail"]) == (status, True), answer
    assert "/" not in answer["detail"].replace("../../houses.parquet", "").replace("and/or", "")


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/html", b"<p>", 415),
        ("", b"{}", 415),
        ("multipart/form-data", b"--x", 400),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--\r\n",
            422,
        ),
        ("text/csv", b"", 422),
        ("text/csv; charset=iso-8859-1", b"rooms\n1\n", 415),
        ('text/csv; charset="UTF-8"', b"rooms\n1\n", 422),
        (
            "multipart/form-data; boundary=x; charset=unicode_escape",
            b'--x\r\nContent-Disposition: form-data; name=a; filename="\\ud800.csv"\r\n\r\n1\r\n--x--\r\n',
            400,
        ),
    ],
)
def test_other_content_is_refused(server: Server, content_type: str, body: bytes, status: int) -> None:
    assert server.request("POST", "/predict", body, {"Content-Type": content_type})[0] == status


def test_compressed_body_is_refused(server: Server) -> None:
    status, answer, _ = server.request("POST", "/predict", b"{}", {**JSON, "Content-Encoding": "gzip"})
    assert (status, answer["detail"]) == (415, "unsupported content encoding 'gzip'; send the body uncompressed")


@pytest.mark.parametrize(
    "end", [b"", b"--x\r\n", b"--x\r\nContent-Disposition: form-data; name=f; filename=b.csv\r\n\r\nro"]
)
def test_incomplete_form_is_refused(server: Server, end: bytes) -> None:
    content = ",".join(ROW).encode() + b"\n" + ",".join(map(str, ROW.values())).encode() + b"\n"
    part = b"--x\r\nContent-Disposition: form-data; name=f; filename=a.csv\r\n\r\n" + content + b"\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert server.request("POST", "/predict", part + b"--x--\r\n", kind)[0] == 200
    status, answer, _ = server.request("POST", "/predict", part + end, kind)
    assert (status, answer["detail"][:23]) == (400, "the form is incomplete:")


def test_unknown_path_and_method_are_refused(server: Server) -> None:
    assert server.request("GET", "/nothing")[0] == 404
    assert server.request("GET", "/predict")[0] == 405


# ---- state, metrics, browsers ------------------------------------------------------------------------------


def test_metrics_count_requests_and_show_memory(server: Server) -> None:
    server.predict([ROW])
    _, text, _ = server.request("GET", "/metrics")
    values = dict(re.findall(r"^(harness_\S+) (\S+)$", text, re.MULTILINE))
    assert float(values['harness_requests_total{path="/predict",status="200"}']) >= 1
    for process in ("http", "model"):
        assert float(values[f'harness_peak_memory_bytes{{process="{process}"}}']) > 2**20
    assert server.request("GET", "/health")[:2] == (200, {"status": "ok"})
    assert server.request("GET", "/ready")[:2] == (200, {"status": "ready"})


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "attacker.example"},
        {"Host": ""},
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
    ],
)
def test_requests_through_another_web_site_are_refused(server: Server, headers: dict[str, str]) -> None:
    assert server.request("GET", "/model", headers=headers)[0] == 403


def test_no_framework_is_loaded_by_the_http_process(server: Server) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    assert not re.search(r"torch|tensorflow|onnxruntime", maps.read_text())


@pytest.mark.parametrize("threads", [None, 3])
def test_model_uses_the_given_number_of_threads(results: Path, threads: int | None) -> None:
    run = Store(results).find("regression")
    service = serving.service_of(run, discover(), Limits(), threads=threads)
    assert service._process._job.model.spec.threads == (threads or run.record.spec.threads)


def test_answers_are_not_delayed_by_nagles_algorithm() -> None:
    """asyncio sets TCP_NODELAY only for sockets whose protocol is explicit."""
    with serving.listen("127.0.0.1", 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP


def test_service_is_compared_with_a_model_with_as_many_threads(
    server: Server, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
    threads = []

    def called(function: Any, job: Any, **options: Any) -> Any:
        threads.append((function.__name__, job.spec.threads, options["environment"]["OMP_NUM_THREADS"]))
        return call_in_child(function, job, **options)

    monkeypatch.setattr(measure, "call_in_child", called)
    run, catalog = Store(results).find("regression"), discover()
    target = f"http://127.0.0.1:{server.port}"
    chosen = measure.settings(run, "server", seconds=0.1, target_qps=300, latency_bound_ms=10000, target=target)
    result, _ = measure.measure(run, chosen, catalog, timeout_s=60)
    assert result.served is not None
    assert result.served.threads == 2
    assert threads[1:] == [("measure_latency", 2, "2")]


def test_measured_service_is_scored_and_shown(server: Server, results: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
    settings = ("--scenario", "server", "--target", f"http://127.0.0.1:{server.port}", "--seconds", "0.1")
    bound = ("--target-qps", "300", "--latency-bound-ms", "10000", "--format", "json")
    done = harness_cli("latency", "regression", *settings, *bound, results=results)
    found = json.loads(done.stdout)
    served = found["served"]
    assert (found["measured"]["valid"], served["failures"], served["late"]) == (True, {}, 0)
    assert served["examples"] == 12
    assert served["score"] == pytest.approx(served["run_score"], rel=1e-5)
    assert set(served["memory_bytes"]) == {"http", "model"}
    assert served["in_process_ms"]["p50"] < found["percentiles_ms"]["p50"]
    harness_cli("report", "--format", "html", "--output", tmp_path / "site", results=results)
    (page,) = (tmp_path / "site" / "runs").glob("regression-*.html")
    assert f"http://127.0.0.1:{server.port}" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--scenario", "offline", "--target", "http://127.0.0.1:1"), "require --scenario server"),
        (("--scenario", "server", "--find-qps"), "cannot be combined with --target-qps"),
        (
            ("--scenario", "server", "--find-qps", "--latency-bound-ms", "5", "--target-qps", "5"),
            "cannot be combined with --target-qps",
        ),
        (("--scenario", "server", "--target", "localhost:8000"), "is not the address of a service"),
        (("--scenario", "server", "--target", "http://a:1", "--batch-size", "5"), "pass it to harness serve"),
    ],
)
def test_wrong_options_of_a_measured_service_are_refused(results: Path, arguments: tuple[str, ...], words: str) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
    assert words in harness_cli("latency", "regression", *arguments, results=results, status=2).stderr


@pytest.mark.slow
def test_answers_match_the_openapi_description(server: Server, tmp_path: Path) -> None:
    """The description allows any table of the correct form, so the check that all such data are accepted is omitted."""
    if find_spec("schemathesis") is None:
        pytest.skip("needs schemathesis")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{server.port}/openapi.json"]
    settings = ["--exclude-checks", "positive_data_acceptance", "--max-examples", "20", "--no-color"]
    done = subprocess.run([*command, *settings], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout
    assert server.predict([ROW])[0] == 200


# ---- slow clients, the end of the model, and the end of the server -----------------------------------------


def test_token_is_required_and_the_server_drains(results: Path) -> None:
    running = start(results, HARNESS_SERVE_TOKEN=TOKEN)
    try:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            for path in ("/model", "/metrics", "/openapi.json"):
                status, answer, found = running.request("GET", path, headers=headers)
                assert (status, found["www-authenticate"]) == (401, "Bearer"), answer
        assert running.request("GET", "/health")[0] == 200
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert running.request("GET", "/model", headers=right)[1]["kind"] == "table"
        # A request whose body is still incomplete when the server is asked to stop is answered.
        body = json.dumps({"instances": [ROW]}).encode()
        with running.connect() as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:5])
            time.sleep(0.2)
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            connection.sendall(body[5:])
            assert b"200 OK" in connection.recv(1000)
    finally:
        running.process.terminate()
    assert running.process.wait(30) == 0


def test_model_is_started_again_after_it_was_killed(results: Path) -> None:
    import psutil

    running = start(results)
    try:
        (model,) = (
            child
            for child in psutil.Process(running.process.pid).children()
            if "child_main" in " ".join(child.cmdline())
        )
        model.kill()
        end = time.monotonic() + 30
        while (found := running.predict([ROW]))[0] != 200 and time.monotonic() < end:
            assert found[0] == 503, found
            time.sleep(0.1)
        assert found[0] == 200
        assert "harness_model_restarts_total 1.0" in running.request("GET", "/metrics")[1]
    finally:
        stop(running)


def test_infinite_time_limit_is_refused(tmp_path: Path) -> None:
    refused = harness_cli("serve", "regression", "--answer-timeout", "inf", results=tmp_path, status=2)
    assert "'--answer-timeout': inf is not a finite number" in refused.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_address_of_other_machines_requires_a_token(host: str) -> None:
    with pytest.raises(UsageError, match="requires a token"):
        serving.check_address(host, None)
    serving.check_address(host, TOKEN.encode())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_requires_no_token(host: str) -> None:
    serving.check_address(host, None)


@pytest.mark.parametrize("text", ["", "short", "with spaces in the token", "tökentökentökentöken", "x" * 20 + "\x07"])
def test_weak_token_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="at least 16 printable ASCII"):
        serving.token_from(tmp_path / "token")


def test_token_is_read_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert serving.token_from(tmp_path / "token") == TOKEN.encode()
    assert serving.token_from(None) is None
    monkeypatch.setenv(serving.TOKEN, TOKEN)
    assert serving.token_from(None) == TOKEN.encode()
    with pytest.raises(UsageError, match="cannot be read"):
        serving.token_from(tmp_path / "absent")


def test_base64_is_decoded_by_the_bodies() -> None:
    from harness.deploy.serving.bodies import DECODERS

    body = json.dumps({"instances": [base64.b64encode(b"abc").decode()]}).encode()
    assert DECODERS["image"].decode(body).instances == [b"abc"]
