"""Runs that continue from their checkpoints."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import msgspec
import numpy as np
import pytest
from command_line import MAIN, Invoke
from recording_tracker import Recording, listening
from toy_plugin import FAULTS_REF, SET_FAST, TOY_REF, install_toy
from toy_runs import toy_specs

from harness.checks.audit.from_record import on_record
from harness.errors import CombinationError, RecordError, UsageError
from harness.execute.checkpoints import assign, find
from harness.execute.replay import replay
from harness.execute.resume import Decision, describe
from harness.execute.runner import run_all
from harness.measure.cgroup import available_cores
from harness.plan.checkpoints import checked_interval
from harness.plugins import load
from harness.plugins.catalog import Catalog
from harness.records import CheckpointPlan, Failure, Interval, RunRecord, RunSpec, Success
from harness.records import checkpoint as files
from harness.records.arrays import read_arrays
from harness.records.checkpointing import interval
from harness.records.store import ARRAYS, Store

RUN = ("run", "--task", "toy-regress", "--backend", "toy-numpy", "--threads", "1", "--quiet", *SET_FAST)


def plan(store: Store, every: str = "1", *, resume: bool = False) -> CheckpointPlan:
    directory = store.path.absolute() / files.FOLDER / "run"
    return CheckpointPlan(directory=str(directory), every=interval(every), resume=resume)


def keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make runs keep their checkpoints when they succeed, as if the command had been killed before their removal."""
    monkeypatch.setattr("harness.execute.runner.remove", lambda directory: None)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results directory with the checkpoint of an unfinished run, which tests copy."""
    results = tmp_path_factory.mktemp("unfinished") / "results"
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        keep(patch)
        store, catalog = Store(results), load([TOY_REF, FAULTS_REF])
        (spec,) = toy_specs(catalog)
        (record,) = run_all([spec], catalog, store, checkpoints=[plan(store)])
    (directory,) = files.directories(results)
    named = directory.with_name(f"{spec.key[:16]}-1")
    directory.rename(named)
    files.describe(named, msgspec.structs.replace(files.read(named), started_at="earlier"))
    shutil.rmtree(results / record.run_id)
    return results


@pytest.fixture
def interrupted(unfinished: Path, catalog: Catalog, tmp_path: Path) -> tuple[Store, RunSpec]:
    """Store with the checkpoint of an unfinished run."""
    shutil.copytree(unfinished, tmp_path / "results")
    (spec,) = toy_specs(catalog)
    return Store(tmp_path / "results"), spec


def assigned(store: Store, catalog: Catalog, specs: Any, **options: Any) -> list[Decision]:
    options = {"every": None, "resume": None} | options
    return assign([Decision(spec, None, "") for spec in specs], catalog, store, **options)


def scores(record: RunRecord) -> Any:
    assert isinstance(record.outcome, Success), record.outcome
    return record.outcome.scores, record.provenance.final_weights_digest


# ---- intervals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("1", (1, "epochs"), "1 epoch"),
        ("2 epochs", (2, "epochs"), "2 epochs"),
        ("500steps", (500, "steps"), "500 steps"),
        ("1 step", (1, "steps"), "1 step"),
        ("30s", (30, "seconds"), "30 seconds"),
        ("10min", (600, "seconds"), "600 seconds"),
        ("0.5h", (1800, "seconds"), "1800 seconds"),
    ],
)
def test_interval_reads_epochs_steps_and_times(text: str, expected: tuple[float, Any], shown: str) -> None:
    found = interval(text)
    assert found == Interval(count=expected[0], unit=expected[1])
    assert found.text == shown


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "0.5steps", "1 fortnight", "nan", "inf", "1e3", "0s", "9" * 40])
def test_interval_that_is_not_valid_raises(text: str) -> None:
    with pytest.raises(UsageError, match="is not an interval between checkpoints; pass"):
        interval(text)


# ---- planning ------------------------------------------------------------------------------------------------


def test_run_continues_from_its_checkpoint(interrupted: tuple[Store, RunSpec], catalog: Catalog) -> None:
    store, spec = interrupted
    (decision,) = assigned(store, catalog, [spec])
    assert decision.checkpoints is not None
    assert decision.checkpoints.resume
    assert decision.checkpoints.every == interval("1")
    assert describe([decision]) == [f"resume: {spec.title}: from step 30 of 30"]


def test_checkpoint_is_used_by_one_repeat_only(interrupted: tuple[Store, RunSpec], catalog: Catalog) -> None:
    store, spec = interrupted
    plans = [decision.checkpoints for decision in assigned(store, catalog, [spec] * 3, every=interval("2"))]
    assert [each.resume for each in plans if each] == [True, False, False]
    assert len({each.directory for each in plans if each}) == 3


def test_no_resume_starts_again_in_the_same_directory(interrupted: tuple[Store, RunSpec], catalog: Catalog) -> None:
    store, spec = interrupted
    (decision,) = assigned(store, catalog, [spec], every=interval("1"), resume=False)
    directory = str(files.directories(store.path)[0].absolute())
    assert decision.checkpoints == CheckpointPlan(
        directory=directory, every=interval("1"), machine_cores=available_cores()
    )
    assert assigned(store, catalog, [spec], resume=False)[0].checkpoints is None


def edit_arrays(directory: Path) -> None:
    (path,) = directory.glob(f"*{files.SUFFIX}")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_arrays(directory: Path) -> None:
    (path,) = directory.glob(f"*{files.SUFFIX}")
    path.write_bytes(path.read_bytes()[:-100])


def remove_arrays(directory: Path) -> None:
    (path,) = directory.glob(f"*{files.SUFFIX}")
    path.unlink()


def link_arrays(directory: Path) -> None:
    (path,) = directory.glob(f"*{files.SUFFIX}")
    path.rename(directory.parent / "elsewhere")
    path.symlink_to(directory.parent / "elsewhere")


def cut_description(directory: Path) -> None:
    path = directory / files.DESCRIPTION
    path.write_bytes(path.read_bytes()[:-100])


def edit_recipe(directory: Path) -> None:
    path = directory / files.DESCRIPTION
    path.write_text(path.read_text().replace('"learning_rate": 0.1', '"learning_rate": 0.2'))


def edit_learning_curve(directory: Path) -> None:
    """Change a value that is neither part of the specification nor stored as an array."""
    path = directory / files.DESCRIPTION
    text = path.read_text()
    edited = re.sub(r'("train_loss": )[0-9.e-]+', r"\g<1>0.125", text, count=1)
    assert edited != text
    path.write_text(edited)


def move_position(directory: Path) -> None:
    path = directory / files.DESCRIPTION
    path.write_text(path.read_text().replace('"step": 30,', '"step": 31,'))


def write_older_version(directory: Path) -> None:
    path = directory / files.DESCRIPTION
    path.write_text(path.read_text().replace('"version": 2', '"version": 1'))


def changed(**changes: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        found = files.read(directory)
        files.describe(
            directory, msgspec.structs.replace(found, identity=msgspec.structs.replace(found.identity, **changes))
        )

    return change


def change_package(directory: Path) -> None:
    environment = files.read(directory).identity.environment
    packages = environment.packages | {"numpy": "0.1"}
    changed(environment=msgspec.structs.replace(environment, packages=packages))(directory)


def change_plugin(directory: Path) -> None:
    plugins = [msgspec.structs.replace(ref, code_digest="0") for ref in files.read(directory).identity.plugins]
    changed(plugins=plugins)(directory)


def change_machine(directory: Path) -> None:
    environment = files.read(directory).identity.environment
    changed(environment=msgspec.structs.replace(environment, cpu="another processor"))(directory)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (edit_arrays, "its SHA-256 differs from the recorded one"),
        (cut_arrays, "its SHA-256 differs from the recorded one"),
        (remove_arrays, "cannot be read"),
        (link_arrays, "this is a symbolic link"),
        (cut_description, "not valid"),
        (edit_recipe, "its description does not match the recorded SHA-256"),
        (edit_learning_curve, "its description does not match the recorded SHA-256"),
        (move_position, "its description does not match the recorded SHA-256"),
        (write_older_version, "not valid"),
        (changed(key="0" * 64), "its key differs from the key of its specification"),
        (change_package, "numpy 0.1 -> "),
        (change_plugin, "plugin toy changed"),
        (change_machine, "another machine: "),
    ],
)
def test_checkpoint_that_cannot_be_used_is_ignored_or_refused_with_the_reason(
    damage: Callable[[Path], None], reason: str, interrupted: tuple[Store, RunSpec], catalog: Catalog
) -> None:
    store, spec = interrupted
    damage(files.directories(store.path)[0])
    (decision,) = assigned(store, catalog, [spec], every=interval("1"))
    assert decision.checkpoints is not None
    assert not decision.checkpoints.resume
    (line,) = describe([decision])
    assert line.startswith(f"restart: {spec.title}: the checkpoint is not used: ")
    assert reason in line
    with pytest.raises(UsageError, match="cannot be resumed: ") as error:
        assigned(store, catalog, [spec], resume=True)
    assert reason in str(error.value)


def test_resume_with_another_recipe_is_refused(interrupted: tuple[Store, RunSpec], catalog: Catalog) -> None:
    store, spec = interrupted
    (other,) = toy_specs(catalog, "recipe.learning_rate=0.3", "recipe.clip_norm=1")
    with pytest.raises(
        UsageError, match=r"was written with different settings: recipe.learning_rate=0.1, recipe.clip_norm="
    ):
        assigned(store, catalog, [other], resume=True)
    (decision,) = assigned(store, catalog, [other])
    assert (decision.resumed, decision.ignored, decision.checkpoints) == ("", "", None)
    assert [each.resumed for each in assigned(store, catalog, [other, spec], resume=True)] == [
        "",
        "from step 30 of 30",
    ]


def test_resume_without_any_checkpoint_starts_from_the_beginning(catalog: Catalog, tmp_path: Path) -> None:
    (decision,) = assigned(Store(tmp_path), catalog, toy_specs(catalog), resume=True, every=interval("1"))
    assert decision.checkpoints is not None
    assert not decision.checkpoints.resume


def checked(catalog: Catalog, specs: Any, text: str | None = "1", **options: Any) -> Interval | None:
    options = {"resume": None, "rerun": False, "detach": False, "batch_size_backoff": False} | options
    executor = options.pop("executor", catalog.executor("local"))
    return checked_interval(text, specs, catalog, executor=executor, **options)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"devices": 2}, {}, "not available for runs on several devices"),
        ({"backend": "toy-nan-loss"}, {}, "backend 'toy-nan-loss' does not support checkpoints"),
        ({}, {"batch_size_backoff": True}, "cannot be combined with --batch-size-backoff"),
        ({}, {"detach": True}, "only to runs on this machine"),
        ({}, {"resume": True, "rerun": True}, "remove one of them"),
        ({}, {"text": "often"}, "'often' is not an interval"),
    ],
)
def test_requests_that_cannot_have_checkpoints_are_refused(
    changes: dict[str, Any], options: dict[str, Any], message: str, catalog: Catalog
) -> None:
    specs = [msgspec.structs.replace(spec, **changes) for spec in toy_specs(catalog)]
    with pytest.raises(UsageError, match=message):
        checked(catalog, specs, **options)


def test_requests_without_checkpoints_are_not_refused(catalog: Catalog) -> None:
    specs = [msgspec.structs.replace(spec, devices=2, backend="toy-nan-loss") for spec in toy_specs(catalog)]
    assert checked(catalog, specs, None, batch_size_backoff=True, detach=True) is None
    with pytest.raises(CombinationError, match="--resume applies only"):
        checked(catalog, specs, None, resume=True, detach=True)


# ---- runs ----------------------------------------------------------------------------------------------------


def test_resumed_run_gives_the_same_result_and_states_the_interruption(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (spec,) = Store(tmp_path / "results"), toy_specs(catalog, "recipe.keep_best=true", "recipe.epochs=3")
    (undisturbed,) = run_all([spec], catalog, store)
    monkeypatch.setenv("TOY_STOP_AT", "17")
    (failed,) = run_all([spec], catalog, store, checkpoints=[plan(store, "4steps")])
    assert isinstance(failed.outcome, Failure), failed.outcome
    monkeypatch.delenv("TOY_STOP_AT")
    assert files.read(files.directories(store.path)[0]).step == 16
    (resumed,) = run_all([spec], catalog, store, checkpoints=[plan(store, "4steps", resume=True)])
    assert scores(resumed) == scores(undisturbed)
    arrays, expected = (read_arrays(store.path / each.run_id / ARRAYS) for each in (resumed, undisturbed))
    for name in ("train_losses", "test_outputs", "validation_outputs"):
        np.testing.assert_array_equal(arrays[name], expected[name])
    outcome = resumed.outcome
    assert isinstance(outcome, Success)
    assert outcome.checkpoints is not None
    assert (outcome.checkpoints.resumed_at, outcome.checkpoints.written) == ([16], 8)
    assert [flag.kind for flag in outcome.flags if flag.metric == "train_throughput"][-1] == "resumed"
    assert files.directories(store.path) == []
    assert not (store.path / files.FOLDER).exists()
    findings = on_record(store.find(resumed.run_id), [], {}, catalog)
    assert [finding for finding in findings if finding.passed is False] == []


def test_replayed_steps_of_a_resumed_run_name_the_first_windows_of_both_processes(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (spec,) = Store(tmp_path / "results"), toy_specs(catalog)
    monkeypatch.setenv("TOY_STOP_AT", "17")
    run_all([spec], catalog, store, checkpoints=[plan(store)])
    monkeypatch.delenv("TOY_STOP_AT")
    (record,) = run_all([spec], catalog, store, checkpoints=[plan(store, resume=True)])
    recording = Recording()
    replay(store.find(record.run_id), listening(catalog, recording))
    outcome = record.outcome
    assert isinstance(outcome, Success)
    assert outcome.checkpoints is not None
    starts = [
        event.step + sum(event.window_steps[:number])
        for event in recording.values("steps")
        for number in event.first_windows
    ]
    assert starts == [0, *outcome.checkpoints.resumed_at]
    assert len(starts) == 2


def test_run_that_is_resumed_with_another_interval_passes_the_audit(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (spec,) = Store(tmp_path / "results"), toy_specs(catalog)
    monkeypatch.setenv("TOY_STOP_AT", "17")
    first = msgspec.structs.replace(plan(store, "3steps"), machine_cores=64)
    run_all([spec], catalog, store, checkpoints=[first])
    monkeypatch.delenv("TOY_STOP_AT")
    # With --jobs, a run has only some of the machine's cores. The checkpoint names those of the machine.
    assert files.read(files.directories(store.path)[0]).identity.environment.cores == 64
    (resumed,) = run_all([spec], catalog, store, checkpoints=[plan(store, "7steps", resume=True)])
    findings = on_record(store.find(resumed.run_id), [], {}, catalog)
    assert [finding for finding in findings if finding.passed is False] == []


def test_failed_run_keeps_its_checkpoint(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (spec,) = Store(tmp_path / "results"), toy_specs(catalog)
    monkeypatch.setenv("TOY_STOP_AT", "17")
    run_all([spec], catalog, store, checkpoints=[plan(store)])
    assert [each.finished for each in find(store)] == [False]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dataset_digest": "0" * 64}, "written with other prepared data"),
        ({"initial_weights_digest": "0" * 64}, "written with other initial weights"),
        ({"teacher_logits": "SHA-256 00000000"}, "written with different teacher logits"),
    ],
)
def test_checkpoint_of_other_inputs_fails_the_run_with_advice(
    catalog: Catalog, interrupted: tuple[Store, RunSpec], change: dict[str, str], problem: str
) -> None:
    store, spec = interrupted
    (directory,) = files.directories(store.path)
    changed(**change)(directory)
    resumed = CheckpointPlan(directory=str(directory.absolute()), every=interval("1"), resume=True)
    (record,) = run_all([spec], catalog, store, checkpoints=[resumed])
    assert isinstance(record.outcome, Failure)
    assert problem in record.outcome.message
    assert "pass --no-resume" in record.outcome.message


# ---- commands ------------------------------------------------------------------------------------------------


def test_commands_continue_verify_and_prune(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_STOP_AT", "17")
    assert invoke(*RUN, "--checkpoint-every", "1").exit_code == 1
    monkeypatch.delenv("TOY_STOP_AT")
    planned = invoke(*RUN, "--dry-run")
    (row,) = (line.split() for line in planned.stdout.splitlines() if line.startswith("toy"))
    assert row[-1] == "resume"
    refused = invoke(*RUN, "--resume", "--set", "recipe.learning_rate=0.3")
    assert (refused.exit_code, "recipe.learning_rate=0.1" in refused.stderr) == (2, True)
    (directory,) = files.directories(Path("results"))
    assert "0 problems found" in invoke("results", "verify").stdout
    assert "checkpoint" not in invoke("results", "prune").stdout
    assert "step 10 of 30" in invoke("results", "prune", "--failed").stdout
    edit_arrays(directory)
    verified = invoke("results", "verify")
    assert (verified.exit_code, "the checkpoint is damaged" in verified.stdout) == (1, True)
    edit_arrays(directory)
    done = invoke(*RUN, "--resume")
    assert done.exit_code == 0, done.stderr
    assert files.directories(Path("results")) == []
    (stored,) = [run.record for run in Store(Path("results")).load().runs if isinstance(run.record.outcome, Success)]
    shown = invoke("show", stored.run_id).stdout
    assert "resumed after 10 steps" in shown
    assert "peak memory of the last process" in shown


def test_checkpoint_of_a_run_that_succeeded_is_not_used_and_can_be_pruned(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        keep(patch)
        assert invoke(*RUN, "--checkpoint-every", "1").exit_code == 0
    assert [each.finished for each in find(Store(Path("results")))] == [True]
    assert invoke(*RUN, "--repeat", "2").exit_code == 0
    records = [run.record.outcome for run in Store(Path("results")).load().runs]
    assert [record.checkpoints and record.checkpoints.resumed_at for record in records] == [[], None]
    assert "checkpoint of a run that has succeeded" in invoke("results", "prune", "--yes").stdout
    assert files.directories(Path("results")) == []


def test_python_interface_refuses_before_any_run(toy: Path, tmp_path: Path, invoke: Invoke) -> None:
    result: click.testing.Result = invoke(*RUN, "--checkpoint-every", "often")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (
        2,
        "Error: 'often' is not an interval between checkpoints; pass a number of epochs such as 1, a number of steps "
        "such as 500steps, or a time such as 10min",
    )
    assert not Path("results").exists() or not any(Path("results").iterdir())


def position(results: Path) -> int:
    """Return the step of the last checkpoint, or 0 if there is none."""
    try:
        return max((each.checkpoint.step for each in find(Store(results)) if each.checkpoint), default=0)
    except RecordError:  # the run has just been stored
        return 0


def kill_at_random_steps(command: list[str], folder: Path, results: Path, kills: int, steps: int) -> int:
    """Start a command repeatedly, and kill it a random number of steps after its start. Return the number of kills."""
    moments, done = random.Random(7), 0
    for _ in range(kills):
        end = position(results) + moments.randint(1, steps // (kills + 2))
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while position(results) < end and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        done += process.wait() == -signal.SIGKILL
    return done


DROPOUT = ("recipe.dropout=0.3", "recipe.ema_decay=0.99", "recipe.epochs=40")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("task", "backend", "overrides"),
    [
        ("toy-regress", "toy-numpy", ("recipe.epochs=200",)),
        pytest.param("regression", "torch", DROPOUT, marks=pytest.mark.plugins("torch", "regression")),
        pytest.param("regression", "tensorflow", DROPOUT, marks=pytest.mark.plugins("tensorflow", "regression")),
    ],
    ids=["toy-numpy", "torch", "tensorflow"],
)
def test_run_killed_ten_times_gives_the_results_of_an_undisturbed_run(
    task: str, backend: str, overrides: tuple[str, ...], toy: Path, tmp_path: Path
) -> None:
    options = [word for each in (*overrides, "recipe.keep_best=true") for word in ("--set", each)]
    model = ["--model", "mlp"] if task == "regression" else []
    command = [*MAIN, "run", "--task", task, *model, "--backend", backend, "--protocol", "quick", "--quality-only"]
    command += ["--threads", "1", *options]
    subprocess.run([*command, "--results", "whole"], cwd=tmp_path, check=True, capture_output=True)
    (whole,) = Store(tmp_path / "whole").load().runs
    killing, results = [*command, "--results", "killed", "--checkpoint-every", "3steps"], tmp_path / "killed"
    kills = kill_at_random_steps(killing, tmp_path, results, 10, len(read_arrays(whole.path / ARRAYS)["train_losses"]))
    subprocess.run(killing, cwd=tmp_path, check=True, capture_output=True)
    (run,) = Store(results).load().runs
    assert isinstance(run.record.outcome, Success)
    assert run.record.outcome.checkpoints is not None
    assert len(run.record.outcome.checkpoints.resumed_at) == kills == 10
    assert scores(run.record) == scores(whole.record)
    arrays, expected = (read_arrays(each.path / ARRAYS) for each in (run, whole))
    for name in ("train_losses", "test_outputs", "validation_outputs"):
        np.testing.assert_array_equal(arrays[name], expected[name])
    assert {entry.name for entry in (tmp_path / "killed").iterdir()} == {run.path.name, ".plans"}


def test_directory_that_cannot_be_read_raises(tmp_path: Path) -> None:
    (tmp_path / files.FOLDER).mkdir()
    with pytest.raises(RecordError, match="cannot be read"):
        files.read(tmp_path / files.FOLDER / "run")
