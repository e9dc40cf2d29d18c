"""Tests of submissions, whose runs are executed after the command has ended, and whose results are stored later."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_line import Invoke
from queued_runs import Bench, Queue, finish, new_bench
from toy_runs import toy_specs

from harness.cli.options import expanded
from harness.errors import BusyError, HarnessError, RecordError, UnknownNameError, UsageError
from harness.execute import detached
from harness.execute.runner import Guarded, Listener
from harness.execute.submissions import grant, locked, options_for, submissions, write
from harness.plugins.catalog import Catalog
from harness.records import Failure
from harness.records.locations import state_dir
from harness.records.store import Store


@pytest.fixture
def bench(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return new_bench(catalog, tmp_path / "results", monkeypatch)


Status = Callable[..., Any]


@pytest.fixture
def status(bench: Bench, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> Status:
    """Function that executes ``harness status``, by default for the results directory of `bench`."""
    monkeypatch.setattr("harness.plugins.discover", lambda *_: bench.catalog)
    return lambda *words: invoke("status", *(words or ("--results", str(bench.store.path))))


def test_detached_runs_are_collected_once_and_not_repeated(bench: Bench) -> None:
    assert bench.run(detach=True) == []
    assert "4 runs submitted to the executor queue" in bench.messages[-1]
    assert f"`harness status --results {bench.store.path}`" in bench.messages[-1]
    finish(2)
    assert len(bench.run(detach=True)) == 2
    assert "0 runs submitted to the executor queue; unfinished runs submitted earlier: 2" in bench.messages[-1]
    assert [options_for(bench.store, submission, None) for submission in submissions(bench.store)] == [{"color": "red"}]
    assert [record.spec.seed for record in bench.run()] == [0, 1, 2, 3]
    assert [record.spec.seed for record in bench.run()] == [0, 1, 2, 3]
    assert bench.stored == Queue.executed == [0, 1, 2, 3]
    assert (submissions(bench.store), Queue.submitted) == ([], {})


def test_status_does_not_count_pending_runs_of_an_earlier_submission_as_done(bench: Bench, status: Status) -> None:
    every, bench.specs = bench.specs, bench.specs[:2]
    bench.run(detach=True)
    bench.specs = every
    bench.run(detach=True)
    assert [line for line in status().stdout.splitlines() if "done" in line] == [
        "2 runs: 0 done, 2 running, 0 failed, 0 remaining",
        "2 runs: 0 done, 2 running, 0 failed, 0 remaining",
    ]


def test_only_runs_that_are_neither_submitted_nor_stored_are_submitted(bench: Bench) -> None:
    every = bench.specs
    bench.specs = every[:2]
    bench.run(detach=True)
    bench.specs = every
    bench.run(detach=True)
    assert "2 runs submitted to the executor queue; unfinished runs submitted earlier: 2" in bench.messages[-1]
    assert sorted(Queue.executed) == [0, 1, 2, 3]
    bench.specs = every[2:]
    finish(1)
    bench.run()
    assert bench.stored == [
        0,
        2,
        3,
    ]  # the available result of the first submission, and all results of the second submission


def test_result_that_was_stored_before_a_kill_is_not_stored_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(detach=True)
    finish()
    monkeypatch.setattr(Queue, "killed_after", 3)
    with pytest.raises(UsageError, match="cannot be collected: killed"):
        bench.run()
    assert bench.stored == [0, 1, 2]
    assert len(Queue.results[submissions(bench.store)[0].name]) == 2
    monkeypatch.setattr(Queue, "killed_after", None)
    assert len(bench.run()) == 4
    assert bench.stored == [0, 1, 2, 3]


def test_failure_without_a_record_that_was_stored_before_a_kill_is_not_stored_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executor reports a failure instead of a record, for example because no node is left."""
    bench.run(detach=True)
    finish()
    for results in Queue.results.values():
        results.update(dict.fromkeys(results, Failure(kind="crash", message="no node was available")))
    monkeypatch.setattr(Queue, "killed_after", 3)
    with pytest.raises(UsageError, match="cannot be collected: killed"):
        bench.run()
    assert bench.stored == [0, 1, 2]
    monkeypatch.setattr(Queue, "killed_after", None)
    bench.run()
    assert bench.stored == [0, 1, 2, 3]


def test_two_repeats_of_a_submission_are_both_stored(bench: Bench) -> None:
    bench.specs = bench.specs[:1] * 2
    bench.run(detach=True)
    (submission,) = submissions(bench.store)
    finish(2, Failure(kind="crash", message="gone"))
    assert len(bench.run()) == 2
    ids = [run.record.submission for run in bench.store.load().runs]
    assert sorted(ids) == [f"{submission.name}/1", f"{submission.name}/2"]


def test_failed_detached_run_is_a_result_of_the_command_that_collects_it(bench: Bench) -> None:
    bench.run(detach=True)
    finish(4, Failure(kind="crash", message="gone"))
    assert [type(record.outcome) for record in bench.run()] == [Failure] * 4
    assert len(Queue.executed) == 4
    bench.run()  # the next command executes failed runs again
    assert len(Queue.executed) == 8


def test_rerun_collects_submitted_runs_once(bench: Bench) -> None:
    bench.run()
    bench.run(rerun=True, detach=True)
    assert len(Queue.executed) == 8
    bench.run(rerun=True)
    assert len(Queue.executed) == 8
    assert bench.stored == sorted([0, 1, 2, 3] * 2)


@pytest.mark.parametrize("count", [2, 4])
def test_rerun_uses_results_that_status_has_collected(count: int, bench: Bench, status: Status) -> None:
    bench.run()
    bench.run(rerun=True, detach=True)
    finish(count)
    assert f"Saved {count} runs" in status().stderr
    assert status().exit_code == 0
    assert len(bench.run(rerun=True)) == 4
    assert (len(Queue.executed), len(bench.stored)) == (8, 8)
    bench.run(rerun=True)  # the next command executes the runs again
    assert (len(Queue.executed), len(bench.stored)) == (12, 12)
    assert submissions(bench.store) == []


def test_rerun_uses_results_that_the_same_command_with_detach_has_collected(bench: Bench) -> None:
    bench.run(rerun=True, detach=True)
    finish(2)
    bench.run(rerun=True, detach=True)
    assert len(bench.run(rerun=True)) == 4
    assert (len(Queue.executed), bench.stored) == (4, [0, 1, 2, 3])


def test_rerun_submits_runs_again_that_status_has_collected(bench: Bench, status: Status) -> None:
    """Otherwise, of two commands with --rerun --detach, the second would execute nothing."""
    bench.run(rerun=True, detach=True)
    finish()
    status()
    bench.run(rerun=True, detach=True)
    assert len(Queue.executed) == 8
    assert [submission.finished for submission in submissions(bench.store)] == [False]


def test_results_collected_for_other_runs_stay_available_for_rerun(bench: Bench) -> None:
    every = bench.specs
    bench.run(rerun=True, detach=True)
    finish()
    bench.specs = toy_specs(bench.catalog, "recipe.epochs=2", seeds=(9,))
    bench.run()
    bench.specs = every
    assert len(bench.run(rerun=True)) == 4
    assert len(Queue.executed) == 5


# ---- submissions in results directories of others -------------------------------------------------------------


def copied(bench: Bench, folder: Path) -> Store:
    """Return a results directory that another user could have written, with a submission."""
    shutil.copytree(bench.store.path, folder)
    return Store(folder)


def test_status_does_not_connect_for_a_submission_from_another_directory(
    bench: Bench, status: Status, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(detach=True)
    copied(bench, tmp_path / "theirs")
    used: list[Mapping[str, str]] = []
    monkeypatch.setattr(Queue, "configured", lambda queue, options: used.append(options) or queue)
    monkeypatch.setattr(Queue, "collect", lambda *_, **__: pytest.fail("connected"))
    shown = status("--results", str(tmp_path / "theirs"))
    assert (shown.exit_code, used) == (0, [])
    assert "not submitted from this directory by this user; if you trust the directory, pass --executor queue" in (
        shown.stderr
    )


def test_options_in_a_submission_of_another_user_are_ignored(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of another user names an address, as files of earlier versions did."""
    bench.run(detach=True)
    (path,) = (bench.store.path / ".submitted").glob("*.json")
    content = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**content, "options": {"color": "stolen"}}))
    shutil.rmtree(state_dir() / "submissions")
    used: list[Mapping[str, str]] = []
    monkeypatch.setattr(Queue, "configured", lambda queue, options: used.append(options) or queue)
    (submission,) = submissions(bench.store)
    collected = detached.collect(submission, bench.catalog, bench.store, Guarded(Listener()))
    assert (collected.left, used) == (submission.runs, [])
    assert "not submitted from this directory by this user" in collected.problem
    assert len(bench.run(executor_options={"color": "mine"})) == 4
    assert {each["color"] for each in used} == {"mine"}


def test_status_uses_the_given_options_for_a_submission_of_another_user(
    bench: Bench, status: Status, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(detach=True)
    theirs = copied(bench, tmp_path / "theirs")
    finish()
    used: list[Mapping[str, str]] = []
    monkeypatch.setattr(Queue, "configured", lambda queue, options: used.append(options) or queue)
    words = ("--results", str(theirs.path), "--executor", "queue", "--queue-color", "blue")
    assert "Saved 4 runs" in status(*words).stderr
    assert used == [{"color": "blue"}]
    assert len(theirs.load().runs) == 4


def test_executor_of_the_user_is_not_used_for_a_file_that_names_another(bench: Bench) -> None:
    bench.run(detach=True)
    (submission,) = submissions(bench.store)
    write(bench.store, msgspec.structs.replace(submission, executor="local"))
    (changed,) = submissions(bench.store)
    with pytest.raises(UsageError, match="pass --executor local"):
        options_for(bench.store, changed, None)


def test_submission_without_a_writable_state_directory_is_an_error(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="set XDG_STATE_HOME to a writable directory"):
        bench.run(detach=True)
    assert (Queue.executed, submissions(bench.store)) == ([], [])


def test_job_that_no_longer_exists_is_executed_again(bench: Bench) -> None:
    bench.run(detach=True)
    finish(1)
    bench.run(detach=True)
    Queue.submitted.clear()
    bench.run()
    assert any("no longer has the runs that were submitted" in text for text in bench.messages)
    assert bench.stored == [0, 1, 2, 3]
    assert sorted(Queue.executed) == [0, 1, 1, 2, 2, 3, 3]


def test_unreachable_job_is_an_error_only_for_its_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    every = bench.specs
    bench.specs = every[:2]
    bench.run(detach=True)
    monkeypatch.setattr(Queue, "unreachable", True)
    message = r"cannot be collected: the queue cannot be reached; make the executor available, or .* --cancel`"
    with pytest.raises(UsageError, match=message):
        bench.run(detach=True)
    assert len(submissions(bench.store)) == 1
    bench.specs = every[2:]
    bench.run(detach=True)
    assert sorted(Queue.executed) == [0, 1, 2, 3]


def test_runs_with_other_code_are_not_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run(detach=True)
    (submission,) = submissions(bench.store)
    old = [
        msgspec.structs.replace(
            run, plugins=tuple(msgspec.structs.replace(ref, code_digest="0" * 64) for ref in run.plugins)
        )
        for run in submission.runs
    ]
    write(bench.store, msgspec.structs.replace(submission, runs=old))
    bench.run(detach=True)
    assert (
        "4 detached runs were submitted with different code or settings, so the results will not be used"
        in bench.messages
    )
    assert len(Queue.executed) == 8


def test_failed_submission_leaves_no_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise UsageError("full")

    monkeypatch.setattr(Queue, "submit", refuse)
    with pytest.raises(UsageError, match="full"):
        bench.run(detach=True)
    assert submissions(bench.store) == []


def fail_to_write_submission(patch: pytest.MonkeyPatch) -> str:
    def full(*_: object) -> None:
        raise RecordError("the results directory is full")

    patch.setattr("harness.execute.detached.write", full)
    return "the results directory is full"


def fail_to_store_address(patch: pytest.MonkeyPatch) -> str:
    def full(store: Store, submission: Any, options: Mapping[str, str]) -> None:
        if "color" in options:
            raise UsageError("the state directory is full")
        grant(store, submission, options)

    patch.setattr("harness.execute.detached.grant", full)
    return "the state directory is full"


@pytest.mark.parametrize("fail", [fail_to_write_submission, fail_to_store_address])
def test_failed_submission_leaves_no_files(
    fail: Callable[[pytest.MonkeyPatch], str], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    message = fail(monkeypatch)
    with pytest.raises((RecordError, UsageError), match=message):
        bench.run(detach=True)
    assert (Queue.submitted, submissions(bench.store)) == ({}, [])
    assert [path for path in state_dir().rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("detach", [True, False])
def test_command_during_a_submission_is_refused(detach: bool, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one command submits the runs, another can neither submit them as well nor read half a submission."""
    submit, refused = Queue.submit, []

    def submit_slowly(queue: Queue, *arguments: Any) -> Mapping[str, str]:
        with pytest.raises(BusyError, match="another harness command is submitting or collecting"):
            bench.run(detach=detach)
        refused.append(True)
        return submit(queue, *arguments)

    monkeypatch.setattr(Queue, "submit", submit_slowly)
    bench.run(detach=True)
    assert (refused, Queue.executed) == ([True], [0, 1, 2, 3])


def test_status_during_collection_shows_the_progress_but_does_not_cancel(bench: Bench, status: Status) -> None:
    bench.run(detach=True)
    with locked(bench.store):
        shown = status()
        canceled = status("--results", str(bench.store.path), "--cancel")
    assert (shown.exit_code, "running (detached)" in shown.stdout) == (0, True)
    assert "may be outdated, because another harness command is submitting or collecting them" in shown.stderr
    assert isinstance(canceled.exception, BusyError | SystemExit)
    assert canceled.exit_code != 0
    assert len(submissions(bench.store)) == 1
    assert "canceled 4 runs" in status("--results", str(bench.store.path), "--cancel").stderr


def test_command_during_collection_is_refused_unless_it_waits(bench: Bench) -> None:
    bench.run(detach=True)
    with locked(bench.store), pytest.raises(BusyError, match="another harness command is submitting or collecting"):
        bench.run()
    assert len(bench.run(wait=True)) == 4


def test_lock_file_that_is_a_link_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("content")
    (bench.store.path / ".submitted").mkdir(parents=True)
    (bench.store.path / ".submitted" / ".lock").symlink_to(tmp_path / "target")
    with pytest.raises(RecordError, match="cannot be locked"):
        bench.run(detach=True)
    assert (tmp_path / "target").read_text() == "content"


def test_file_with_the_name_of_another_file_is_refused(bench: Bench) -> None:
    bench.run(detach=True)
    (path,) = (bench.store.path / ".submitted").glob("*.json")
    content = path.read_bytes()
    path.write_bytes(content.replace(path.stem.encode(), b"../../elsewhere"))
    with pytest.raises(RecordError, match="which differs from its file name"):
        submissions(bench.store)


def test_canceled_job_is_removed_even_if_the_executor_is_unreachable(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UsageError("unreachable")

    bench.run(detach=True)
    monkeypatch.setattr(Queue, "cancel", refuse)
    (submission,) = submissions(bench.store)
    assert detached.cancel(submission, bench.catalog, bench.store) == "unreachable"
    assert submissions(bench.store) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"executor": "local"}, "the executor 'local' does not support --detach; remove it"),
        ({"batch_size_backoff": True}, "--batch-size-backoff requires the command to wait for the runs"),
        ({"budget_s": 5.0}, "the suite's time budget requires the command to wait for the runs"),
        ({"executor_options": {"colour": "red"}}, "unknown queue executor option 'colour'; did you mean 'color'"),
    ],
)
def test_detached_plan_that_cannot_work_is_an_error(bench: Bench, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        bench.run(detach=True, **settings)
    assert not bench.store.path.exists()


def test_required_module_that_is_missing_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Queue, "requires", {"absent_module": "pip install absent"})
    with pytest.raises(
        UsageError, match="the executor 'queue' cannot be used: absent_module is not installed; run: pip"
    ):
        bench.run()
    with pytest.raises(UnknownNameError):
        bench.catalog.executor("queu")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ""),
        ("--executor", "--executor"),
        ("--task a", "--task a"),
        ("--executor ray --ray-address auto", "--executor ray --executor-option address=auto"),
        ("--ray-lost-after=5 --executor=ray", "--executor-option lost_after=5 --executor=ray"),
        ("--executor local --ray-address auto", "--executor local --ray-address auto"),
        ("--executor ray --task a --ray-", "--executor ray --task a --ray-"),
    ],
)
def test_options_of_the_chosen_executor_are_expanded(given: str, expected: str) -> None:
    assert [*expanded(given.split())] == expected.split()


def test_executor_options_on_the_command_line_are_checked(invoke: Invoke) -> None:
    command = ("run", "--task", "toy-regress", "--backend", "toy-numpy", "--executor", "local")
    for words, message in [
        (("--local-color", "red"), "unknown local executor option 'color'"),
        (("--local-color",), "requires an argument"),
        (("--executor-option", "color"), "'color' is not of the form OPTION=VALUE"),
        (("--detach",), "the executor 'local' does not support --detach; remove it"),
    ]:
        done = invoke(*command, *words)
        assert (done.exit_code, done.stdout) == (2, "")
        assert message in done.stderr
