"""A backend whose runs wait for a file, so that a test can act while they are executed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from harness_toy import NumpyBackend, NumpySession

import harness

HARNESS_API_VERSION = "1.0"
FOLDER = "TOY_GATE"
"""Environment variable with the directory of the files."""


class GatedBackend(NumpyBackend):
    name = "toy-gated"
    summary = "waits for the file `open`"

    def open(self, request: harness.SessionRequest) -> NumpySession:
        folder = Path(os.environ[FOLDER])
        partial = folder / f"partial-{os.getpid()}"
        partial.write_text(str(request.seed))
        partial.rename(folder / f"started-{os.getpid()}")
        while not (folder / "open").exists():
            time.sleep(0.05)
        return super().open(request)


@harness.hookimpl
def harness_backends() -> Iterator[harness.Backend]:
    yield GatedBackend()


@harness.hookimpl
def harness_networks() -> Iterator[harness.NetworkRef]:
    yield harness.NetworkRef(model="toy", backend="toy-gated", build="harness_toy:build")
