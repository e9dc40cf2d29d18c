"""Peak memory by phase, and that of other processes."""

from __future__ import annotations

import mmap
import platform
import subprocess
import sys

import pytest
from timed_sessions import MIB

from harness.measure.memory import PhaseMemory, peak_bytes, reset_peak
from harness.measure.summary import memory

CHILD = """
import sys
from harness.measure.memory import PhaseMemory
memory = PhaseMemory()
memory.enter("before")
memory.enter("large")
block = bytearray(b"x") * (64 * 2**20)
del block
memory.enter("after")
memory.finish()
print(memory.counter, *(memory.by_phase_bytes[phase] for phase in ("before", "large", "after")), sep="\\n")
"""


def phases_of_a_child() -> tuple[str, int, int, int]:
    said = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True).stdout
    counter, *figures = said.splitlines()
    before, large, after = map(int, figures)
    return counter, before, large, after


def test_known_allocation_is_seen_in_its_phase_only() -> None:
    counter, before, large, after = phases_of_a_child()
    if "reset at each phase" not in counter:
        pytest.skip(f"the counter cannot be reset here: {counter}")
    assert abs(large - before - 64 * MIB) < 2 * MIB
    assert abs(after - before) < 2 * MIB


SCATTERED = """
import numpy as np
from harness.measure.memory import release_free_memory, peak_bytes, reset_peak
blocks = [np.ones(1500) for _ in range(8000)]
pins = blocks[::100]
del blocks
reset_peak()
kept = peak_bytes()
release_free_memory()
reset_peak()
print(kept - peak_bytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to give memory back")
def test_what_many_small_arrays_leave_is_given_back() -> None:
    """All but each hundredth of the blocks of 12 kB are freed, and no longer count as used memory afterwards."""
    if not reset_peak():
        pytest.skip("the kernel does not let a process reset its peak of memory")
    said = subprocess.run([sys.executable, "-c", SCATTERED], capture_output=True, text=True, check=True).stdout
    assert int(said) > 64 * MIB


def test_peak_of_the_parent_does_not_reach_the_child() -> None:
    _, before, _, _ = phases_of_a_child()
    block = bytearray(b"x") * (300 * MIB)
    assert peak_bytes() > 300 * MIB
    _, beside_large_parent, _, _ = phases_of_a_child()
    del block
    assert abs(beside_large_parent - before) < 4 * MIB
    assert before < 100 * MIB


def test_phase_entered_again_keeps_its_highest_peak() -> None:
    memory = PhaseMemory()
    memory.enter("a")
    with mmap.mmap(-1, 32 * MIB) as block:  # new pages: an array may reuse memory of the process
        for start in range(0, len(block), mmap.PAGESIZE):
            block[start] = 1
    memory.enter("b")
    memory.enter("a")
    memory.finish()
    if "reset" in memory.counter:
        assert memory.by_phase_bytes["a"] > memory.by_phase_bytes["b"] + 24 * MIB
    assert set(memory.by_phase_bytes) == {"a", "b"}


def test_without_a_reset_the_figures_are_cumulative_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measure.memory.reset_peak", lambda: False)
    memory = PhaseMemory()
    memory.enter("a")
    memory.enter("b")
    memory.finish()
    assert memory.counter.endswith("cumulative")
    assert memory.by_phase_bytes["a"] <= memory.by_phase_bytes["b"]


TREE = """
import subprocess, sys
from harness.measure.memory import PhaseMemory
memory = PhaseMemory()
memory.enter("alone")
memory.enter("together")
child = subprocess.Popen(
    [sys.executable, "-c", "block = b'x' * (64 * 2**20); print(flush=True); input()"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
child.stdout.readline()
memory.enter("afterwards")
child.communicate(b"\\n")
memory.enter("end")
memory.finish()
print(*(memory.by_phase_bytes["together"], memory.tree_by_phase_bytes["together"]), sep="\\n")
print(sorted(memory.tree_by_phase_bytes))
"""


def test_memory_of_started_processes_is_told_beside_the_workers_own() -> None:
    said = subprocess.run([sys.executable, "-c", TREE], capture_output=True, text=True, check=True).stdout
    own, tree, phases = said.splitlines()
    bare = subprocess.run(
        [sys.executable, "-c", "from harness.measure.memory import peak_bytes; print(peak_bytes())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert int(tree) - int(own) > 64 * MIB
    assert int(tree) - int(own) < 64 * MIB + int(bare)
    assert phases == "['together']"


def test_peak_with_started_processes_is_never_below_the_host_peak() -> None:
    """In a phase without started processes, the sum is the peak of the worker alone."""
    measured = PhaseMemory()
    measured.by_phase_bytes = {"prepare": 900, "data": 100, "train": 600}
    measured.tree_by_phase_bytes = {"data": 150}
    assert memory(measured, None).tree_peak_bytes == 600
    measured.tree_by_phase_bytes = {}
    assert memory(measured, None).tree_peak_bytes is None
