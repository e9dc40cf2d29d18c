"""A study whose trials are being executed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from harness.errors import HarnessError, UsageError
from harness.execute.attempt import utc_now
from harness.execute.machines import machine_difference, machines_for
from harness.execute.resume import package_versions
from harness.execute.runner import Guarded, Listener, run_all
from harness.execute.side_by_side import Lane, SideBySide
from harness.interfaces import Executor
from harness.measure import environment
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.records import Environment, EpochEnded, Event, Failure, RunRecord, RunSpec, Trial
from harness.records.record import EXECUTOR_PHASE
from harness.records.store import RECORD, Store, read_record
from harness.tuning.request import StudyPlan
from harness.tuning.sampling import Asked, Sampling, without_password
from harness.tuning.space import Value
from harness.tuning.study import DEFAULT, JOURNAL, STUDY, TRIALS, Objective, Study, directory, load, save
from harness.tuning.summaries import learned, summary

_OF_EXECUTOR = re.compile("the executor '.*' failed: ")
"""Prefix of messages about executor failures. In older records, the phase of an executor failure is a phase of the run
instead of ``executor``.
"""
_BEFORE_TRAINING = ("", "import", "prepare", "data", "build")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the execution."""

    timeout_s: float
    memory_limit_bytes: int | None = None
    storage: str = ""
    """URL of an Optuna storage. If the string is empty, a journal file in the directory of the study is used."""
    rerun: bool = False
    """True to start new studies even if studies with the same settings exist."""
    wait: bool = False
    checked_at: str = ""
    """Time of the check that found no difference in speed between simultaneous and sequential runs; see
    `harness.records.Placement`."""


class OpenStudy:
    """A study whose trials are being executed."""

    def __init__(
        self,
        plan: StudyPlan,
        catalog: Catalog,
        store: Store,
        settings: Settings,
        listener: Guarded,
        lanes: Sequence[Lane] = (),
    ) -> None:
        self.plan, self._catalog, self._results, self._settings = plan, catalog, store.path, settings
        self._listener, self._lanes = listener, lanes
        self.study = self._opened()
        folder = directory(self._results, self.study.name)
        self._store = Store(folder / TRIALS)
        self._store.prepare()
        self._sampling = Sampling(
            settings.storage or folder / JOURNAL,
            self.study.name,
            plan.dimensions,
            [each.higher_is_better for each in plan.objectives],
            sampler=plan.request.sampler,
            pruner=plan.pruner,
            seed=plan.request.sampler_seed,
            epochs=plan.epochs,
        )
        self._check_storage()
        loaded = self._store.load()
        for problem in loaded.problems:
            listener.message(problem)
        records = [run.record for run in loaded.runs]
        self._records = {
            record.request_key: record
            for record in records
            if not _is_interrupted(record) and not self._other_machine(record)
        }
        known = {record.run_id for record in records}
        absent = [each.number for each in self._sampling.finished if each.run_id and each.run_id not in known]
        if absent:
            advice = "pass the --results directory of the study, or another --storage"
            if not settings.storage:
                advice = "restore the records, or pass --rerun to start a new study"
            raise UsageError(
                f"the storage contains the study {self.study.name!r}, but the records of its trials, such as trial "
                f"{absent[0]}, are missing or damaged in {folder}; {advice}"
            )
        self._update()

    def _check_storage(self) -> None:
        """Raise `harness.UsageError` if trials in ``study.json`` are missing from the storage or differ from the stored
        ones.

        ``study.json`` is written after the storage. If the storage is empty, the study is repeated with the stored
        records of the trials.
        """
        stored = {each.number: each for each in self._sampling.finished}
        changed = [each.number for each in self.study.trials if stored.get(each.number) != each]
        if stored and changed:
            raise UsageError(
                f"the storage of the study {self.study.name!r} is damaged: the result of trial {changed[0]} differs "
                f"from the one in {STUDY}; restore the storage, or pass --rerun to start a new study"
            )

    @property
    def finished(self) -> int:
        """Number of finished trials."""
        return len(self.study.trials)

    def announce(self) -> None:
        total, done = self.plan.request.trials, self.finished
        if done:
            left = max(0, total - done)
            self._listener.message(f"study {self.study.name}: {done} trials are finished, {left} remain")
        else:
            self._listener.message(f"study {self.study.name}: {total} trials")

    def execute_trials(self, count: int) -> None:
        """Execute trials at the same time until `count` trials are finished, and store their results.

        After all `count` trials have finished, the results are stored in the order of the trials. Therefore, the next
        suggestions do not depend on which trial finishes first.
        """
        first = self.finished == 0
        asked: list[Asked] = []
        try:
            for position in range(self.finished, count):
                default = None if position else self.plan.default_settings(self._catalog)
                asked.append(self._sampling.ask(position, default))
            specs = self._specs(asked)
            executed = self._execute(asked, specs)
            for one in asked:
                self._finish(one, specs[one.number], executed)
        except BaseException:
            for one in asked:
                one.drop()
            raise
        if first and asked:
            self._check_first(specs[asked[0].number])

    def _specs(self, asked: Sequence[Asked]) -> dict[int, RunSpec | str]:
        """Return a mapping from trial numbers to specifications, or to the reasons why settings are invalid."""
        found: dict[int, RunSpec | str] = {}
        for one in asked:
            try:
                found[one.number] = self.plan.spec_with(one.settings, self._catalog)
            except UsageError as error:
                self._listener.message(f"trial {one.number} failed: {error}")
                found[one.number] = str(error)
        return found

    def _execute(self, asked: Sequence[Asked], specs: Mapping[int, RunSpec | str]) -> set[int]:
        """Execute one trial for each specification that has no record, and return the numbers of the executed
        trials."""
        objectives = self.plan.objectives
        open_trials: dict[str, Asked] = {}
        numbers: list[int] = []
        for number, one in enumerate(asked, start=self.finished + 1):
            spec = specs[one.number]
            if isinstance(spec, RunSpec) and spec.key not in self._records and spec.key not in open_trials:
                open_trials[spec.key] = one
                numbers.append(number)
        if not open_trials:
            return set()

        def prune(spec: RunSpec, epoch: EpochEnded) -> bool:
            value = learned(objectives[0], epoch) if len(objectives) == 1 else None
            hopeless = value is not None and open_trials[spec.key].is_hopeless(epoch.epoch, value)
            return hopeless and epoch.epoch < epoch.epochs  # the last epoch completes the trial

        planned = [spec for one in open_trials.values() if isinstance(spec := specs[one.number], RunSpec)]
        records = run_all(
            planned,
            self._catalog,
            self._store,
            timeout_s=self._settings.timeout_s,
            memory_limit_bytes=self._settings.memory_limit_bytes,
            executor=self._executor(len(planned)),
            listener=_Numbered(self._listener, numbers, self.plan.request.trials),
            # The seconds of simultaneous trials are not a speed, because the trials may slow each other down.
            quality_only=bool(self._lanes) and not self.plan.measures_speed,
            trial="speed" if self.plan.measures_speed else "quality",
            prune=prune,
        )
        for record in records:
            self._check_executed(record)
        self._records |= {spec.key: record for spec, record in zip(planned, records, strict=True)}
        return {one.number for one in open_trials.values()}

    def _check_executed(self, record: RunRecord) -> None:
        """Raise `harness.HarnessError` if the trial must be repeated. Store the machine of the first trial."""
        if isinstance(record.outcome, Failure):
            if _is_interrupted(record):
                raise HarnessError(
                    f"a trial of the study {self.study.name!r} was not completed: {record.outcome.message}; repeat the "
                    "command to continue the study"
                )
        elif self.study.machine is None:
            self.study = msgspec.structs.replace(self.study, machine=record.environment)
        elif difference := self._other_machine(record):
            raise HarnessError(_different_machines(self.study, difference))

    def _other_machine(self, record: RunRecord) -> str | None:
        """Return how a trial's machine differs from the machine of the first trial. Return None if the speeds of the
        trials are comparable, or if speed is not an objective."""
        if not self.plan.measures_speed or isinstance(record.outcome, Failure):
            return None
        return _other_class(self.study, record.environment)

    def _executor(self, count: int) -> Executor:
        """Return the executor for `count` trials that are executed at the same time."""
        if not self._lanes:
            return self.plan.executor
        checked_at = self._settings.checked_at if self.plan.measures_speed else ""
        return SideBySide(self._lanes, [[index] for index in range(1, count + 1)], checked_at)

    def _finish(self, asked: Asked, spec: RunSpec | str, executed: Collection[int]) -> None:
        """Store the result of a trial."""
        objectives = self.plan.objectives
        if isinstance(spec, str):
            asked.finish(summary(asked, None, objectives, repeated=False, message=spec))
            self._update()
            return
        record, earlier = self._records[spec.key], None
        if asked.number not in executed:
            # If no trial has this record, the process was killed after the record was stored.
            earlier = next((each.number for each in self.study.trials if each.run_id == record.run_id), None)
        if asked.number not in executed or not self.plan.executor.prunes:  # the executor may not report epochs
            _report(asked, record, objectives)
        if earlier is not None:
            self._listener.message(
                f"trial {asked.number} has the same settings as trial {earlier}, so the result "
                f"of trial {earlier} is reused"
            )
        outcome = record.outcome
        diverged = isinstance(outcome, Failure) and outcome.kind == "bad_result"
        asked.finish(summary(asked, record, objectives, repeated=earlier is not None), diverged=diverged)
        self._update()

    def _check_first(self, spec: RunSpec | str) -> None:
        """Raise `harness.HarnessError` if the first trial failed before training."""
        failure = self._records[spec.key].outcome if isinstance(spec, RunSpec) else None
        if isinstance(failure, Failure) and failure.phase in _BEFORE_TRAINING and failure.kind != "oom":
            raise HarnessError(
                f"the first trial of study {self.study.name!r} failed before training, so all other trials would also "
                f"fail: {failure.kind}: {failure.message}"
            )

    def _opened(self) -> Study:
        """Return the stored study with the same settings, or a new study if there is none."""
        plan = self.plan
        name, number, last = plan.name, 1, ""
        software = _software(plan, self._catalog)
        storage = without_password(self._settings.storage) or JOURNAL
        while (directory(self._results, name) / STUDY).is_file():
            number, last = number + 1, name
            name = f"{plan.name}-{number}"
        if last and not self._settings.rerun:
            found = load(directory(self._results, last))
            then = found.software
            changed = [each for each in {**then, **software} if then.get(each) != software.get(each)]
            if changed:
                old, new = (each.get(changed[0], "none") for each in (then, software))
                raise UsageError(
                    f"the software has changed since the study {found.name!r} was started ({changed[0]} {old} -> "
                    f"{new}); pass --rerun to start a new study"
                )
            if found.storage != storage:
                raise UsageError(
                    f"the study {found.name!r} uses the storage {found.storage}, not {storage}; pass the same "
                    "--storage, or --rerun to start a new study"
                )
            found = self._with_machine(found)
            differences = [_other_class(found, each) for each in _environments(plan, self._catalog)]
            if plan.measures_speed and all(differences):
                raise UsageError(_different_machines(found, differences[0]))
            return found
        return Study(
            name=name,
            started_at=utc_now(),
            spec=plan.spec,
            search=[each.text for each in plan.dimensions],
            objectives=list(plan.objectives),
            sampler=plan.request.sampler,
            pruner=plan.pruner,
            seed=plan.request.sampler_seed,
            storage=storage,
            software=software,
        )

    def _with_machine(self, study: Study) -> Study:
        """Return the study with the machine of its first trial. Older studies do not contain the machine."""
        ids = [each.run_id for each in study.trials if each.state != "failed"]
        if study.machine is not None or not ids:
            return study
        path = directory(self._results, study.name) / TRIALS / ids[0] / RECORD
        return msgspec.structs.replace(study, machine=read_record(path).environment) if path.exists() else study

    def _update(self) -> None:
        """Read the trials from the storage, and write ``study.json``."""
        self.study = msgspec.structs.replace(
            self.study,
            trials=self._sampling.finished,
            best=self._sampling.best,
            importance=self._sampling.importance(),
        )
        save(self.study, self._results)

    def confirmed(self, runs: Mapping[str, list[str]]) -> None:
        """Store the ids of the confirmation runs."""
        self.study = msgspec.structs.replace(self.study, confirmed=dict(runs))
        save(self.study, self._results)

    def contenders(self) -> dict[str, dict[str, Value]]:
        """Return the default settings and the settings of the best trials, with the same keys as `Study.confirmed`."""
        return {DEFAULT: {}, **{str(number): self.study.trial(number).settings for number in self.study.best}}


class _Numbered(Listener):
    """A listener that forwards the events of trials, together with the trials' numbers in the study.

    `numbers` contains the number of each trial, counted from 1, and `total` is the number of trials in the study.
    """

    def __init__(self, listener: Listener, numbers: Sequence[int], total: int) -> None:
        super().__init__()
        self._listener, self._numbers, self._total = listener, numbers, max(*numbers, total)

    def message(self, text: str) -> None:
        self._listener.message(text)

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self._listener.run_started(self._numbers[index - 1], self._total, spec)

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        self._listener.event(self._numbers[index - 1], spec, event)

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        self._listener.run_finished(self._numbers[index - 1], self._total, record)


def _report(asked: Asked, record: RunRecord, objectives: Sequence[Objective]) -> None:
    """Report the learning curve in the record of an earlier trial."""
    if isinstance(record.outcome, Trial) and len(objectives) == 1:
        for epoch in record.outcome.curves:
            value = learned(objectives[0], epoch)
            if value is not None:
                asked.is_hopeless(epoch.epoch, value)


def _is_interrupted(record: RunRecord) -> bool:
    """Return True if a trial must be repeated because it was stopped by the user or by an executor failure."""
    failure = record.outcome
    return isinstance(failure, Failure) and (
        failure.kind == "interrupted" or failure.phase == EXECUTOR_PHASE or bool(_OF_EXECUTOR.match(failure.message))
    )


def _other_class(study: Study, machine: Environment) -> str | None:
    """Return how a machine differs from the machine of the first trial. Return None if both machines belong to the same
    class, or if no trial has been executed."""
    if study.machine is None:
        return None
    return machine_difference(study.machine, machine, on_gpu=study.spec.device != "cpu")


def _different_machines(study: Study, difference: str | None) -> str:
    return (
        f"the study {study.name!r} compares the speed of trials, which must be executed on machines of the same class "
        f"({difference}); use the machine of the first trial, or pass --rerun to start a new study"
    )


def _environments(plan: StudyPlan, catalog: Catalog) -> list[Environment]:
    """Return descriptions of the machines that execute the trials."""
    machines = machines_for(plan.executor, [plan.spec], catalog)
    return [environment.collect()] if machines is None else machines


def _software(plan: StudyPlan, catalog: Catalog) -> dict[str, str]:
    """Return the processor names, the versions of Python and the packages, and the digests of the plugins' code."""
    codes = {f"plugin {ref.name}": with_digest(ref).code_digest for ref in catalog.refs_for(plan.spec)}
    cpus = {each.cpu for each in _environments(plan, catalog)}
    return {"CPU": ", ".join(sorted(cpus)), **package_versions(plan.spec, catalog), **codes}
