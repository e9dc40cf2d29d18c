"""Tests of ``harness latency --target`` with a service that leaves queries unanswered."""

from __future__ import annotations

import json
import select
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command_line import harness_cli
from serving import train

from harness.records.store import Store


class Hanging(BaseHTTPRequestHandler):
    """A service that answers the first `most` queries, and then only every other query."""

    protocol_version = "HTTP/1.1"
    run, most, received = "", 0, 0

    def do_GET(self) -> None:
        described = {"run": self.run, "backend": "toy-numpy", "device": "cpu", "threads": 1, "batch_size": 4}
        self._send(described if self.path == "/model" else {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        type(self).received += 1
        if self.received > self.most and self.received % 2:
            select.select([self.connection], [], [], 60)  # until the client closes the connection
            self.close_connection = True
        else:
            self._send({"predictions": [{"values": {"price": 1.0}}]})

    def _send(self, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield train(tmp_path_factory.mktemp("hanging"), patch)


@pytest.mark.plugins("regression")
@pytest.mark.parametrize("stops_during", ["calibration", "measurement"])
def test_measurement_of_a_service_that_hangs_is_stopped_without_a_result(results: Path, stops_during: str) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs mlcommons-loadgen")
    run = Store(results).find("regression")
    handler = type(
        "Handler", (Hanging,), {"run": run.record.run_id, "most": 0 if stops_during == "calibration" else 10**9}
    )
    before = sorted(run.path.rglob("*"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as service:
        service.daemon_threads = True
        threading.Thread(target=service.serve_forever, daemon=True).start()
        if stops_during == "measurement":
            threading.Thread(target=_hang_later, args=(handler,), daemon=True).start()
        target = ("--target", f"http://127.0.0.1:{service.server_port}", "--query-timeout", "0.5")
        settings = ("--scenario", "server", "--seconds", "300", "--target-qps", "100")
        start = time.monotonic()
        done = harness_cli("latency", "regression", *settings, *target, results=results, status=1)
        service.shutdown()
    assert "no answer within 0.5 s" in done.stderr
    assert "so the measurement was stopped; check the log of the service" in done.stderr
    assert time.monotonic() - start < 100
    assert sorted(run.path.rglob("*")) == before


def _hang_later(handler: Any) -> None:
    """Stop answering every other query 3 s after the first query, when the calibration has ended."""
    while not handler.received:
        time.sleep(0.05)
    time.sleep(3)
    handler.most = 0
