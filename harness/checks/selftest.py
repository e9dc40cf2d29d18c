"""Self-test of the measurements on this machine. The self-test measures known quantities in the same way as a run does.

One child process allocates known amounts of host memory, phase by phase, and reports the measured amounts. For each
accelerator, another child process performs the same check with device memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import msgspec

from harness.errors import HarnessError
from harness.execute.child import ChildContext, call_in_child
from harness.plugins.catalog import Catalog
from harness.plugins.requirements import missing
from harness.records import Failure, PluginRef

MIB = 2**20
SIZES_MIB = (16, 64, 256)
TOLERANCE_BYTES, TOLERANCE_FRACTION = 2 * MIB, 0.01
"""Allowed error, in bytes and as a fraction. The larger of the two limits applies. The tolerance accounts for pages
that the interpreter allocates or frees between readings.
"""
CLOCK_S, CLOCK_TOLERANCE = 0.5, 1e-3
"""Duration of the clock comparison and maximum difference, both in seconds."""
TIMEOUT_S = 120.0
"""Time limit for each child process, in seconds."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Measurement of a known quantity."""

    name: str
    expected: float
    measured: float
    unit: str
    tolerance: float
    """Allowed absolute difference between `expected` and `measured`, in `unit`."""
    note: str = ""

    @property
    def passed(self) -> bool:
        """True if the error is within the tolerance."""
        return abs(self.measured - self.expected) <= self.tolerance


class SelftestJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that checks a device, or the host if `plugin` is None."""

    backend: str = ""
    plugin: PluginRef | None = None
    device: str = ""


def run(catalog: Catalog) -> list[Check]:
    """Run all checks in child processes, for the host and for every accelerator that a backend finds.

    Raises `harness.HarnessError` if a child process fails.
    """
    from harness.execute.devices import probe

    checks = _in_child(SelftestJob(), {})
    for name, provided in catalog.backends.items():
        if missing(provided.value.requires):
            continue
        for device in probe(name, provided.plugin).devices:
            if device.name != "cpu":
                job = SelftestJob(backend=name, plugin=provided.plugin, device=device.name)
                checks += _in_child(job, provided.value.environment)
    return checks


def _in_child(job: SelftestJob, environment: Mapping[str, str]) -> list[Check]:
    checks = call_in_child(check, job, timeout_s=TIMEOUT_S, environment=environment)
    if isinstance(checks, Failure):
        raise HarnessError(f"the self-test process failed: {checks.message}")
    return checks


def check(job: SelftestJob, context: ChildContext) -> list[Check]:
    """Run the checks in this process."""
    if job.plugin is None:
        return [*host_memory(), clock()]
    return list(device_memory(job.backend, job.plugin, job.device))


def host_memory() -> Iterator[Check]:
    """Yield one check per phase. A check passes if allocating a known amount of memory increases the phase's peak by
    this amount.
    """
    from harness.measure.memory import PhaseMemory

    for size in SIZES_MIB:
        memory = PhaseMemory()
        memory.enter("before")
        memory.enter("allocated")
        block = b"\x01" * (size * MIB)  # write nonzero values, so that every page is resident
        memory.finish()
        del block
        peaks = memory.by_phase_bytes
        yield _memory(f"host memory, {size} MiB", size, peaks["allocated"] - peaks["before"], memory.counter)


def device_memory(backend: str, plugin: PluginRef, device: str) -> Iterator[Check]:
    """Yield checks of the memory usage that the framework reports for allocations of known sizes, if it reports any."""
    from harness.execute.preparation import backend_of

    provided = backend_of(plugin, backend)
    provided.allocated_bytes(device, 1)  # allocate once in advance to exclude the overhead of the first allocation
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
        tolerance=max(TOLERANCE_BYTES, TOLERANCE_FRACTION * size_mib * MIB),
        note=counter,
    )


def clock() -> Check:
    """Check the step timer against the system's wall clock over half a second."""
    wall, start = time.time(), time.perf_counter()
    time.sleep(CLOCK_S)
    measured = time.perf_counter() - start
    return Check(
        name="clock",
        expected=time.time() - wall,
        measured=measured,
        unit="s",
        tolerance=CLOCK_TOLERANCE,
        note="perf_counter compared with the wall clock",
    )
