"""Faults of the command-line process: signals, and closed, full and blocked streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from processes import gone

from harness.records import Failure, Success

from .conftest import CommandLine, pids, wait_for


def hanging(command_line: CommandLine) -> tuple[psutil.Popen, list[int]]:
    """Start a plan whose second run hangs, and return its process and the ids of the run and of its child."""
    process = command_line.start(*command_line.run_words("toy-numpy", "toy-hang-with-grandchild"))
    return process, pids(command_line.folder / "pids")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_plan_saves_its_records(number: signal.Signals, command_line: CommandLine) -> None:
    process, below = hanging(command_line)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert all(gone(pid) for pid in below)
    first, second = command_line.stored()
    assert isinstance(first.outcome, Success)
    assert second.outcome == Failure(
        kind="interrupted", message="stopped by the user", log_tail="hanging", phase="train"
    )
    assert command_line.partial() == []


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.1, 0.3])
def test_several_interrupts_save_the_records_too(delay_s: float, command_line: CommandLine) -> None:
    process, below = hanging(command_line)
    for _ in range(6):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        time.sleep(delay_s)
    _, error = process.communicate(timeout=30)
    assert "Traceback" not in error
    assert all(gone(pid) for pid in below)
    assert [type(record.outcome) for record in command_line.stored()] == [Success, Failure]
    assert command_line.partial() == []


IGNORED = """
import os, signal, time, weakref
from harness.cli import streams

class Resource:
    pass

def interrupt(_):
    signal.raise_signal(signal.SIGINT)

streams.prepare()
try:
    resource = Resource()
    {watch}
    del resource
    time.sleep(10)
except KeyboardInterrupt:
    os._exit(130)
"""


@pytest.mark.parametrize("watch", ["Resource.__del__ = interrupt", "reference = weakref.ref(resource, interrupt)"])
def test_interrupt_during_a_finalizer_or_a_callback_is_not_lost(watch: str) -> None:
    code = IGNORED.format(watch=watch)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
def test_killed_parent_leaves_no_process_and_the_next_plan_cleans_up(
    number: signal.Signals, command_line: CommandLine
) -> None:
    process, below = hanging(command_line)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number
    assert all(gone(pid) for pid in below)
    assert [type(record.outcome) for record in command_line.stored()] == [Success]
    assert len(command_line.partial()) == 1
    assert command_line.shell("$RUN --rerun").returncode == 0
    assert command_line.partial() == []
    assert len(command_line.stored()) == 2


def test_stopped_and_continued_parent_finishes(command_line: CommandLine) -> None:
    process = command_line.start(*command_line.run_words("toy-numpy"))
    wait_for(lambda: (command_line.folder / "results").exists())
    process.suspend()
    time.sleep(0.5)
    process.resume()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert [type(record.outcome) for record in command_line.stored()] == [Success]


STREAMS = {
    "closed stderr": "$RUN 2>&-",
    "closed stdout": "$RUN >&-",
    "closed stdin": "$RUN <&-",
    "all closed": "$RUN <&- >&- 2>&-",
    "full stderr": "$RUN 2>/dev/full",
    "full stdout": "$RUN >/dev/full",
    "both full": "$RUN >/dev/full 2>/dev/full",
    "stderr into head": "set -o pipefail; $RUN 2>&1 >/dev/null | head -1",
    "stdout into head": "set -o pipefail; $RUN 2>/dev/null | head -1",
    "stdout into nothing": "set -o pipefail; $RUN 2>/dev/null | true",
    "both into nothing": "set -o pipefail; $RUN 2>&1 | true",
    "stderr that is not read": "mkfifo pipe; (exec 3<pipe; sleep 20) & $RUN 2>pipe; status=$?; kill %1; exit $status",
}


@pytest.mark.parametrize("name", STREAMS)
def test_faulty_stream_does_not_change_the_outcome(name: str, command_line: CommandLine) -> None:
    done = command_line.shell(STREAMS[name])
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert [type(record.outcome) for record in command_line.stored()] == [Success]


def test_failed_run_with_full_streams_still_fails(command_line: CommandLine) -> None:
    words = " ".join(command_line.run_words("toy-killed"))
    assert command_line.shell(f"{words} >/dev/full 2>/dev/full").returncode == 1
    assert [type(record.outcome) for record in command_line.stored()] == [Failure]


def test_usage_error_on_a_full_stderr_keeps_its_status(command_line: CommandLine) -> None:
    assert command_line.shell("$HARNESS run --task toy-unknown 2>/dev/full").returncode == 2


@pytest.mark.parametrize("command", ["--help", "run --help", "list", "plugin list --format json"])
def test_full_stdout_is_an_error_without_a_traceback(command: str, command_line: CommandLine) -> None:
    done = command_line.shell(f"$HARNESS {command} >/dev/full")
    assert (done.returncode, done.stderr.lower()) == (1, "error: cannot write to stdout: no space left on device\n")


def test_two_plans_in_one_directory_save_all_runs(command_line: CommandLine) -> None:
    words = [*command_line.run_words("toy-numpy", "toy-killed"), "--rerun", "--wait"]
    plans = [command_line.start(*words) for _ in range(2)]
    assert [plan.wait(60) for plan in plans] == [1, 1]
    runs = sorted((record.spec.backend, record.repeat) for record in command_line.stored())
    assert runs == [("toy-killed", 1), ("toy-killed", 2), ("toy-numpy", 1), ("toy-numpy", 2)]
    assert command_line.partial() == []


def test_long_message_does_not_wait_for_a_pipe_with_little_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe is ready if it has space for 4096 bytes, but a longer message would block."""
    from harness.cli.streams import screen

    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stream)
    thread = threading.Thread(target=screen().write, args=(10**6 * "\u20ac",), daemon=True)
    thread.start()
    thread.join(20)
    try:
        assert not thread.is_alive()
    finally:
        os.close(reading)
        if thread.is_alive():
            thread.join(20)
        stream.close()


def test_blocked_pipe_does_not_delay_the_time_limit(command_line: CommandLine) -> None:
    """The pipe for progress is full before the run starts."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writing, True)
    words = [*command_line.run_words("toy-hang"), "--timeout", "2"]
    process = command_line.start(*words, stderr=writing, stdout=subprocess.DEVNULL)
    os.close(writing)
    try:
        assert process.wait(40) in (0, 1)
    finally:
        os.close(reading)
    (record,) = command_line.stored()
    assert isinstance(record.outcome, Failure)
    assert record.outcome.kind == "timeout"


# ---- two commands at the same time --------------------------------------------------------------------------


def test_second_command_ends_with_a_message(command_line: CommandLine) -> None:
    first, _ = hanging(command_line)
    second = command_line.start(*command_line.run_words("toy-numpy", "toy-chatter"))
    out, error = second.communicate(timeout=60)
    assert (second.returncode, out) == (1, "")
    assert f"another harness command (process {first.pid}, " in error
    assert "--wait" in error
    assert len(command_line.stored()) == 1


def test_second_command_that_waits_continues_after_the_end_of_the_first(command_line: CommandLine) -> None:
    first, _ = hanging(command_line)
    second = command_line.start(*command_line.run_words("toy-numpy", "toy-chatter"), "--wait")
    assert second.stderr is not None
    while "waiting for another harness command" not in second.stderr.readline():
        assert second.poll() is None
    first.kill()
    _, error = second.communicate(timeout=60)
    assert second.returncode == 0, error
    assert "skip: toy-regress · toy-linear · toy-numpy · seed 0: done on" in error
    assert [record.spec.backend for record in command_line.stored()] == ["toy-numpy", "toy-chatter"]
    assert command_line.partial() == []
