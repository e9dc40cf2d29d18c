"""Tests of the phases of a run."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timed_sessions import Clock

from harness.measure.phases import Phases
from harness.records import (
    Event,
    PhaseStarted,
)


def test_phases_add_up_and_remember_where_it_broke() -> None:
    events: list[Event] = []
    phases = Phases(events.append)
    for _ in range(2):
        with phases("work"):
            time.sleep(0.01)
    assert 0.02 <= phases.seconds["work"] < 1
    with pytest.raises(ZeroDivisionError), phases("broken"):
        1 / 0  # noqa: B018
    assert phases.current == "broken"
    assert events == [PhaseStarted(phase=phase) for phase in ("work", "work", "broken")]


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=6))
def test_phases_list_every_phase_once(names: list[str]) -> None:
    phases = Phases(lambda event: None)
    for name in names:
        with phases(name):
            pass
    assert list(phases.seconds) == list(dict.fromkeys(names))
    assert set(phases.memory.by_phase_bytes) == set(names)


def test_phase_aside_is_not_part_of_the_phase_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, events = Clock(), list[Event]()
    monkeypatch.setattr("harness.measure.phases.time", clock)
    phases = Phases(events.append)
    with phases("train"):
        clock.now += 1
        with phases.aside("checkpoint"):
            clock.now += 4
        clock.now += 2
    with phases.aside("checkpoint"):
        clock.now += 8
    assert phases.seconds == {"train": 3.0, "checkpoint": 12.0}
    assert list(phases.seconds) == ["train", "checkpoint"] == list(phases.memory.by_phase_bytes)
    assert events == [PhaseStarted(phase=phase) for phase in ("train", "checkpoint", "train", "checkpoint")]
    with pytest.raises(ZeroDivisionError), phases("train"), phases.aside("checkpoint"):
        1 / 0  # noqa: B018
    assert phases.current == "checkpoint"
