"""Execution of studies: first the trials, one after another, and then the runs that confirm the best settings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from filelock import FileLock, Timeout

from harness.errors import BusyError, RecordError
from harness.execute.device_lock import measuring_on
from harness.execute.machines import machines_for
from harness.execute.option_checks import check_before_runs
from harness.execute.resume import decide
from harness.execute.runner import LOCAL, Guarded, Listener, run_all
from harness.execute.side_by_side import lanes_for
from harness.plugins.catalog import Catalog
from harness.records import RunRecord, RunSpec, TuningCost
from harness.records.files import make_directory
from harness.records.store import RECORD, Store, read_record
from harness.tuning.open_study import OpenStudy, Settings
from harness.tuning.request import StudyPlan
from harness.tuning.study import DEFAULT, FOLDER, Study


@dataclass(frozen=True)
class Tuned:
    """Results of `tune`."""

    studies: list[Study]
    records: list[RunRecord]
    """Records of the runs that confirm the settings, in execution order."""


def tune(plans: Sequence[StudyPlan], catalog: Catalog, store: Store, settings: Settings, listener: Listener) -> Tuned:
    """Execute the remaining trials of each plan, and confirm the best settings.

    The trials of all backends are interleaved. In each round, every backend executes `Tuning.jobs` trials. The order of
    the backends is reversed after each round. An interrupted study is continued. Finished trials are not repeated, and
    interrupted trials are replaced.

    Raises `harness.UsageError` if an option is incompatible with the model or the data (see
    `harness.execute.option_checks.check_before_runs`), if the storage cannot be used, or if it contains a study whose
    records are in another directory. Raises `harness.BusyError` if another process is executing one of the studies. If
    the trials are executed on this machine, `harness.BusyError` is also raised if another process is measuring on the
    same device. Raises `harness.RecordError` if results cannot be written. If the first trial of a study fails before
    training, `harness.HarnessError` is raised, because the other trials would also fail. `harness.HarnessError` is also
    raised if a trial was not completed because the executor failed, or if the trials of a study that measures speed
    were executed on machines of different classes.
    """
    listener = Guarded(listener)
    request, executor, specs = plans[0].request, plans[0].executor, [plan.spec for plan in plans]
    lanes = lanes_for(specs, request.jobs) if request.jobs > 1 and executor.name == LOCAL else ()
    store.prepare()
    try:
        with _locked(plans, store, wait=settings.wait, say=listener.message):
            if not executor.remote:
                check_before_runs([spec for plan in plans for spec in plan.checked], catalog, say=listener.message)
            studies = [OpenStudy(plan, catalog, store, settings, listener, lanes) for plan in plans]
            for each in studies:
                each.announce()
            for turn, start in enumerate(range(0, request.trials, request.jobs)):
                for each in studies[:: -1 if turn % 2 else 1]:
                    each.execute_trials(min(start + request.jobs, request.trials))
            records = _confirm(studies, catalog, store, settings, listener)
    finally:
        listener.close()
    return Tuned([each.study for each in studies], records)


@contextlib.contextmanager
def _locked(plans: Sequence[StudyPlan], store: Store, *, wait: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the locks of the studies and, if the trials are executed on this machine, the locks of the devices.

    An executor that uses other machines locks the devices of these machines.
    """
    with contextlib.ExitStack() as stack:
        for name in sorted({plan.name for plan in plans}):
            path = store.path / FOLDER / f".{name}.lock"
            try:
                make_directory(path.parent)
                stack.enter_context(FileLock(path, timeout=-1 if wait else 0))
            except Timeout:
                raise BusyError(
                    f"another harness command is executing the study {name!r}; wait until it finishes, or pass --wait"
                ) from None
            except OSError as error:
                raise RecordError(f"{path}: cannot be locked: {error.strerror}") from None
        if not plans[0].executor.remote:
            stack.enter_context(measuring_on([plan.spec.device for plan in plans], wait=wait, say=say))
        yield


def _confirm(
    studies: Sequence[OpenStudy], catalog: Catalog, store: Store, settings: Settings, listener: Guarded
) -> list[RunRecord]:
    """Execute runs with the default settings and with the best settings on fresh seeds, unless the runs are already
    stored.

    The test split is used only here, after the settings have been chosen. The runs are interleaved.
    """
    request = studies[0].plan.request
    if not request.confirm:
        return []
    chosen: list[tuple[OpenStudy, str, RunSpec]] = []
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
    executor = studies[0].plan.executor
    machines = machines_for(executor, list(specs.values()), catalog) if specs else None
    stored = {
        decision.spec.key: record
        for decision in decide(list(specs.values()), catalog, store, machines=machines)
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
        executor=executor,
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
