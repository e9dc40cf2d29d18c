"""Whether the harness measures right on this machine: what is known beforehand, measured as runs are measured.

``python -m harness.selftest FD`` is the child: it allocates known amounts, phase by phase, and writes what it measured.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from harness.errors import HarnessError

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


def run() -> list[Check]:
    """All checks, in a process of their own. Raises `harness.HarnessError` where that process fails."""
    from harness.execute.child import run_child

    lines: list[bytes] = []
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log.txt"
        ended = run_child("harness.selftest", [], log=log, timeout_s=TIMEOUT_S, on_line=lines.append, environment={})
        if ended.timed_out or ended.status:
            told = log.read_text(errors="replace").strip().splitlines()
            raise HarnessError(f"the self-test's process {ended.how}: {told[-1] if told else 'no output'}")
    return [msgspec.json.decode(line, type=Check) for line in lines]


def host_memory() -> list[Check]:
    """The peak of a phase that allocates a known amount, less that of the phase before it."""
    from harness.measure.memory import PhaseMemory

    checks = []
    for size in SIZES_MIB:
        memory = PhaseMemory()
        memory.enter("before")
        memory.enter("allocated")
        block = b"\x01" * (size * MIB)  # written to, so that every page is resident
        memory.finish()
        del block
        peaks = memory.by_phase_bytes
        checks.append(
            Check(
                name=f"host memory, {size} MiB",
                expected=size * MIB,
                measured=peaks["allocated"] - peaks["before"],
                unit="bytes",
                tolerance=max(TOLERANCE_BYTES, TOLERANCE_SHARE * size * MIB),
                note=memory.counter,
            )
        )
    return checks


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


def main(fd: int) -> None:
    for check in (*host_memory(), clock()):
        os.write(fd, msgspec.json.encode(check) + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
