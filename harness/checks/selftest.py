"""Whether the harness measures right on this machine: what is known beforehand, measured as runs are measured.

``python -m harness.checks.selftest host FD`` is the child: it allocates known amounts of host memory, phase by phase,
and writes what it measured. ``python -m harness.checks.selftest BACKEND PLUGIN DEVICE FD`` does so on a device.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from harness.errors import HarnessError
from harness.plugins.catalog import Catalog
from harness.plugins.requirements import missing
from harness.records import PluginRef

MIB = 2**20
SIZES_MIB = (16, 64, 256)
TOLERANCE_BYTES, TOLERANCE_SHARE = 2 * MIB, 0.01
"""The larger of both: pages that the interpreter itself takes or gives back between two readings."""
CLOCK_S, CLOCK_TOLERANCE = 0.5, 1e-3
TIMEOUT_S = 120.0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    expected: float
    measured: float
    unit: str
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        return abs(self.measured - self.expected) <= self.tolerance


def run(catalog: Catalog) -> list[Check]:
    """All checks, in processes of their own: of the host, and of every accelerator that a backend of `catalog` finds.

    Raises `harness.HarnessError` where such a process fails.
    """
    from harness.execute.devices import probe

    checks = _child(["host"], {})
    for name, provided in catalog.backends.items():
        if missing(provided.value.requires):
            continue
        plugin = msgspec.json.encode(provided.plugin).decode()
        for device in probe(name, provided.plugin).devices:
            if device.name != "cpu":
                checks += _child([name, plugin, device.name], provided.value.environment)
    return checks


def _child(arguments: Sequence[str], environment: Mapping[str, str]) -> list[Check]:
    from harness.execute.child import run_child

    lines: list[bytes] = []
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log.txt"
        ended = run_child(
            "harness.checks.selftest",
            arguments,
            log=log,
            timeout_s=TIMEOUT_S,
            on_line=lines.append,
            environment=environment,
        )
        if ended.timed_out or ended.status:
            told = log.read_text(errors="replace").strip().splitlines()
            raise HarnessError(f"the self-test's process {ended.how}: {told[-1] if told else 'no output'}")
    return [msgspec.json.decode(line, type=Check) for line in lines]


def host_memory() -> Iterator[Check]:
    """The peak of a phase that allocates a known amount, less that of the phase before it."""
    from harness.measure.memory import PhaseMemory

    for size in SIZES_MIB:
        memory = PhaseMemory()
        memory.enter("before")
        memory.enter("allocated")
        block = b"\x01" * (size * MIB)  # written to, so that every page is resident
        memory.finish()
        del block
        peaks = memory.by_phase_bytes
        yield _memory(f"host memory, {size} MiB", size, peaks["allocated"] - peaks["before"], memory.counter)


def device_memory(backend: str, plugin: PluginRef, device: str) -> Iterator[Check]:
    """What the framework's allocator says of known amounts; nothing where it does not tell."""
    from harness.execute.preparation import load_plugins

    provided = load_plugins([plugin]).backend(backend)
    provided.allocated_bytes(device, 1)  # what the first allocation brings with it does not count
    for size in SIZES_MIB:
        measured = provided.allocated_bytes(device, size * MIB)
        if measured is not None:
            yield _memory(f"{backend} on {device}, {size} MiB", size, measured, "the framework's allocator")


def _memory(name: str, size_mib: int, measured: int, counter: str) -> Check:
    return Check(
        name=name,
        expected=size_mib * MIB,
        measured=measured,
        unit="bytes",
        tolerance=max(TOLERANCE_BYTES, TOLERANCE_SHARE * size_mib * MIB),
        note=counter,
    )


def clock() -> Check:
    """The clock that times steps, beside the system's wall clock, over half a second."""
    wall, start = time.time(), time.perf_counter()
    time.sleep(CLOCK_S)
    measured = time.perf_counter() - start
    return Check(
        name="clock",
        expected=time.time() - wall,
        measured=measured,
        unit="s",
        tolerance=CLOCK_TOLERANCE,
        note="perf_counter beside the wall clock",
    )


def main(which: str, *device: str, fd: int) -> None:
    if which == "host":
        checks = iter((*host_memory(), clock()))
    else:
        plugin, name = device
        checks = device_memory(which, msgspec.json.decode(plugin, type=PluginRef), name)
    for check in checks:
        os.write(fd, msgspec.json.encode(check) + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:-1], fd=int(sys.argv[-1]))
