"""Faults of a run's process. Each has a defined outcome within the time limit, and the next run succeeds."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from processes import gone

from harness.errors import RecordError
from harness.execute import channel, child
from harness.records import Failure, Success
from harness.records.store import LOG, Store

from .conftest import Runs, pids

SUCCESS = "success"
LIMIT_S = 5
"""Time limit of endless runs. It must be long enough for a run to start on a busy machine."""

# Backend: expected outcome and a part of the message.
OUTCOMES = {
    "toy-killed": ("crash", "killed by SIGKILL"),
    "toy-segfault": ("crash", "killed by SIGSEGV"),
    "toy-abort": ("crash", "killed by SIGABRT"),
    "toy-exit-silently": ("crash", "exited with status 0 but returned no result"),
    "toy-write-garbage": ("crash", "exited with status 0 but returned no result"),
    "toy-fork-and-continue": ("crash", "exited with status 0 but returned no result"),
    "toy-raise-interrupt": ("crash", "killed by SIGINT"),
    "toy-exhaust-memory": ("oom", "Unable to allocate"),
    "toy-exhaust-files": ("error", "Too many open files"),
    "toy-close-pipe": ("error", "Bad file descriptor"),
    "toy-long-event": (SUCCESS, ""),
    "toy-much-output": (SUCCESS, ""),
    "toy-leave-streams": (SUCCESS, ""),
    "toy-holding-daemon": (SUCCESS, ""),
    "toy-flooding-daemon": (SUCCESS, ""),
}
TIMEOUTS = ("toy-stopped", "toy-endless-output", "toy-endless-events", "toy-endless-results", "toy-endless-line")


@pytest.mark.parametrize("backend", OUTCOMES)
def test_fault_of_the_worker_has_its_outcome(backend: str, runs: Runs) -> None:
    kind, message = OUTCOMES[backend]
    (record,) = runs(backend)
    if (runs.folder / "pids").exists():
        psutil.Process(pids(runs.folder / "pids")[0]).kill()
    assert runs.stored() == [record]
    assert [path.name for path in runs.results.iterdir()] == [record.run_id]
    assert record.wall_s < 30
    if kind == SUCCESS:
        assert isinstance(record.outcome, Success), record.outcome
    else:
        assert isinstance(record.outcome, Failure)
        assert (record.outcome.kind, message in record.outcome.message) == (kind, True), record.outcome


@pytest.mark.parametrize("backend", TIMEOUTS)
def test_endless_fault_ends_at_the_time_limit_without_memory(backend: str, runs: Runs) -> None:
    before = psutil.Process().memory_info().rss
    (record,) = runs(backend, timeout_s=LIMIT_S)
    assert isinstance(record.outcome, Failure)
    assert record.outcome.kind == "timeout"
    assert LIMIT_S <= record.wall_s < LIMIT_S + 8
    assert psutil.Process().memory_info().rss - before < 300 * 2**20
    log = runs.results / record.run_id / LOG
    assert log.stat().st_size <= channel.LOG_HEAD_BYTES + channel.LOG_TAIL_BYTES + 1000
    if backend == "toy-endless-events":
        assert "events were dropped, because there were too many" in log.read_text()


def test_process_that_does_not_end_after_its_result_is_ended(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.execute.child.EXIT_WAIT_S", 1.0)
    (record,) = runs("toy-leave-thread")
    assert isinstance(record.outcome, Success)
    assert record.wall_s < 30
    log = (runs.results / record.run_id / LOG).read_text()
    assert "harness: the process was terminated because it had not exited 1 s after sending its result" in log


def test_long_log_keeps_its_head_and_tail(runs: Runs) -> None:
    (record,) = runs("toy-much-output")
    log = (runs.results / record.run_id / LOG).read_text()
    assert log.startswith("first line\n")
    assert log.endswith("last line\n")
    assert "bytes were omitted here" in log


def test_run_after_each_kind_of_end_succeeds(runs: Runs) -> None:
    records = runs("toy-killed", "toy-stopped", "toy-numpy", timeout_s=LIMIT_S)
    assert [type(record.outcome) for record in records] == [Failure, Failure, Success]


def test_process_limit_is_a_failure_of_the_run(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, os.strerror(11))

    monkeypatch.setattr("harness.execute.child.subprocess.Popen", refuse)
    (record,) = runs("toy-numpy")
    assert isinstance(record.outcome, Failure)
    assert record.outcome.message.startswith("the run could not be started: ")
    assert "Resource temporarily unavailable" in record.outcome.message
    assert runs.stored() == [record]


def test_descriptor_limit_of_the_parent_is_a_failure_of_the_run(runs: Runs) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[object] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 17, hard))
    try:
        while len(taken) < 8:
            taken.append(Path(os.devnull).open())  # noqa: SIM115
        (record,) = runs("toy-numpy")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert runs.stored() == [record]
    assert isinstance(record.outcome, Failure)
    assert "Too many open files" in record.outcome.message


def test_holding_daemon_does_not_delay_the_end(runs: Runs) -> None:
    (record,) = runs("toy-holding-daemon")
    (daemon,) = pids(runs.folder / "pids")
    try:
        assert isinstance(record.outcome, Success)
        assert not gone(daemon, within_s=0.1)  # The run ended although the daemon still holds the channel.
    finally:
        psutil.Process(daemon).kill()


def test_chatty_process_rarely_wakes_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that prints and sends an event every millisecond leaves the parent below 2% of a core."""
    reads = 0
    read = child._read

    def counted(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return read(*arguments)

    monkeypatch.setattr(child, "_read", counted)
    (tmp_path / "chatty.py").write_text(CHATTY)
    lines: list[bytes] = []
    before = psutil.Process().cpu_times()
    ended = child.run_process(
        "chatty",
        [],
        log=tmp_path / LOG,
        timeout_s=60,
        on_line=lines.append,
        environment={"PYTHONPATH": str(tmp_path)},
    )
    after = psutil.Process().cpu_times()
    used_s = after.user + after.system - before.user - before.system
    assert ended.status == 0
    assert len(lines) > 200
    assert lines[-1] == b"last"
    assert reads < 2 * (ended.seconds / child.BATCH_S + 5)
    assert used_s < 0.02 * ended.seconds


CHATTY = """
import os, sys, time
end = time.monotonic() + 4
while time.monotonic() < end:
    os.write(1, b"step 1000, loss 0.123\\n")
    os.write(int(sys.argv[1]), b"a line\\n")
    time.sleep(0.001)
os.write(int(sys.argv[1]), b"last")
os.write(int(sys.argv[1]), b"\\n")
"""


PLANTED = ["toy-plant-pipe", "toy-plant-log-link", "toy-plant-dangling-log", "toy-plant-record-link"]


@pytest.mark.parametrize("backend", [*PLANTED, "toy-plant-directory-link"])
def test_links_and_pipes_that_a_worker_plants_are_neither_read_nor_followed(backend: str, runs: Runs) -> None:
    with contextlib.suppress(RecordError):  # the record may be saved elsewhere
        runs(backend)
    places = [runs.results, *(runs.folder / "tmp").iterdir()]
    (record,) = [run.record for place in places for run in Store(place).load().runs]
    text = msgspec.json.encode(record).decode()
    assert "precious" not in text
    if (runs.folder / "victim").exists():
        assert (runs.folder / "victim").read_text() == "precious"
    assert not (runs.folder / "absent").exists()
    if (runs.folder / "elsewhere").exists():
        assert {path.name: path.read_text() for path in (runs.folder / "elsewhere").glob("*.json")} == {
            "record.json": "precious"
        }
    for place in places:
        for path in place.rglob("*"):
            assert path.is_symlink() or not path.is_file() or "precious" not in path.read_text(errors="replace")
