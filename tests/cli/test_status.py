"""Tests of ``harness status`` and of the recorded plans."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import msgspec
import pytest
from command_line import Invoke
from sample_records import record
from sample_store import write
from toy_plugin import FAST, SET_FAST

from harness.execute import plans
from harness.execute.plans import FOLDER, MAX_PLANS, progress, recorded
from harness.execute.runner import run_all
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins.catalog import Catalog
from harness.records import Failure, RunSpec
from harness.records.store import Store

TOY = ("--task", "toy-classify", "--threads", "1", *SET_FAST)


@pytest.fixture
def specs(catalog: Catalog) -> tuple[RunSpec, ...]:
    chosen = Selection(
        tasks=("toy-regress",), backends=("toy-numpy", "toy-segfault"), seeds=(0, 1), threads=1, overrides=FAST
    )
    return expand(chosen, catalog)


def test_status_of_a_finished_command(invoke: Invoke) -> None:
    assert "no runs were planned in this results directory" in invoke("status").stdout
    assert invoke("run", *TOY, "--backend", "toy-numpy").exit_code == 0
    shown = invoke("status").stdout
    assert ": finished\n1 run: 1 done, 0 running, 0 failed, 0 remaining\n" in shown
    (values,) = json.loads(invoke("status", "--format", "json").stdout)
    assert values["command"].startswith("harness run --task toy-classify --threads 1 ")
    assert (values["state"], values["done"], values["left"]) == ("finished", 1, 0)


def test_status_counts_runs_while_the_plan_is_running_and_after_it_was_interrupted(
    invoke: Invoke, specs: tuple[RunSpec, ...], catalog: Catalog, tmp_path: Path
) -> None:
    store = Store(tmp_path / "results")
    store.prepare()
    words = ["run", "--suite", "my suite.toml"]
    with recorded(store, specs, skipped=3, command=words):
        run_all(specs[:2], catalog, store)
        with store.scratch():
            shown = invoke("status").stdout
    assert f": running (process {os.getpid()} on " in shown
    assert "\n7 runs: 4 done (3 of them before this plan), 1 running, 1 failed, 1 remaining\n" in shown
    assert "\nrunning now: toy-regress · toy-linear · toy-segfault · seed 1\n" in shown
    assert "\nremaining time: about 0:0" in shown
    assert "not including 1 run of unknown duration" in shown
    stopped = invoke("status").stdout
    assert ": interrupted\n" in stopped
    assert "0 running, 1 failed, 2 remaining" in stopped
    assert "repeat the command to continue the plan\n  harness run --suite 'my suite.toml'\n" in stopped
    run_all(specs[2:], catalog, store)
    assert "2 failed, 0 remaining" in invoke("status").stdout


def test_plan_is_locked_on_a_file_system_that_requires_write_access_for_exclusive_locks(
    specs: tuple[RunSpec, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS is such a file system. Without the lock, a running plan would be reported as interrupted."""
    flock = fcntl.flock

    def lock(file: int, operation: int) -> None:
        access = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if access == (os.O_RDONLY if operation & fcntl.LOCK_EX else os.O_WRONLY):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock)
    store = Store(tmp_path)
    with recorded(store, specs, skipped=0, command=()):
        assert [plan.alive for plan in progress(store)[0]] == [True]
    assert [plan.alive for plan in progress(store)[0]] == [False]


def test_status_interrupted_run_is_a_remaining_run(invoke: Invoke, specs: tuple[RunSpec, ...], tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    with recorded(store, specs[:1], skipped=0, command=["run"], titles={specs[0].key: "the first run"}):
        outcome = Failure(kind="interrupted", message="stopped by the user", phase="train")
        stopped = msgspec.structs.replace(
            record(outcome, started_at="2099-01-01T00:00:00Z"), spec=specs[0], key=specs[0].key
        )
        write(store.path, [stopped])
        with store.scratch():
            assert "\nrunning now: the first run\n" in invoke("status").stdout
    shown = invoke("status").stdout
    assert ": interrupted\n1 run: 0 done, 0 running, 0 failed, 1 remaining\n" in shown


def test_plan_from_the_future_is_not_the_most_recent_plan(
    specs: tuple[RunSpec, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was set back after the plan. Without this rule, the plan would be shown until its time is reached."""
    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(plans, "_now", lambda: "2999-01-01T00:00:00.000+00:00")
        for _ in range(MAX_PLANS):
            with recorded(store, specs, skipped=0, command=("run", "--wrong-clock")):
                pass
    for command in ("first", "second"):
        with recorded(store, specs, skipped=0, command=("run", command)):
            pass
        (shown,), problems = progress(store)
        assert (shown.plan.command, problems) == (["run", command], [])


def test_recorded_plans_are_bounded(specs: tuple[RunSpec, ...], tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    with recorded(store, specs, skipped=0, command=()):
        for _ in range(MAX_PLANS + 3):
            with recorded(store, specs[:1], skipped=0, command=()):
                pass
        files = list((store.path / FOLDER).iterdir())
        assert len(files) == MAX_PLANS + 1  # the running plan is kept
        running, last = progress(store)[0]
    assert (running.alive, len(running.plan.runs), last.alive) == (True, 4, False)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 10**5, b'{"version": 2}'])
def test_status_damaged_plan_is_reported(content: bytes, invoke: Invoke, tmp_path: Path) -> None:
    folder = tmp_path / "results" / FOLDER
    folder.mkdir(parents=True)
    (folder / "2026.json").write_bytes(content)
    result = invoke("status")
    assert result.exit_code == 0
    assert "Warning: " in result.stderr
    assert "2026.json" in result.stderr


def test_status_does_not_follow_links(
    invoke: Invoke, specs: tuple[RunSpec, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, store = Store(tmp_path / "other"), Store(tmp_path / "results")
    with recorded(other, specs, skipped=0, command=()):
        pass
    store.prepare()
    (store.path / FOLDER).symlink_to(other.path / FOLDER)
    assert "no runs were planned in this results directory" in invoke("status").stdout
    with recorded(store, specs, skipped=0, command=()):  # has no effect, and raises no exception
        assert len(list((other.path / FOLDER).iterdir())) == 1


def test_status_prints_commands_of_harness_only(invoke: Invoke, specs: tuple[RunSpec, ...], tmp_path: Path) -> None:
    """The plan of an untrusted results directory cannot suggest another command."""
    store = Store(tmp_path / "results")
    with recorded(store, specs, skipped=0, command=["run", "; rm -rf ~", "\x1b[2J"]):
        pass
    (path,) = (store.path / FOLDER).iterdir()
    plan = msgspec.json.decode(path.read_bytes(), type=plans.Plan)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(plan, directory="/tmp; reboot")))
    shown = invoke("status").stdout
    assert "\n  cd '/tmp; reboot' && harness run '; rm -rf ~' '" in shown
    assert "\x1b" not in shown
