"""Order in time of the runs of two sides, and pairs of runs that were made close to each other in time."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.differences import machine_of
from harness.records.store import StoredRun

Pair = tuple[StoredRun, StoredRun]
"""A run of the base and a run of the new side."""
_Turn = tuple[str, bool, StoredRun]
"""Start time of the run, True if it belongs to the new side, and the run."""


def pairs(base: Sequence[StoredRun], new: Sequence[StoredRun]) -> list[Pair]:
    """Return pairs of consecutive runs on the same machine, one of each side.

    On each machine, the number of pairs in which the base ran first differs by at most one from the number of pairs in
    which it ran second, so that a linear drift in the machine's speed cancels out of the mean difference. In the order
    A B B A, every run is in a pair. In the order A B A B, some runs are not in any pair. Runs of the two sides that
    started at the same time are excluded, because their order is unknown.
    """
    machines: dict[tuple[str, ...], list[_Turn]] = {}
    for is_new, side in ((False, base), (True, new)):
        for run in side:
            ordered = machines.setdefault(tuple(machine_of(run.record).values()), [])
            ordered.append((run.record.started_at, is_new, run))
    return [pair for ordered in machines.values() for pair in _balanced(sorted(ordered, key=lambda turn: turn[0]))]


def _balanced(ordered: Sequence[_Turn]) -> list[Pair]:
    times = [{started for started, is_new, _ in ordered if is_new == side} for side in (False, True)]
    unclear = times[0] & times[1]
    chosen: list[Pair] = []
    index = surplus = 0  # number of pairs in which the base ran first, minus the number in which the new side ran first
    while index + 1 < len(ordered):
        (started, first_is_new, first), (next_started, second_is_new, second) = ordered[index : index + 2]
        step = -1 if first_is_new else 1
        if first_is_new == second_is_new or unclear & {started, next_started} or abs(surplus + step) > 1:
            index += 1
            continue
        chosen.append((second, first) if first_is_new else (first, second))
        surplus += step
        index += 2
    return chosen
