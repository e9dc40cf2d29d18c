"""Check of the recorded memory values. The values cannot be recomputed, but must be consistent with each other."""

from __future__ import annotations

from harness.checks.audit.check import Check, Result, Subject
from harness.measure.summary import NOT_COUNTED


def _memory(subject: Subject) -> Result:
    memory, phases_s = subject.outcome.memory, subject.outcome.phases_s
    peaks = {name: peak for name, peak in memory.host_peak_by_phase_bytes.items() if name not in NOT_COUNTED}
    problems = []
    if list(memory.host_peak_by_phase_bytes) != list(phases_s):
        problems.append("memory peaks and durations are recorded for different phases")
    if memory.host_peak_bytes != max(peaks.values(), default=0):
        problems.append(
            f"the host peak is {memory.host_peak_bytes}, but the largest peak of a phase is "
            f"{max(peaks.values(), default=0)}"
        )
    values = list(memory.host_peak_by_phase_bytes.values())
    if min(values, default=0) <= 0 or max(values, default=0) > subject.record.environment.memory_bytes:
        problems.append("a memory peak is not positive or exceeds the memory of the machine")
    if memory.tree_peak_bytes is not None and memory.tree_peak_bytes < memory.host_peak_bytes:
        problems.append(f"the peak including child processes ({memory.tree_peak_bytes}) is below the host peak")
    if len(memory.ranks) != (subject.spec.devices if subject.spec.devices > 1 else 0):
        problems.append(
            f"the run used {subject.spec.devices} devices, but the record contains {len(memory.ranks)} memory peaks"
        )
    elif memory.ranks and memory.ranks[0].host_peak_bytes != memory.host_peak_bytes:
        problems.append("the host peak of the first process differs from that of the worker")
    if memory.device is not None:
        allocated, reserved = memory.device.allocator_peak_bytes, memory.device.reserved_peak_bytes
        given = [value for value in (allocated, reserved, memory.device.driver_peak_bytes) if value is not None]
        if min(given, default=0) < 0 or (allocated is not None and reserved is not None and allocated > reserved):
            problems.append(f"the peaks of the device are inconsistent: {memory.device}")
        if subject.spec.device == "cpu":
            problems.append("the run used no accelerator, but the record contains accelerator memory")
    return Result(problems, f"host peak {memory.host_peak_bytes / 2**20:.1f} MiB in {len(peaks)} phases")


CHECKS = (Check("memory values are consistent", ("outcome.memory",), _memory),)
