"""Which devices a backend has here, asked in a child process: probing imports the framework, and may crash."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness.execute.child import run_child
from harness.interfaces import DeviceInfo
from harness.records import PluginRef

PROBE_LIMIT_S = 120.0


@dataclass(frozen=True)
class Probe:
    devices: list[DeviceInfo]
    error: str | None = None


def probe(backend: str, plugin: PluginRef) -> Probe:
    """Ask `backend` of `plugin` for its devices. Never raises for the backend's sake."""
    lines: list[bytes] = []
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log.txt"
        ended = run_child(
            "harness.execute.devices",
            [backend, msgspec.json.encode(plugin).decode()],
            log=log,
            timeout_s=PROBE_LIMIT_S,
            on_line=lines.append,
            environment={},
        )
        if ended.timed_out:
            return Probe([], f"did not answer within {PROBE_LIMIT_S:g} s")
        if ended.status == 0 and len(lines) == 1:
            try:
                return Probe(msgspec.json.decode(lines[0], type=list[DeviceInfo]))
            except msgspec.DecodeError as error:
                return Probe([], f"answered with something else than devices: {error}")
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return Probe([], said[-1] if said else ended.how)


def main(name: str, plugin: str, fd: int) -> None:
    from harness.plugins import load

    catalog = load([msgspec.json.decode(plugin, type=PluginRef)])
    backend = catalog.backend(name)
    os.environ.update(backend.environment)
    os.write(fd, msgspec.json.encode(list(backend.devices())) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
