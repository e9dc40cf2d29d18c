"""Execution of studies: first the trials, one after another, and then the runs that confirm the best settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from harness.errors import HarnessError, UsageError
from harness.execute.attempt import utc_now
from harness.execute.device_lock import measuring_on
from harness.execute.resume import decide, package_versions
from harness.execute.runner import Guarded, Listener, run_all
from harness.measure import environment
from harness.plugins.catalog import Catalog
from harness.plugins.code import with_digest
from harness.records import EpochEnded, Event, Failure, RunRecord, RunSpec, Trial, TuningCost
from harness.records.store import RECORD, Store, read_record
from harness.tuning.request import StudyPlan
from harness.tuning.sampling import Asked, Sampling, without_password
from harness.tuning.space import Value
from harness.tuning.study import (
    DEFAULT,
    JOURNAL,
    STUDY,
    TRIALS,
    Objective,
    Study,
    TrialSummary,
    directory,
    load,
    save,
)

MAX_STEPS = 2**62
"""Upper bound on the number of training steps."""
_BEFORE_TRAINING = ("", "import", "prepare", "data", "build")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the execution."""

    timeout_s: float
    memory_limit_bytes: int | None = None
    storage: str = ""
    """URL of an Optuna storage. If empty, a journal file in the directory of the study is used."""
    rerun: bool = False
    """True to start new studies even if studies with the same settings exist."""
    wait: bool = False


@dataclass(frozen=True)
class Tuned:
    """Results of `tune`."""

    studies: list[Study]
    records: list[RunRecord]
    """Records of the runs that confirm the settings, in execution order."""


def tune(plans: Sequence[StudyPlan], catalog: Catalog, store: Store, settings: Settings, listener: Listener) -> Tuned:
    """Execute the remaining trials of each plan, and confirm the best settings.

    The trials of all backends are interleaved. In each round, every backend executes one trial. The order of the
    backends is reversed after each round. An interrupted study is continued. Finished trials are not repeated, and the
    interrupted trial is replaced.

    Raises `harness.UsageError` if the storage cannot be used, or if it contains a study whose records are in another
    directory. Raises `harness.BusyError` if another process is measuring on the same device. Raises
    `harness.RecordError` if results cannot be written. If the first trial of a study fails before training,
    `harness.HarnessError` is raised, because the other trials would also fail.
    """
    listener = Guarded(listener)
    store.prepare()
    try:
        with measuring_on([plan.spec.device for plan in plans], wait=settings.wait, say=listener.message):
            open_studies = [_OpenStudy(plan, catalog, store, settings, listener) for plan in plans]
            for each in open_studies:
                each.announce()
            for number in range(plans[0].request.trials):
                for each in open_studies[:: -1 if number % 2 else 1]:
                    if each.finished < number + 1:
                        each.execute_trial()
            records = _confirm(open_studies, catalog, store, settings, listener)
    finally:
        listener.close()
    return Tuned([each.study for each in open_studies], records)


class _OpenStudy:
    """A study whose trials are being executed."""

    def __init__(self, plan: StudyPlan, catalog: Catalog, store: Store, settings: Settings, listener: Guarded) -> None:
        self.plan, self._catalog, self._results, self._settings = plan, catalog, store.path, settings
        self._listener = listener
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
        self._records = {
            run.record.request_key: run.record
            for run in self._store.load().runs
            if not (isinstance(run.record.outcome, Failure) and run.record.outcome.kind == "interrupted")
        }
        known = {record.run_id for record in self._records.values()}
        absent = [each.number for each in self._sampling.finished if each.run_id and each.run_id not in known]
        if absent:
            raise UsageError(
                f"the storage contains the study {self.study.name!r}, but the records of its trials, such as trial "
                f"{absent[0]}, are not in {folder}; pass the --results directory of the study, or another --storage"
            )
        self._update()

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

    def execute_trial(self) -> None:
        """Execute the next trial and store its result."""
        plan = self.plan
        first = None if self.finished else plan.default_settings(self._catalog)
        asked = self._sampling.ask(self.finished, first)
        try:
            summary, failure = self._result(asked)
        except BaseException:
            asked.drop()
            raise
        asked.finish(summary, diverged=failure is not None and failure.kind == "bad_result")
        self._update()
        if failure is not None and self.finished == 1 and failure.phase in _BEFORE_TRAINING and failure.kind != "oom":
            raise HarnessError(
                f"the first trial of study {self.study.name!r} failed before training, so all other trials would also "
                f"fail: {failure.kind}: {failure.message}"
            )

    def _result(self, asked: Asked) -> tuple[TrialSummary, Failure | None]:
        """Execute a trial and return its summary. A trial whose settings have already been tried is not executed."""
        try:
            spec = self.plan.spec_with(asked.settings, self._catalog)
        except UsageError as error:
            self._listener.message(f"trial {asked.number} failed: {error}")
            return _summary(asked, None, self.plan.objectives, repeated=False, message=str(error)), None
        record, earlier = self._records.get(spec.key), None
        if record is None:
            record = self._records[spec.key] = self._execute(spec, asked)
        else:
            # If no trial has this record, the process was killed after the record was stored.
            earlier = next((each.number for each in self.study.trials if each.run_id == record.run_id), None)
            _report(asked, record, self.plan.objectives)
        repeated = earlier is not None
        if repeated:
            self._listener.message(
                f"trial {asked.number} has the same settings as trial {earlier}, so the result "
                f"of trial {earlier} is reused"
            )
        failure = record.outcome if isinstance(record.outcome, Failure) else None
        return _summary(asked, record, self.plan.objectives, repeated=repeated), failure

    def _execute(self, spec: RunSpec, asked: Asked) -> RunRecord:
        objectives = self.plan.objectives
        learned = len(objectives) == 1

        def prune(epoch: EpochEnded) -> bool:
            value = _learned(objectives[0], epoch) if learned else None
            hopeless = value is not None and asked.is_hopeless(epoch.epoch, value)
            return hopeless and epoch.epoch < epoch.epochs  # the last epoch completes the trial

        total = self.plan.request.trials
        (record,) = run_all(
            [spec],
            self._catalog,
            self._store,
            timeout_s=self._settings.timeout_s,
            memory_limit_bytes=self._settings.memory_limit_bytes,
            listener=_Numbered(self._listener, self.finished + 1, total),
            trial="speed" if self.plan.measures_speed else "quality",
            prune=prune,
        )
        return record

    def _opened(self) -> Study:
        """Return the stored study with the same settings, or a new study if there is none."""
        plan = self.plan
        name, number = plan.name, 1
        software = _software(plan.spec, self._catalog)
        storage = without_password(self._settings.storage) or JOURNAL
        found: Study | None = None
        while (directory(self._results, name) / STUDY).is_file():
            found = load(directory(self._results, name))
            number += 1
            name = f"{plan.name}-{number}"
        if found is not None and not self._settings.rerun:
            then = found.software
            changed = [each for each in {**then, **software} if then.get(each) != software.get(each)]
            if changed:
                old, new = then.get(changed[0], "none")[:12], software.get(changed[0], "none")[:12]
                raise UsageError(
                    f"the software has changed since the study {found.name!r} was started ({changed[0]} {old} -> "
                    f"{new}); pass --rerun to start a new study"
                )
            if found.storage != storage:
                raise UsageError(
                    f"the study {found.name!r} uses the storage {found.storage}, not {storage}; pass the same "
                    "--storage, or --rerun to start a new study"
                )
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
    """A listener that forwards the events of a single run, with the number of its trial."""

    def __init__(self, listener: Listener, index: int, total: int) -> None:
        super().__init__()
        self._listener, self._index, self._total = listener, index, max(index, total)

    def message(self, text: str) -> None:
        self._listener.message(text)

    def run_started(self, index: int, total: int, spec: RunSpec) -> None:
        self._listener.run_started(self._index, self._total, spec)

    def event(self, index: int, spec: RunSpec, event: Event) -> None:
        self._listener.event(self._index, spec, event)

    def run_finished(self, index: int, total: int, record: RunRecord) -> None:
        self._listener.run_finished(self._index, self._total, record)


def _confirm(
    studies: Sequence[_OpenStudy], catalog: Catalog, store: Store, settings: Settings, listener: Guarded
) -> list[RunRecord]:
    """Execute runs with the default settings and with the best settings on fresh seeds, unless the runs are already
    stored.

    The test split is used only here, after the settings have been chosen. The runs are interleaved.
    """
    request = studies[0].plan.request
    if not request.confirm:
        return []
    chosen: list[tuple[_OpenStudy, str, RunSpec]] = []
    costs: dict[str, TuningCost] = {}
    for number in range(request.confirm):
        turn = []
        for each in studies:
            for contender, values in each.contenders().items() if each.study.best else ():
                spec = each.plan.spec_with(values, catalog)
                spec = msgspec.structs.replace(spec, seed=(spec.seed + 1 + number) % 2**32)
                turn.append((each, contender, spec))
                if contender != DEFAULT:
                    costs[spec.key] = each.study.cost(int(contender))
        chosen += turn[:: -1 if number % 2 else 1]
    specs = {spec.key: spec for _, _, spec in chosen}
    stored = {
        decision.spec.key: record
        for decision in decide(list(specs.values()), catalog, store)
        if decision.stored
        and (record := read_record(decision.stored.path / RECORD)).tuning == costs.get(decision.spec.key)
    }
    missing = [spec for key, spec in specs.items() if key not in stored]
    if missing:
        listener.message(f"confirmation on fresh seeds: {len(missing)} runs")
    executed = run_all(
        missing,
        catalog,
        store,
        timeout_s=settings.timeout_s,
        memory_limit_bytes=settings.memory_limit_bytes,
        listener=Guarded(listener),  # which collects only the records of these runs
        tuning=costs,
    )
    records = stored | {spec.key: record for spec, record in zip(missing, executed, strict=True)}
    for each in studies:
        runs: dict[str, list[str]] = {}
        for study, contender, spec in chosen:
            if study is each:
                runs.setdefault(contender, []).append(records[spec.key].run_id)
        each.confirmed(runs)
    return [records[key] for key in specs]


def _summary(
    asked: Asked, record: RunRecord | None, objectives: Sequence[Objective], *, repeated: bool, message: str = ""
) -> TrialSummary:
    outcome = None if record is None else record.outcome
    base = TrialSummary(
        number=asked.number,
        state="failed",
        settings=dict(asked.settings),
        values=[],
        epochs=0,
        steps=0,
        planned_steps=0,
        seconds=0.0 if record is None or repeated else round(record.wall_s, 3),
        run_id="" if record is None else record.run_id,
        repeated=repeated,
        message=message or (f"{outcome.kind}: {outcome.message}" if isinstance(outcome, Failure) else ""),
    )
    if record is None or not isinstance(outcome, Trial):
        return base
    values = _values(outcome, objectives)
    if None in values:
        undefined = objectives[values.index(None)].title
        return msgspec.structs.replace(base, message=f"{undefined} is undefined for these predictions")
    return msgspec.structs.replace(
        base,
        state=outcome.state,
        values=[value for value in values if value is not None],
        epochs=len(outcome.curves),
        steps=0 if repeated else outcome.steps,
        planned_steps=0 if repeated else min(outcome.planned_steps, record.spec.recipe.max_steps or MAX_STEPS),
    )


def _values(trial: Trial, objectives: Sequence[Objective]) -> list[float | None]:
    """Return the values of the objectives. For a pruned trial, the values after its last epoch are returned."""
    if trial.state == "pruned":
        return [_learned(each, trial.curves[-1]) for each in objectives]
    known = {
        "quality": trial.validation.get(trial.metric),
        "loss": trial.curves[-1].validation.get("loss") if trial.curves else None,
        "train_throughput": trial.train_samples_per_s,
        "parameters": None if trial.model is None else float(trial.model.parameters),
    }
    return [known[each.name] for each in objectives]


def _learned(objective: Objective, epoch: EpochEnded) -> float | None:
    """Return the value of an objective after an epoch, or None if it is known only after training."""
    if objective.name == "loss":
        return epoch.validation.get("loss")
    if objective.name != "quality":
        return None
    return next((value for name, value in epoch.validation.items() if name != "loss"), epoch.validation.get("loss"))


def _report(asked: Asked, record: RunRecord, objectives: Sequence[Objective]) -> None:
    """Report the learning curve of an earlier trial."""
    if isinstance(record.outcome, Trial) and len(objectives) == 1:
        for epoch in record.outcome.curves:
            value = _learned(objectives[0], epoch)
            if value is not None:
                asked.is_hopeless(epoch.epoch, value)


def _software(spec: RunSpec, catalog: Catalog) -> dict[str, str]:
    """Return the processor name, the versions of Python and the packages, and the digests of the plugins' code."""
    codes = {f"plugin {ref.name}": with_digest(ref).code_digest for ref in catalog.refs_for(spec)}
    return {"CPU": environment.collect().cpu, **package_versions(spec, catalog), **codes}
