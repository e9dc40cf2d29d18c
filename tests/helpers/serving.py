"""A running ``harness serve``, for tests."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import MAIN, harness_cli
from own_files import houses, write_csv
from toy_plugin import SET_FAST, install_toy

TOKEN = "a-token-for-the-tests"
JSON = {"Content-Type": "application/json"}
ROW = {"rooms": 3, "area": 70.5, "town": "Ulm", "sold": "2021-03-04"}


class Server:
    """A running ``harness serve``."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}
    ) -> tuple[int, Any, dict[str, str]]:
        """Return the status, the decoded JSON or the text, and the headers of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        is_json = found.get("content-type", "").startswith("application/json")
        return response.status, json.loads(content) if is_json else content.decode(), found

    def predict(self, instances: Any) -> tuple[int, Any]:
        return self.request("POST", "/predict", json.dumps({"instances": instances}), JSON)[:2]

    def upload(self, *files: tuple[str, bytes]) -> tuple[int, Any]:
        parts = b"".join(
            b'--edge\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n'
            % (name.encode(), content)
            for name, content in files
        )
        headers = {"Content-Type": "multipart/form-data; boundary=edge"}
        return self.request("POST", "/predict", parts + b"--edge--\r\n", headers)[:2]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


def start(results: Path, *arguments: str, **variables: str) -> Server:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **variables}
    command = [*MAIN, "serve", "regression", "--port", "0", "--results", str(results), *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"Serving on http://\S+:(\d+)", line):
            return Server(process, int(found[1]))
    raise AssertionError("".join(lines))


def stop(server: Server) -> None:
    server.process.terminate()
    assert server.process.wait(30) == 0


def train(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Train on a table with a date column and save the weights. Return the results directory. The toy backend is
    installed until `patch` is undone."""
    columns = houses(60)
    columns["sold"] = [f"2021-{1 + n % 12:02d}-{1 + n % 28:02d}" for n in range(60)]
    write_csv(folder / "houses.csv", columns)
    install_toy(patch)
    data = ("--dataset", str(folder / "houses.csv"), "--target-column", "price")
    settings = ("--set", 'dataset.date_columns=["sold"]', "--set", "recipe.optimizer=sgd")
    chosen = ("--task", "regression", "--model", "toy-linear", "--backend", "toy-numpy", *SET_FAST)
    harness_cli("run", *chosen, *data, *settings, "-q", "--save-weights", results=folder / "results")
    return folder / "results"
