"""Tests of studies. Trials have artificial learning curves, which depend on their settings only."""

from __future__ import annotations

import errno
import math
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from filelock import FileLock
from optuna.storages.journal import JournalFileBackend
from sample_records import ENVIRONMENT, success
from toy_plugin import PEERS, TOY_REF, install, install_toy

from harness.errors import BusyError, HarnessError, PluginError, RecordError, UsageError
from harness.execute import claims
from harness.execute.builtin import LocalExecutor
from harness.execute.claims import claimed
from harness.execute.device_lock import measuring_on
from harness.execute.resume import Decision
from harness.execute.runner import Listener, Prune
from harness.plan.selection import Selection
from harness.plugins import load
from harness.plugins.catalog import Catalog
from harness.records import (
    Environment,
    EpochEnded,
    Failure,
    ModelInfo,
    Outcome,
    PluginRef,
    Provenance,
    RunRecord,
    RunSpec,
    Trial,
    TuningCost,
)
from harness.records.store import Store
from harness.report.tuning import render
from harness.tuning import driver, open_study, request, sampling
from harness.tuning.driver import Tuned, tune
from harness.tuning.open_study import Settings
from harness.tuning.request import Tuning, plan
from harness.tuning.sampling import Asked
from harness.tuning.study import FOLDER, JOURNAL, STUDY, TRIALS, Study, directory, load_all

SEARCH = ("recipe.learning_rate=log:1e-4:1.0", "recipe.batch_size=8,16,32")


@pytest.fixture(scope="module")
def toys() -> Iterator[Catalog]:
    with pytest.MonkeyPatch.context() as patch:
        install_toy(patch)
        install(patch, PEERS)
        peers = PluginRef(name="toy-peers", value="harness_toy_peers", distribution="harness-toy-peers", version="1.0")
        yield load([TOY_REF, peers])


def error_after(spec: RunSpec, epoch: int) -> float:
    """Return an error that is smallest for the learning rate 0.01 and decreases in each epoch."""
    distance = abs(math.log10(spec.recipe.learning_rate) + 2)
    return (1 + distance + 0.01 * math.log2(spec.recipe.batch_size)) * (1 + 1 / epoch)


class Runs:
    """A replacement for `run_all` with artificial records. It raises `error` in run `interrupted`. With `backwards`,
    simultaneous runs end in reverse order."""

    def __init__(
        self,
        interrupted: int = -1,
        fail: Callable[[RunSpec], Failure | None] = lambda spec: None,
        *,
        error: BaseException | None = None,
        backwards: bool = False,
        machine: Environment = ENVIRONMENT,
    ) -> None:
        self._machine = machine
        self.executed: list[tuple[RunSpec, str | None]] = []
        self.together: list[int] = []
        self._interrupted, self._fail = interrupted, fail
        self._error, self._backwards = error or KeyboardInterrupt(), backwards

    def __call__(
        self,
        specs: Sequence[RunSpec],
        catalog: Catalog,
        store: Store,
        *,
        listener: Listener,
        trial: str | None = None,
        prune: Prune = lambda spec, epoch: False,
        tuning: Mapping[str, TuningCost] | None = None,
        **settings: Any,
    ) -> list[RunRecord]:
        records = []
        self.together += [len(specs)] if trial else []
        for spec in specs[:: -1 if self._backwards else 1]:
            if len(self.executed) == self._interrupted:
                raise self._error
            self.executed.append((spec, trial))
            outcome: Outcome = self._fail(spec) or (self._trial(spec, prune) if trial else self._success(spec))
            record = RunRecord(
                run_id="",
                key="",
                request_key=spec.key,
                repeat=0,
                started_at="2026-01-01T00:00:00Z",
                wall_s=1.0,
                spec=spec,
                environment=self._machine,
                provenance=Provenance(),
                outcome=outcome,
                tuning=(tuning or {}).get(spec.key),
            )
            store.prepare()
            with store.scratch() as scratch:
                records.append(store.commit(scratch, record).record)
        return records[:: -1 if self._backwards else 1]

    def _trial(self, spec: RunSpec, prune: Prune) -> Trial:
        curves, state = [], "complete"
        for number in range(1, spec.recipe.epochs + 1):
            error = error_after(spec, number)
            epoch = EpochEnded(
                epoch=number,
                epochs=spec.recipe.epochs,
                step=10 * number,
                train_s=0.1 * number,
                train_loss=error,
                validation={"loss": error, "rmse": error},
            )
            curves.append(epoch)
            if prune(spec, epoch):
                state = "pruned"
                break
        done = state == "complete"
        return Trial(
            state=msgspec.convert(state, type=Any),
            metric="rmse",
            curves=curves,
            validation={"rmse": curves[-1].validation["rmse"]} if done else {},
            train_samples_per_s=100.0 * spec.recipe.batch_size if done else None,
            model=ModelInfo(parameters=10, flops_per_sample=20.0) if done else None,
        )

    def _success(self, spec: RunSpec) -> Outcome:
        return success(error_after(spec, spec.recipe.epochs) + 0.001 * spec.seed, primary="rmse")


class Messages(Listener):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


Study_ = Callable[..., Tuned]


@pytest.fixture
def study(toys: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study_:
    """Return a function that executes a study with artificial runs."""

    def execute(
        runs: Runs, trials: int = 12, backends: tuple[str, ...] = ("toy-numpy",), place: str = "results", **more: Any
    ) -> Tuned:
        settings = {name: more.pop(name) for name in ("storage", "rerun", "wait") if name in more}
        monkeypatch.setattr(driver, "run_all", runs)
        monkeypatch.setattr(open_study, "run_all", runs)
        for module in (driver, request):
            monkeypatch.setattr(module, "lanes_for", lambda specs, jobs: ())  # however many cores this machine has
        overrides, listener = more.pop("overrides", ("recipe.epochs=8",)), more.pop("listener", None) or Messages()
        chosen = Selection(tasks=("toy-regress",), backends=backends, threads=1, overrides=overrides)
        wanted = Tuning(selection=chosen, trials=trials, **{"search": SEARCH, "confirm": 0} | more)
        return tune(plan(wanted, toys), toys, Store(tmp_path / place), Settings(timeout_s=60, **settings), listener)

    return execute


def results_of(study: Study) -> list[tuple[Any, ...]]:
    return [(each.state, each.settings, each.values, each.epochs, each.repeated) for each in study.trials]


def test_study_starts_with_the_default_and_improves_it(study: Study_) -> None:
    (done,) = study(Runs(), trials=20).studies
    assert done.trials[0].settings == {"recipe.learning_rate": 0.1, "recipe.batch_size": 16}
    (best,) = done.best
    assert done.trial(best).values < done.trials[0].values
    assert done.importance["recipe.learning_rate"] > 0.8


def test_study_executes_trials_only_until_they_are_pruned(study: Study_) -> None:
    runs = Runs()
    (pruned,) = study(runs, trials=20).studies
    (full,) = study(Runs(), trials=20, pruner="none", place="full").studies
    assert pruned.count("pruned") > 0
    assert full.count("pruned") == 0
    assert pruned.steps + pruned.saved_steps == 20 * 8 * 10 == full.steps
    assert all(kind == "quality" for _, kind in runs.executed)


@pytest.mark.parametrize("jobs", [1, 5])
@pytest.mark.parametrize(
    "sampler", ["tpe", "random", "nsga2", pytest.param("gp", marks=[pytest.mark.slow, pytest.mark.torch])]
)
def test_study_that_was_interrupted_equals_an_undisturbed_one(
    sampler: str, jobs: int, study: Study_, tmp_path: Path
) -> None:
    (whole,) = study(Runs(), sampler=sampler, jobs=jobs, place="whole").studies
    for number in (0, 1, 5):
        with pytest.raises(KeyboardInterrupt):
            study(Runs(interrupted=number), sampler=sampler, jobs=jobs)
    left = Runs(backwards=True)
    (resumed,) = study(left, sampler=sampler, jobs=jobs).studies
    assert results_of(resumed) == results_of(whole)
    assert len(left.executed) == len([each for each in whole.trials if not each.repeated]) - 6
    again = Runs()
    (same,) = study(again, sampler=sampler, jobs=jobs).studies
    assert (same, again.executed) == (resumed, [])
    assert load_all(tmp_path / "results") == ([resumed], [])


@pytest.mark.parametrize(("jobs", "remaining"), [(1, 9), (4, 8)])
@pytest.mark.parametrize("dropped", [True, False])
def test_study_whose_trial_was_stored_but_not_counted_uses_the_record(
    jobs: int, remaining: int, dropped: bool, study: Study_, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trial 2 is not counted. After Ctrl-C, the open trials are dropped; after SIGKILL, they are still open."""
    (whole,) = study(Runs(), jobs=jobs, place="whole").studies
    finish = Asked.finish
    with monkeypatch.context() as patch:

        def killed(self: Asked, *arguments: Any, **more: Any) -> None:
            if self.number == 2:
                raise KeyboardInterrupt
            finish(self, *arguments, **more)

        patch.setattr(Asked, "finish", killed)
        if not dropped:
            patch.setattr(Asked, "drop", lambda self: None)
        with pytest.raises(KeyboardInterrupt):
            study(Runs(), jobs=jobs)
    left = Runs()
    (resumed,) = study(left, jobs=jobs).studies
    assert results_of(resumed) == results_of(whole)
    assert len(left.executed) == remaining


def test_study_whose_result_was_stored_but_not_told_counts_the_trial_once(
    study: Study_, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends after the summary is stored, and before Optuna receives the value."""
    (whole,) = study(Runs(), trials=4, jobs=2, place="whole").studies
    end_trial = sampling._end_trial
    with monkeypatch.context() as patch:

        def killed(study: Any, number: int) -> None:
            if number == 2:
                raise KeyboardInterrupt
            end_trial(study, number)

        patch.setattr(sampling, "_end_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            study(Runs(), trials=4, jobs=2)
    (resumed,) = study(Runs(), trials=4, jobs=2).studies
    assert results_of(resumed) == results_of(whole)


def test_study_with_simultaneous_trials_does_not_depend_on_which_ends_first(study: Study_) -> None:
    runs, backwards = Runs(), Runs(backwards=True)
    (one,) = study(runs, trials=18, jobs=4).studies
    (other,) = study(backwards, trials=18, jobs=4, place="other").studies
    assert results_of(one) == results_of(other)
    assert runs.together == backwards.together == [4, 4, 4, 4, 2]
    assert one.count("pruned") > 0
    assert len({tuple(each.settings.values()) for each in one.trials}) == 18


def test_study_continues_with_another_number_of_jobs(study: Study_) -> None:
    with pytest.raises(KeyboardInterrupt):
        study(Runs(interrupted=5), jobs=4)
    runs = Runs()
    (done,) = study(runs, jobs=3).studies
    assert (len(done.trials), len(runs.executed)) == (12, 7)


@pytest.mark.parametrize(
    "lost",
    [
        Failure(kind="error", message="the executor 'local' failed: no connection", phase="train"),
        Failure(kind="error", message="the executor 'elsewhere' failed: no connection", phase="train"),
        Failure(kind="crash", message="no node was available", phase="executor"),
    ],
)
def test_study_repeats_trials_that_ended_because_an_executor_failed(study: Study_, lost: Failure) -> None:
    with pytest.raises(PluginError):
        study(Runs(interrupted=3, fail=lambda spec: lost, error=PluginError("no connection")), jobs=4)
    runs = Runs()
    (done,) = study(runs, jobs=4).studies
    assert (len(done.trials), done.count("failed"), len(runs.executed)) == (12, 0, 12)


@pytest.mark.parametrize("jobs", [1, 4])
def test_study_stops_if_the_executor_fails_and_repeats_the_trial(jobs: int, study: Study_) -> None:
    """An executor that loses an attempt for good returns a failure and does not raise."""
    (whole,) = study(Runs(), jobs=jobs, place="whole").studies
    rate = whole.trials[2].settings["recipe.learning_rate"]
    lost = Failure(kind="crash", message="no node was available", phase="executor")
    with pytest.raises(HarnessError, match=r"a trial of the study .* was not completed: no node was available"):
        study(Runs(fail=lambda spec: lost if spec.recipe.learning_rate == rate else None), jobs=jobs)
    (resumed,) = study(Runs(), jobs=jobs).studies
    assert results_of(resumed) == results_of(whole)


def test_study_whose_process_was_killed_while_a_trial_was_dropped_repeats_its_settings_once(
    study: Study_, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends after the settings were added again, and before the trial is stored as failed."""
    import optuna

    (whole,) = study(Runs(), trials=4, place="whole").studies
    tell = optuna.Study.tell
    with monkeypatch.context() as patch:

        def killed(self: Any, number: Any, *arguments: Any, **more: Any) -> Any:
            if more.get("state") == optuna.trial.TrialState.FAIL:
                raise SystemExit
            return tell(self, number, *arguments, **more)

        patch.setattr(optuna.Study, "tell", killed)
        with pytest.raises(SystemExit):
            study(Runs(interrupted=2), trials=4)
    (resumed,) = study(Runs(), trials=4).studies
    assert results_of(resumed) == results_of(whole)


def test_study_of_speed_is_not_continued_on_another_class_of_machine(
    study: Study_, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = msgspec.structs.replace(ENVIRONMENT, cores=ENVIRONMENT.cores + 8)
    monkeypatch.setattr(open_study.environment, "collect", lambda: ENVIRONMENT)
    speed = {"objectives": ("train_throughput",)}
    (done,) = study(Runs(), trials=2, **speed).studies
    assert done.machine == ENVIRONMENT
    with pytest.raises(HarnessError, match=r"on machines of the same class \(cores"):
        study(Runs(machine=larger), trials=3, **speed)
    (more,) = study(Runs(), trials=3, **speed).studies
    assert (more.machine, len(more.trials), more.count("failed")) == (ENVIRONMENT, 3, 0)
    monkeypatch.setattr(open_study.environment, "collect", lambda: larger)
    with pytest.raises(UsageError, match=r"on machines of the same class \(cores .*pass --rerun"):
        study(Runs(), trials=4, **speed)
    assert study(Runs(machine=larger), trials=2, rerun=True, **speed).studies[0].machine == larger
    (quality,) = study(Runs(machine=larger), trials=2).studies
    assert len(study(Runs(), trials=3).studies[0].trials) == 3
    assert quality.machine == larger


@pytest.mark.parametrize("remote", [True, False])
def test_study_is_not_executed_twice(remote: bool, study: Study_, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalExecutor, "remote", remote)
    (name,) = [each.name for each in study(Runs(), trials=1).studies]

    class Again(Runs):
        def __call__(self, *arguments: Any, **more: Any) -> list[RunRecord]:
            for other in (remote, not remote):
                monkeypatch.setattr(LocalExecutor, "remote", other)
                with pytest.raises(BusyError, match=f"another harness command is executing the study {name!r}"):
                    study(Runs(), trials=3)
            return super().__call__(*arguments, **more)

    runs = Again()
    study(runs, trials=2)
    assert len(runs.executed) == 1


def test_study_that_another_command_executes_is_continued_when_it_ends(study: Study_, tmp_path: Path) -> None:
    (done,) = study(Runs(), trials=1).studies
    lock = FileLock(tmp_path / "results" / FOLDER / f".{done.name}.lock")
    lock.acquire()

    class Waiting(Messages):
        def message(self, text: str) -> None:
            super().message(text)
            if text == f"waiting, because another harness command is executing the study {done.name!r}":
                lock.release()

    runs = Runs()
    assert len(study(runs, trials=2, wait=True, listener=Waiting()).studies[0].trials) == 2
    assert len(runs.executed) == 1


def confirmed_keys(tuned: Tuned) -> set[str]:
    return {record.request_key for record in tuned.records}


def test_confirmation_is_not_executed_by_two_commands(study: Study_, tmp_path: Path) -> None:
    key = min(confirmed_keys(study(Runs(), trials=2, confirm=1, place="other")))
    runs = Runs()
    with (
        claimed(Store(tmp_path / "results"), [key]),
        pytest.raises(BusyError, match=r"the trials are finished, but .* executing 1 of these runs .* then repeat the"),
    ):
        study(runs, trials=2, confirm=1)
    assert [kind for _, kind in runs.executed] == ["quality"] * 2
    again = Runs()
    assert len(study(again, trials=2, confirm=1).records) == 2
    assert [kind for _, kind in again.executed] == [None] * 2


def test_confirmation_waits_without_the_device_and_uses_the_runs_of_the_other_command(
    study: Study_, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, two commands could wait for each other."""
    monkeypatch.setattr(claims, "WAIT_S", 0.01)
    first = study(Runs(), trials=2, confirm=1, place="other")
    results = Store(tmp_path / "results")
    entered: list[str] = []

    def decide(specs: Sequence[RunSpec], *_: Any, **__: Any) -> list[Decision]:
        stored = {run.record.request_key: run for run in results.load().runs}
        return [Decision(spec, stored.get(spec.key), "") for spec in specs]

    monkeypatch.setattr(driver, "decide", decide)

    class Waiting(Messages):
        def message(self, text: str) -> None:
            super().message(text)
            if text.startswith("waiting, because another harness command") and not entered:
                with measuring_on(["cpu"]):
                    entered.append(text)
                for record in first.records:
                    with results.scratch() as scratch:
                        results.commit(scratch, msgspec.structs.replace(record, run_id=""))
                other.close()

    other = ExitStack()
    other.enter_context(claimed(results, confirmed_keys(first)))
    runs, listener = Runs(), Waiting()
    second = study(runs, trials=2, confirm=1, wait=True, listener=listener)
    assert len(entered) == 1
    assert confirmed_keys(second) == confirmed_keys(first)
    assert [kind for _, kind in runs.executed] == ["quality"] * 2
    assert not any(text.startswith("confirmation on fresh seeds") for text in listener.texts)


def test_study_of_two_backends_has_equal_budgets_and_first_trials(study: Study_) -> None:
    runs = Runs()
    one, other = study(runs, trials=8, backends=("toy-numpy", "peer-wide"), sampler="random").studies
    assert [each.settings for each in one.trials] == [each.settings for each in other.trials]
    order = [spec.backend for spec, _ in runs.executed]
    assert order[:4] == ["toy-numpy", "peer-wide", "peer-wide", "toy-numpy"]


@pytest.mark.parametrize("jobs", [1, 4])
def test_study_repeats_no_settings(jobs: int, study: Study_) -> None:
    runs = Runs()
    (done,) = study(runs, trials=6, jobs=jobs, search=("recipe.batch_size=8,16",), pruner="none").studies
    assert len(runs.executed) == 2
    assert [each.repeated for each in done.trials].count(True) == 4
    assert done.steps == 2 * 80
    assert done.trial(done.best[0]).settings == {"recipe.batch_size": 8}


def test_study_with_several_objectives_has_a_front(study: Study_) -> None:
    (done,) = study(Runs(), trials=12, objectives=("quality", "train_throughput")).studies
    front = [done.trial(number).values for number in done.best]
    assert len(front) >= 2
    for error, speed in front:
        assert not any(e <= error and s >= speed and (e, s) != (error, speed) for e, s in front)
    assert "Pareto front" in render(done, {})


def test_study_counts_trials_that_diverge(study: Study_) -> None:
    def diverge(spec: RunSpec) -> Failure | None:
        bad = spec.recipe.learning_rate > 0.2
        return Failure(kind="bad_result", message="the training loss became nan", phase="train") if bad else None

    (done,) = study(Runs(fail=diverge), trials=16).studies
    failed = [each for each in done.trials if each.state == "failed"]
    assert len(done.trials) == 16
    assert failed
    assert all(each.settings["recipe.learning_rate"] > 0.2 and each.values == [] for each in failed)
    assert f"{len(failed)} failed" in render(done, {})


def test_study_whose_first_trial_fails_before_training_stops(study: Study_) -> None:
    runs = Runs(fail=lambda spec: Failure(kind="error", message="no data", phase="data"))
    with pytest.raises(HarnessError, match="so all other trials would also fail: error: no data"):
        study(runs)
    assert len(runs.executed) == 1


def test_study_is_confirmed_on_fresh_seeds_next_to_the_default(study: Study_) -> None:
    runs = Runs()
    tuned = study(runs, confirm=3)
    (done,) = tuned.studies
    complete = [spec for spec, kind in runs.executed if kind is None]
    assert [spec.seed for spec in complete] == [1, 1, 2, 2, 3, 3]
    assert {spec.seed for spec, kind in runs.executed if kind} == {0}
    rates = [spec.recipe.learning_rate for spec in complete]
    best = done.trial(done.best[0]).settings["recipe.learning_rate"]
    assert rates == [0.1, best, best, 0.1, 0.1, best]
    costs = {record.spec.recipe.learning_rate: record.tuning for record in tuned.records}
    assert costs == {0.1: None, best: done.cost(done.best[0])}
    text = render(done, {record.run_id: record for record in tuned.records})
    assert "on fresh seeds, test rmse: default" in text
    assert "paired over 3 seeds)" in text


def test_study_with_other_software_is_not_continued(study: Study_, monkeypatch: pytest.MonkeyPatch) -> None:
    study(Runs(), trials=2)
    monkeypatch.setattr(open_study, "_software", lambda plan, catalog: {"numpy": "9.9"})
    with pytest.raises(
        UsageError,
        match=r"the software has changed since the study .* was started \(.*pass --rerun to start a new study",
    ):
        study(Runs(), trials=2)
    (new,) = study(Runs(), trials=2, rerun=True).studies
    assert new.name.endswith("-2")


def test_study_in_a_database_is_continued_and_needs_its_records(study: Study_, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'tuning.db'}"
    (done,) = study(Runs(), trials=2, storage=storage).studies
    (more,) = study(Runs(), trials=3, storage=storage).studies
    assert more.trials[:2] == done.trials
    assert not (directory(tmp_path / "results", done.name) / JOURNAL).exists()
    with pytest.raises(UsageError, match=r"trial 0, are missing or damaged in .*; pass the --results directory of"):
        study(Runs(), trials=3, storage=storage, place="elsewhere")
    with pytest.raises(UsageError, match="uses the storage"):
        study(Runs(), trials=3)


def test_study_in_a_storage_is_not_executed_for_two_results_directories(
    study: Study_, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    urls = {"storage": "sqlite:///tuning.db"}, {"storage": f"sqlite:///{tmp_path}/tuning.db"}

    class Again(Runs):
        def __call__(self, *arguments: Any, **more: Any) -> list[RunRecord]:
            with pytest.raises(BusyError, match=r"another harness command is executing the study .* or pass --wait"):
                study(Runs(), trials=2, place="elsewhere", **urls[1])
            return super().__call__(*arguments, **more)

    monkeypatch.setattr(LocalExecutor, "remote", True)  # so that the device is not locked
    (done,) = study(Again(), trials=1, **urls[0]).studies
    assert len(done.trials) == 1
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    assert len(study(Runs(), trials=2, **urls[0]).studies[0].trials) == 2


def test_study_whose_trials_were_removed_is_refused(study: Study_, tmp_path: Path) -> None:
    (done,) = study(Runs(), trials=1).studies
    shutil.rmtree(directory(tmp_path / "results", done.name) / TRIALS)
    with pytest.raises(UsageError, match=r"trial 0, are missing or damaged in .*; restore the records, or pass"):
        study(Runs(), trials=2)


@pytest.mark.parametrize("writes", [1, 4, 9, 14])
def test_study_whose_journal_cannot_be_written_is_continued_like_an_undisturbed_one(
    writes: int, study: Study_, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = study(Runs(), trials=6, place="undisturbed").studies
    append, left = JournalFileBackend.append_logs, [writes]

    def append_while_there_is_space(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, logs)

    with monkeypatch.context() as patch:
        patch.setattr(JournalFileBackend, "append_logs", append_while_there_is_space)
        with pytest.raises(
            HarnessError, match=rf"{JOURNAL}: .*No space left on device; .*repeat the command"
        ) as raised:
            study(Runs(), trials=6)
        assert raised.value.exit_status == 1
    (continued,) = study(Runs(), trials=6).studies
    assert results_of(continued) == results_of(expected)


def test_study_whose_database_is_lost_raises(study: Study_, tmp_path: Path) -> None:
    database = tmp_path / "tuning.db"

    class Lost(Runs):
        def __call__(self, *arguments: Any, **more: Any) -> list[RunRecord]:
            with sqlite3.connect(database) as connection:
                connection.execute("DROP TABLE trial_user_attributes")
            return super().__call__(*arguments, **more)

    with pytest.raises(RecordError, match=r"the storage sqlite:///.*no such table.*repeat the command to continue"):
        study(Lost(), trials=2, storage=f"sqlite:///{database}")


def test_study_in_an_unusable_storage_raises(study: Study_) -> None:
    with pytest.raises(UsageError, match=r"the storage sqlite:///no/such/folder/tuning.db cannot be used"):
        study(Runs(), trials=2, storage="sqlite:///no/such/folder/tuning.db")


@pytest.mark.parametrize("lost", [1, 20, 300])
def test_study_whose_journal_ends_with_an_incomplete_line_is_continued(
    lost: int, study: Study_, tmp_path: Path
) -> None:
    """The process was killed, or the disk was full, while a line was written."""
    (whole,) = study(Runs(), trials=6, place="whole").studies
    (done,) = study(Runs(), trials=3).studies
    folder = directory(tmp_path / "results", done.name)
    before = (folder / STUDY).read_bytes()
    study(Runs(), trials=4)
    (folder / STUDY).write_bytes(before)  # written after the journal
    (folder / JOURNAL).write_bytes((folder / JOURNAL).read_bytes()[:-lost])
    for _ in range(2):
        (continued,) = study(Runs(), trials=6).studies
        assert results_of(continued) == results_of(whole)


def drop_result(text: str) -> str:
    """Remove the line with the result of the first trial."""
    lines = text.splitlines(keepends=True)
    lines.remove(next(line for line in lines if '"harness":' in line))
    return "".join(lines)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("{", "", 1), r"journal.log: the journal of the study cannot be used: .*--rerun"),
        (lambda text: "\0" * 9 + text, r"journal.log: the journal of the study cannot be used: .*--rerun"),
        (drop_result, r"the storage of the study .* is damaged: the result of trial 0 differs .*--rerun"),
        (
            lambda text: re.sub(r'("steps":)\d+', r"\g<1>7", text, count=1),
            r"the storage of the study .* is damaged: the result of trial 0 differs .*--rerun",
        ),
    ],
    ids=["bracket", "zeros", "missing line", "number"],
)
def test_study_with_a_damaged_journal_is_refused(
    damage: Callable[[str], str], message: str, study: Study_, tmp_path: Path
) -> None:
    (done,) = study(Runs(), trials=3).studies
    journal = directory(tmp_path / "results", done.name) / JOURNAL
    text = journal.read_text()
    assert damage(text) != text
    journal.write_text(damage(text))
    runs = Runs()
    with pytest.raises(UsageError, match=message):
        study(runs, trials=4)
    assert runs.executed == []
    (new,) = study(Runs(), trials=4, rerun=True).studies
    assert len(new.trials) == 4


def test_study_whose_journal_was_removed_uses_the_records(study: Study_, tmp_path: Path) -> None:
    (whole,) = study(Runs(), trials=6, place="whole").studies
    (done,) = study(Runs(), trials=4).studies
    (directory(tmp_path / "results", done.name) / JOURNAL).unlink()
    left = Runs()
    (continued,) = study(left, trials=6).studies
    assert results_of(continued) == results_of(whole)
    assert len(left.executed) == 2


def test_charts_of_a_study_are_valid(study: Study_) -> None:
    from harness.report.plots.study_charts import charts

    (one,) = study(Runs(), trials=8).studies
    (several,) = study(Runs(), trials=8, objectives=("quality", "parameters"), place="several").studies
    titles = [title for each in (one, several) for title, chart in charts(each) if chart.to_dict()]
    assert titles[:2] == ["History of the trials", "Importance for validation rmse"]
    assert "Pareto front of the trials" in titles


def test_load_of_a_damaged_study_is_a_problem(study: Study_, tmp_path: Path) -> None:
    (done,) = study(Runs(), trials=3).studies
    path = directory(tmp_path / "results", done.name) / STUDY
    changes: list[dict[str, Any]] = [{"best": [99]}, {"objectives": []}, {"trials": done.trials * 2}]
    for change in changes:
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(done, **change)))
        studies, problems = load_all(tmp_path / "results")
        assert (studies, len(problems)) == ([], 1)
        assert str(path) in problems[0]
    path.write_text("{")
    assert load_all(tmp_path / "results")[0] == []


@pytest.mark.parametrize("content", ["", "{", "null", "{}"])
def test_damaged_study_is_not_continued_and_a_new_one_can_be_started(
    content: str, study: Study_, tmp_path: Path
) -> None:
    (done,) = study(Runs(), trials=1).studies
    path = directory(tmp_path / "results", done.name) / STUDY
    path.write_text(content)
    with pytest.raises(
        RecordError, match=rf"{path}: not valid: .*; restore the file from a copy, or repeat .* --rerun"
    ):
        study(Runs(), trials=1)
    assert path.read_text() == content
    (new,) = study(Runs(), trials=1, rerun=True).studies
    assert new.name == f"{done.name}-2"
    runs = Runs()
    (continued,) = study(runs, trials=2).studies
    assert (continued.name, len(runs.executed)) == (new.name, 1)
    assert path.read_text() == content
