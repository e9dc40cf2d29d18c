"""Whether the harness measures right on this machine: what is known beforehand, measured as runs are measured.

One child allocates known amounts of host memory, phase by phase, and returns what it measured; another one for each
accelerator does so on that device.
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


class SelftestJob(msgspec.Struct, frozen=True, kw_only=True):
    """The checks of one device, or of the host if there is no `plugin`."""

    backend: str = ""
    plugin: PluginRef | None = None
    device: str = ""


def run(catalog: Catalog) -> list[Check]:
    """Run all checks, in child processes: of the host, and of every accelerator that a backend of `catalog` has.

    Raises `harness.HarnessError` where such a process fails.
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
        raise HarnessError(f"the self-test's process failed: {checks.message}")
    return checks


def check(job: SelftestJob, context: ChildContext) -> list[Check]:
    """Make the job's checks in this process."""
    if job.plugin is None:
        return [*host_memory(), clock()]
    return list(device_memory(job.backend, job.plugin, job.device))


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
    from harness.execute.preparation import backend_of

    provided = backend_of(plugin, backend)
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
