"""Events: what becomes of hooks that raise or hang."""

from __future__ import annotations

import sys
import time

import pytest
from plugin_sources import Install
from sample_records import record

from harness.plugins import load
from harness.plugins.events import Events


def test_events_that_raise_are_told_and_the_others_hear(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    hook = "import harness\nheard = []\n@harness.hookimpl\ndef harness_run_finished({argument}):\n    {body}\n"
    loud = install(hook.format(argument="record", body="raise ValueError('no tracker')"))
    leaving = install(hook.format(argument="", body="raise SystemExit(3)"))
    sound = install(hook.format(argument="record", body="heard.append(record.run_id)"))
    catalog = load([loud, leaving, sound])
    assert catalog.failures == ()
    finished = record()
    Events(catalog).notify("harness_run_finished", record=finished)
    assert sys.modules[sound.value].heard == [finished.run_id]
    told = capsys.readouterr()
    assert told.out == ""
    assert f"plugin {loud.name!r} failed in harness_run_finished: ValueError: no tracker" in told.err
    assert f"plugin {leaving.name!r} failed in harness_run_finished: SystemExit: 3" in told.err


def test_event_hook_that_hangs_is_left_behind(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", "0.2")
    hook = "import harness, time\nheard = []\n@harness.hookimpl\ndef harness_run_finished(record):\n    {body}\n"
    stuck = install(hook.format(body="heard.append(record.run_id); time.sleep(60)"))
    sound = install(hook.format(body="heard.append(record.run_id)"))
    events = Events(load([stuck, sound]))
    start = time.monotonic()
    for _ in range(3):
        events.notify("harness_run_finished", record=record())
    assert time.monotonic() - start < 3
    assert len(sys.modules[stuck.value].heard) == 1
    assert len(sys.modules[sound.value].heard) == 3
    assert capsys.readouterr().err.count("did not return within 0.2 s (HARNESS_PLUGIN_TIMEOUT") == 1


def test_events_of_a_plugin_come_in_one_thread(install: Install) -> None:
    """A tracker may hold a database, which sqlite3 gives to the thread that opened it only."""
    source = "import harness, threading\nheard = []\n@harness.hookimpl\ndef harness_run_finished():\n"
    ref = install(source + "    heard.append(threading.get_ident())\n")
    events = Events(load([ref]))
    for _ in range(4):
        events.notify("harness_run_finished", record=record())
    assert len(sys.modules[ref.value].heard) == 4
    assert len(set(sys.modules[ref.value].heard)) == 1
