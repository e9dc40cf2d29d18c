"""Tests of the claims that keep two commands from executing the same runs of a results directory."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from command_line import MAIN
from queued_runs import Bench, Queue, new_bench
from toy_plugin import SET_FAST

from harness.errors import BusyError, RecordError
from harness.execute import claims
from harness.execute.claims import claimed
from harness.execute.plans import FOLDER
from harness.execute.submissions import locked
from harness.plugins.catalog import Catalog
from harness.records.store import Store

GATED = Path(__file__).parents[1] / "builtin" / "ray" / "gated_plugin.py"
BUSY = rf"another harness command \(process {os.getpid()} on .*, started at \d\d:\d\d\) is executing 2 of these runs"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "WAIT_S", 0.01)


@pytest.fixture
def bench(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return new_bench(catalog, tmp_path / "results", monkeypatch)


# flock(2) locks belong to an open file, so two claims of one process exclude each other like those of two processes.
def test_claimed_excludes_commands_with_the_same_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with claimed(store, ["a", "b", "c"]):
        with pytest.raises(BusyError, match=BUSY), claimed(store, ["b", "c", "d"]):
            pass
        with claimed(store, ["d"]) as waited, claimed(Store(tmp_path / "other"), ["a"]):
            assert not waited
    with claimed(store, ["b", "c", "d"]):
        pass
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [claims.LOCK]


def test_claimed_waits_for_the_end_of_the_other_command(tmp_path: Path) -> None:
    held, released, messages = threading.Event(), threading.Event(), []

    def hold() -> None:
        with claimed(Store(tmp_path), ["a", "b"]):
            held.set()
            released.wait(10)

    def say(text: str) -> None:
        messages.append(text)
        released.set()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with claimed(Store(tmp_path), ["a", "b"], wait=True, say=say) as waited:
        assert waited
    thread.join()
    (message,) = messages
    assert message.startswith("waiting, because another harness command")


def test_claimed_file_of_an_ended_process_is_removed_and_that_of_a_running_process_must_be_valid(
    tmp_path: Path,
) -> None:
    folder = tmp_path / FOLDER
    with claimed(Store(tmp_path), ["a"]):
        (path,) = folder.glob(f"*{claims.SUFFIX}")
        (folder / f"0{claims.SUFFIX}").write_bytes(path.read_bytes())
        with claimed(Store(tmp_path), ["b"]):
            assert not (folder / f"0{claims.SUFFIX}").exists()
        path.write_text("{")
        with pytest.raises(RecordError, match=path.name), claimed(Store(tmp_path), ["b"]):
            pass


def test_claimed_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / FOLDER).symlink_to(tmp_path / "elsewhere")
    with claimed(Store(tmp_path / "results"), ["a"]):
        assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("rerun", [False, True])
def test_runs_that_another_command_executes_are_neither_executed_nor_submitted(
    detach: bool,
    rerun: bool,
    bench: Bench,
) -> None:
    with claimed(bench.store, {spec.key for spec in bench.specs[:2]}):
        with pytest.raises(BusyError, match=BUSY):
            bench.run(detach=detach, rerun=rerun)
        assert (Queue.executed, Queue.submitted) == ([], {})
        bench.specs = bench.specs[2:]
        bench.run(detach=detach, rerun=rerun)
    assert Queue.executed == [2, 3]


@pytest.mark.parametrize("detach", [False, True])
def test_command_skips_the_runs_that_another_command_executed_before_they_were_claimed(
    detach: bool,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def claim_late(*arguments: object, **settings: object) -> object:
        monkeypatch.setattr(claims, "claimed", claimed)
        every, bench.specs = bench.specs, bench.specs[:2]
        bench.run(detach=True)
        assert len(bench.run()) == 2
        bench.specs = every
        return claimed(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(claims, "claimed", claim_late)
    assert len(bench.run(detach=detach)) == (2 if detach else 4)
    assert Queue.executed == [0, 1, 2, 3]


@pytest.mark.parametrize("detach", [False, True])
def test_command_does_not_repeat_the_runs_that_another_command_submitted_before_they_were_claimed(
    detach: bool,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def claim_late(*arguments: object, **settings: object) -> object:
        monkeypatch.setattr(claims, "claimed", claimed)
        every, bench.specs = bench.specs, bench.specs[:2]
        bench.run(detach=True)
        bench.specs = every
        return claimed(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(claims, "claimed", claim_late)
    assert len(bench.run(detach=detach)) == (0 if detach else 4)
    assert Queue.executed == [0, 1, 2, 3]
    if detach:
        assert len(bench.run()) == 4
    assert bench.stored == Queue.executed == [0, 1, 2, 3]


def test_command_that_waits_does_not_hold_the_lock_of_the_submissions(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise, two commands could wait for each other."""
    entered: list[bool] = []

    def sleep(_: float) -> None:
        with locked(bench.store, create=True):
            entered.append(True)
        other.close()

    other = ExitStack()
    other.enter_context(claimed(bench.store, [bench.specs[0].key]))
    monkeypatch.setattr("harness.execute.claims.time.sleep", sleep)
    bench.run(detach=True, wait=True)
    assert (entered, Queue.executed) == ([True], [0, 1, 2, 3])


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(toy: Path, tmp_path: Path) -> Start:
    """Function that starts a command for two runs with its own cache, as on another machine."""
    (tmp_path / "gate").mkdir()

    def started(cache: str, *more: str) -> subprocess.Popen[str]:
        words = ["run", "--plugin", str(GATED), "--task", "toy-regress", "--backend", "toy-gated", "--seed", "0,1"]
        words += ["--threads", "1", *SET_FAST, "--set", "recipe.epochs=1", "--results", str(tmp_path / "results")]
        variables = {"HARNESS_CACHE": str(tmp_path / cache), "TOY_GATE": str(tmp_path / "gate")}
        return subprocess.Popen(
            [*MAIN, *words, *more], stderr=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ, **variables}
        )

    return started


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_commands_execute_each_run_once(start: Start, tmp_path: Path) -> None:
    first = start("first")
    wait_for(lambda: list((tmp_path / "gate").glob("started-*")))
    refused, waiting = start("second"), start("third", "--wait")
    message = refused.communicate(timeout=60)[1]
    assert refused.returncode == 1
    assert f"(process {first.pid} on " in message
    assert "is executing 2 of these runs in this results directory; wait until it finishes, or pass --wait" in message
    (tmp_path / "gate" / "open").touch()
    first.communicate(timeout=60)
    assert first.returncode == 0
    message = waiting.communicate(timeout=60)[1]
    assert waiting.returncode == 0
    assert "waiting, because another harness command" in message
    assert "2 runs skipped" in message
    assert sorted(run.record.spec.seed for run in Store(tmp_path / "results").load().runs) == [0, 1]


def test_claim_of_a_killed_command_does_not_stop_the_next(start: Start, tmp_path: Path) -> None:
    first = start("first")
    wait_for(lambda: list((tmp_path / "gate").glob("started-*")))
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    (tmp_path / "gate" / "open").touch()
    second = start("second", "--quality-only")
    second.communicate(timeout=60)
    assert second.returncode == 0
    assert sorted(run.record.spec.seed for run in Store(tmp_path / "results").load().runs) == [0, 1]
    assert list((tmp_path / "results" / FOLDER).glob(f"*{claims.SUFFIX}")) == []
