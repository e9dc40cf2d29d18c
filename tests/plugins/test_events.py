"""Tests of events, including hooks that raise an exception or hang."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest
from plugin_sources import Install
from sample_records import record

from harness.plugins import load
from harness.plugins.events import Events


def test_event_hook_that_raises_is_reported_and_others_run(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = "import harness\nreceived = []\n@harness.hookimpl\ndef harness_run_finished({argument}):\n    {body}\n"
    loud = install(hook.format(argument="record", body="raise ValueError('no tracker')"))
    leaving = install(hook.format(argument="", body="raise SystemExit(3)"))
    sound = install(hook.format(argument="record", body="received.append(record.run_id)"))
    catalog = load([loud, leaving, sound])
    assert catalog.failures == ()
    finished = record()
    with Events(catalog) as events:
        events.notify("harness_run_finished", record=finished, directory=None, attempt_id="1")
    assert sys.modules[sound.value].received == [finished.run_id]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"plugin {loud.name!r} failed in harness_run_finished: ValueError: no tracker" in captured.err
    assert f"plugin {leaving.name!r} failed in harness_run_finished: SystemExit: 3" in captured.err


def test_event_hook_that_hangs_is_abandoned(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", "0.2")
    hook = "import harness, time\nreceived = []\n@harness.hookimpl\ndef harness_run_finished(record):\n    {body}\n"
    stuck = install(hook.format(body="received.append(record.run_id); time.sleep(60)"))
    sound = install(hook.format(body="received.append(record.run_id)"))
    start = time.monotonic()
    with Events(load([stuck, sound])) as events:
        for _ in range(3):
            events.notify("harness_run_finished", record=record(), directory=None, attempt_id="1")
            events.drain()
    assert time.monotonic() - start < 3
    assert len(sys.modules[stuck.value].received) == 1
    assert len(sys.modules[sound.value].received) == 3
    assert capsys.readouterr().err.count("did not return within 0.2 s (HARNESS_PLUGIN_TIMEOUT") == 1


def test_event_hook_that_returns_late_does_not_undo_changes_of_the_caller(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", "0.2")
    monkeypatch.setenv("REMOVED_BY_THE_CALLER", "1")
    late = install(
        "import harness, threading\nreturned = threading.Event()\n"
        "@harness.hookimpl\ndef harness_run_finished():\n    returned.wait(60)\n"
    )
    with Events(load([late])) as events:
        events.notify("harness_run_finished", record=record(), directory=None, attempt_id="1")
    assert "did not return within 0.2 s" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REMOVED_BY_THE_CALLER")
    sys.modules[late.value].returned.set()
    for thread in threading.enumerate():
        if thread.name.endswith(late.name):
            thread.join(10)
            assert not thread.is_alive()
    assert Path.cwd() == tmp_path
    assert "REMOVED_BY_THE_CALLER" not in os.environ
    assert capsys.readouterr().err == ""


def test_changes_of_an_event_hook_that_hangs_are_undone(
    install: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", "0.2")
    monkeypatch.chdir(tmp_path)
    stuck = install(
        "import harness, os, time\n"
        "@harness.hookimpl\ndef harness_run_finished():\n    os.chdir('/')\n    time.sleep(60)\n"
    )
    with Events(load([stuck])) as events:
        events.notify("harness_run_finished", record=record(), directory=None, attempt_id="1")
    assert Path.cwd() == tmp_path
    assert "the plugin changed the current directory; the change was undone" in capsys.readouterr().err


def test_event_hooks_of_a_plugin_run_in_one_thread(install: Install) -> None:
    """An event tracker may use an SQLite connection, which works only in the thread that opened it."""
    source = "import harness, threading\nreceived = []\n@harness.hookimpl\ndef harness_run_finished():\n"
    ref = install(source + "    received.append(threading.get_ident())\n")
    with Events(load([ref])) as events:
        for _ in range(4):
            events.notify("harness_run_finished", record=record(), directory=None, attempt_id="1")
    assert len(sys.modules[ref.value].received) == 4
    assert len(set(sys.modules[ref.value].received)) == 1
