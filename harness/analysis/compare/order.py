"""Chronological order of the runs in a comparison, and pairs of consecutive runs.

The order is determined by the start times, which are read from the system clock. Runs whose order is uncertain are not
paired. The order is uncertain if a run started at the same time as a run in the other set, if it overlapped another
run, or if the machine's clock was changed during a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from harness.analysis.differences import machine_of
from harness.records import RunRecord, Success
from harness.records.store import StoredRun

Pair = tuple[StoredRun, StoredRun]
"""Two consecutive runs, one from BASE and one from NEW."""

MAX_GAP = timedelta(hours=1)
"""Maximum time between the end of the first run and the start of the second run in a pair. Over longer periods, the
state of the machine may change, for example between day and night."""
SLACK_S, SLACK_FRACTION = 1.0, 0.01
"""Allowed difference between the system clock and the run's timer: a number of seconds plus a fraction of the duration.
The operating system may make small adjustments to the clock."""


class _Turn(NamedTuple):
    started: datetime
    ended: datetime
    """Start time plus the durations of all phases. The sum is a lower bound on the end time."""
    is_new: bool
    """True if the run is from NEW. False if the run is from BASE."""
    run: StoredRun


def pairs(base: Sequence[StoredRun], new: Sequence[StoredRun]) -> list[Pair]:
    """Return pairs of consecutive runs on the same machine, one from each set.

    On each machine, the run from BASE comes first in about half of the pairs: the numbers of pairs in the two orders
    differ by at most one. A linear drift in the speed of the machine therefore cancels out in the mean difference. In
    the order A B B A, all runs are paired. In the order A B A B, some runs remain unpaired. The time between the runs
    of a pair is at most `MAX_GAP`. Machines with the same hardware and kernel are treated as one machine. If several
    runs were executed at the same time, only runs on the same cores are paired.
    """
    machines: dict[tuple[str, ...], list[_Turn]] = {}
    stepped: set[tuple[str, ...]] = set()
    for is_new, side in ((False, base), (True, new)):
        for run in side:
            environment = run.record.environment
            machine = (*machine_of(run.record).values(), str(environment.memory_bytes), environment.kernel, lane(run))
            if _clock_was_changed(run.record):
                stepped.add(machine)
            elif turn := _turn(run, is_new):
                machines.setdefault(machine, []).append(turn)
    return [
        pair
        for machine, turns in machines.items()
        if machine not in stepped
        for pair in _balanced(sorted(turns, key=lambda turn: turn.started))
    ]


def lane(run: StoredRun) -> str:
    """Return the cores and the GPU to which a run was restricted. Return an empty string if the run was not
    restricted."""
    placement = run.record.placement
    return "" if placement is None else f"{placement.cores} {placement.gpu}"


def _turn(run: StoredRun, is_new: bool) -> _Turn | None:
    """Return a run with its start and end times. Return None if the start time cannot be parsed."""
    outcome = run.record.outcome
    try:
        started = datetime.fromisoformat(run.record.started_at)
        started = started.astimezone(UTC) if started.tzinfo else started.replace(tzinfo=UTC)
        lasted = timedelta(seconds=sum(outcome.phases_s.values()) if isinstance(outcome, Success) else 0.0)
        return _Turn(started, started + lasted, is_new, run)
    except (ValueError, OverflowError):
        return None


def _clock_was_changed(record: RunRecord) -> bool:
    evidence = record.outcome.evidence if isinstance(record.outcome, Success) else None
    return evidence is not None and abs(evidence.clock_s - evidence.wall_s) > SLACK_S + SLACK_FRACTION * abs(
        evidence.clock_s
    )


def _balanced(ordered: Sequence[_Turn]) -> list[Pair]:
    """Return the pairs of runs on one machine. `ordered` contains all runs on this machine, sorted by start time."""
    unclear = _at_the_same_time(ordered) | _overlapping(ordered)
    chosen: list[Pair] = []
    index = surplus = 0  # number of pairs in which the base ran first, minus the number in which the new run was first
    while index + 1 < len(ordered):
        first, second = ordered[index : index + 2]
        step = -1 if first.is_new else 1
        if (
            first.is_new == second.is_new
            or unclear & {index, index + 1}
            or second.started - first.ended > MAX_GAP
            or abs(surplus + step) > 1
        ):
            index += 1
            continue
        chosen.append((second.run, first.run) if first.is_new else (first.run, second.run))
        surplus += step
        index += 2
    return chosen


def _at_the_same_time(ordered: Sequence[_Turn]) -> set[int]:
    """Return the indices of the runs that started at the same time as a run in the other set."""
    times = [{turn.started for turn in ordered if turn.is_new == side} for side in (False, True)]
    return {index for index, turn in enumerate(ordered) if turn.started in times[0] & times[1]}


def _overlapping(ordered: Sequence[_Turn]) -> set[int]:
    """Return the indices of the runs that overlap another run in time."""
    found: set[int] = set()
    last = 0  # index of the run with the latest end so far
    for index, turn in enumerate(ordered[1:], start=1):
        before = ordered[last]
        slack = timedelta(seconds=SLACK_S) + SLACK_FRACTION * (before.ended - before.started)
        if turn.started < before.ended - slack:
            found |= {last, index}
        if turn.ended > before.ended:
            last = index
    return found
