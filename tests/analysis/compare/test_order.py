"""Tests of the selection of pairs of runs by their chronological order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_records import ENVIRONMENT, record, success

from harness.analysis.compare.order import pairs
from harness.records import Evidence, Placement, Success
from harness.records.store import StoredRun

Sides = tuple[list[StoredRun], list[StoredRun]]


def sides(order: str, *, minutes: list[int] | None = None, outcome: Success | None = None, **changes: Any) -> Sides:
    """Return the runs of A and B, which start one minute apart in the given order."""
    found: Sides = ([], [])
    for position, letter in enumerate(order):
        minute = minutes[position] if minutes else position
        started_at = f"2026-01-01T{minute // 60:02}:{minute % 60:02}:00.000+00:00"
        found["AB".index(letter)].append(StoredRun(Path(), record(outcome, started_at=started_at, **changes)))
    return found


def positions(chosen: list[tuple[StoredRun, StoredRun]]) -> list[tuple[int, int]]:
    """Return the minutes at which the runs of A and B in each pair started."""
    return [tuple(int(run.record.started_at[14:16]) for run in pair) for pair in chosen]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("", []),
        ("A", []),
        ("AAABBB", [(2, 3)]),
        ("ABBA", [(0, 1), (3, 2)]),
        ("ABBAAB", [(0, 1), (3, 2), (4, 5)]),
        ("BAABBA", [(1, 0), (2, 3), (5, 4)]),
        ("ABABAB", [(0, 1), (4, 3)]),  # a third pair A B would be biased by a drift
        ("ABABABABAB", [(0, 1), (4, 3), (6, 5), (8, 9)]),
        ("AABBAABB", [(1, 2), (4, 3), (5, 6)]),
        ("AABBAABBA", [(1, 2), (4, 3), (5, 6), (8, 7)]),
        ("ABBAA", [(0, 1), (3, 2)]),  # one side has one more run
        ("AABBA", [(1, 2), (4, 3)]),
    ],
)
def test_pairs_of_an_order_are_consecutive_and_balanced(order: str, expected: list[tuple[int, int]]) -> None:
    assert positions(pairs(*sides(order))) == expected


@given(st.text("AB", max_size=40))
def test_pairs_cancel_a_linear_drift(order: str) -> None:
    chosen = positions(pairs(*sides(order)))
    assert len({minute for pair in chosen for minute in pair}) == 2 * len(chosen)
    assert all(abs(a - b) == 1 for a, b in chosen)
    assert abs(sum(b - a for a, b in chosen)) <= 1


@given(st.integers(1, 10), st.booleans())
def test_pairs_of_planned_order_use_every_run(repeats: int, base_first: bool) -> None:
    forward = "AB" if base_first else "BA"
    order = "".join(forward[:: -1 if repeat % 2 else 1] for repeat in range(repeats))
    assert len(pairs(*sides(order))) == repeats


def test_pairs_of_two_sessions_do_not_depend_on_the_gap() -> None:
    base, new = sides("ABBAABBA", minutes=[0, 1, 2, 3, 40, 41, 42, 43])
    assert positions(pairs(base, new)) == [(0, 1), (3, 2), (40, 41), (43, 42)]


def test_pairs_leave_out_runs_whose_order_is_unknown() -> None:
    base, new = sides("ABBAAB", minutes=[0, 0, 1, 2, 3, 4])
    assert positions(pairs(base, new)) == [(2, 1), (3, 4)]
    assert pairs(base, base) == []


def test_pairs_compare_instants_not_texts() -> None:
    """Times may be written with different offsets from UTC, and with or without fractions of a second."""
    texts = ["2026-01-01T00:00:30Z", "2026-01-01T01:01:00.500+01:00", "2025-12-31T23:02:00-01:00", "2026-01-01T00:03"]
    a, b, c, d = (StoredRun(Path(), record(started_at=text)) for text in texts)
    assert pairs([a, d], [b, c]) == [(a, b), (d, c)]
    assert pairs([a], [StoredRun(Path(), record(started_at="2026-01-01T03:00:30+03:00"))]) == []
    for text in ("", "yesterday", "9999-12-31T23:59:59-10:00"):
        assert pairs([a], [StoredRun(Path(), record(started_at=text)), b]) == [(a, b)]


def lasting(seconds: float, *, clock_s: float = 5.0, **changes: Any) -> dict[str, Any]:
    outcome = success()
    evidence = Evidence(timed_examples=1, timed_error=0.0, evaluated_weights_digest="", clock_s=clock_s, wall_s=5.0)
    return {"outcome": msgspec.structs.replace(outcome, phases_s={"train": seconds}, evidence=evidence), **changes}


@pytest.mark.parametrize("order", ["ABBA", "ABBAAB", "ABABAB"])
@pytest.mark.parametrize("overlap_s", [0.5, 3.0])
def test_pairs_leave_out_runs_that_overlap(order: str, overlap_s: float) -> None:
    """Runs that overlap affect each other. Their start times may alternate although the runs did not."""
    chosen = pairs(*_lasting(order, 60 + overlap_s))
    assert bool(chosen) == (overlap_s < 1)


def test_pairs_leave_out_only_the_runs_that_overlap() -> None:
    base, new = _lasting("ABBAAB", 50)
    outcome = base[0].record.outcome
    long = msgspec.structs.replace(base[0].record, outcome=msgspec.structs.replace(outcome, phases_s={"train": 200}))
    assert positions(pairs([StoredRun(Path(), long), *base[1:]], new)) == [(4, 5)]


def test_pairs_are_not_known_if_the_clock_was_changed() -> None:
    base, new = sides("ABBA")
    stepped = [StoredRun(Path(), record(started_at=base[0].record.started_at, **lasting(5, clock_s=65)))]
    assert positions(pairs(base, new)) == [(0, 1), (3, 2)]
    assert pairs([*stepped, *base[1:]], new) == []


def test_pairs_are_not_further_apart_than_the_limit() -> None:
    """Runs of one side by day and of the other by night alternate, but a change in the machine does not cancel out."""
    base, new = sides("ABABABAB", minutes=[0, 600, 1200, 1260, 1270, 1290, 1300, 1379])
    assert len(pairs(base, new)) == 2
    assert pairs(*sides("ABABABAB", minutes=[90 * n for n in range(8)])) == []


def _lasting(order: str, seconds: float) -> Sides:
    return sides(order, **lasting(seconds))


def test_pairs_are_on_one_machine() -> None:
    """The two machines run at the same time; without the distinction, runs of different machines would be paired."""
    other = msgspec.structs.replace(ENVIRONMENT, cpu="Other CPU")
    here, there = sides("ABBA", minutes=[0, 2, 4, 6]), sides("BAAB", minutes=[1, 3, 5, 7], environment=other)
    base, new = ([*one, *two] for one, two in zip(here, there, strict=True))
    assert positions(pairs(base, new)) == [(0, 2), (6, 4), (3, 1), (5, 7)]
    assert pairs(here[0], there[1]) == []


def test_pairs_of_simultaneous_runs_have_the_same_cores() -> None:
    """Two lanes execute the runs A B B A at the same time. A run is never paired with a run of the other lane."""
    found: Sides = ([], [])
    for core in (0, 1):
        placement = Placement(jobs=2, cores=(core,), checked_at="2026-01-01T00:00:00Z")
        for side, runs in zip(found, sides("ABBA"), strict=True):
            side += [StoredRun(run.path, msgspec.structs.replace(run.record, placement=placement)) for run in runs]
    chosen = pairs(*found)
    assert positions(chosen) == [(0, 1), (3, 2)] * 2
    assert all(one.record.placement == other.record.placement for one, other in chosen)
