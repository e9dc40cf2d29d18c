"""Execution of studies: first the trials, one after another, and then the runs that confirm the best settings."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from harness.data.cache import cache_dir
from harness.errors import BusyError, RecordError
from harness.execute.claims import claimed
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
from harness.tuning.sampling import full_url
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
    `harness.execute.option_checks.check_before_runs`), if the storage cannot be used, or if the storage contains a
    study whose records are in another directory. Raises `harness.BusyError` if another process is executing one of the
    studies. If the trials are executed on this machine, `harness.BusyError` is also raised if another process is
    measuring on the same device. After the trials, `harness.BusyError` is raised if another process is executing one of
    the runs that confirm the settings. If `Settings.wait` is true, the function waits for the other process in all of
    these cases. Raises `harness.RecordError` if results cannot be written. If the first trial of a study fails before
    training, `harness.HarnessError` is raised, because the other trials would also fail. `harness.HarnessError` is also
    raised if a trial was not completed because the executor failed, or if the trials of a study that measures speed
    were executed on machines of different classes.
    """
    listener = Guarded(listener)
    request, executor, specs = plans[0].request, plans[0].executor, [plan.spec for plan in plans]
    lanes = lanes_for(specs, request.jobs) if request.jobs > 1 and executor.name == LOCAL else ()
    store.prepare()
    try:
        with _locked(plans, store, settings, say=listener.message), contextlib.ExitStack() as devices:
            devices.enter_context(_measuring(plans, settings, listener))
            if not executor.remote:
                check_before_runs([spec for plan in plans for spec in plan.checked], catalog, say=listener.message)
            studies = [OpenStudy(plan, catalog, store, settings, listener, lanes) for plan in plans]
            for each in studies:
                each.announce()
            for turn, start in enumerate(range(0, request.trials, request.jobs)):
                for each in studies[:: -1 if turn % 2 else 1]:
                    each.execute_trials(min(start + request.jobs, request.trials))
            records = _confirm(studies, catalog, store, settings, listener, devices)
    finally:
        listener.close()
    return Tuned([each.study for each in studies], records)


@contextlib.contextmanager
def _locked(
    plans: Sequence[StudyPlan], store: Store, settings: Settings, *, say: Callable[[str], None]
) -> Iterator[None]:
    """Hold the locks of the studies.

    A storage may be used with several results directories. The same study must not be executed for two results
    directories at the same time. Therefore, the studies in the storage are also locked against other commands on this
    machine.
    """
    folders = [store.path / FOLDER]
    if settings.storage:
        digest = hashlib.sha256(full_url(settings.storage).encode()).hexdigest()
        with contextlib.suppress(RuntimeError):  # raised if there is no home directory
            folders.append(Path(cache_dir()) / FOLDER / digest[:16])
    with contextlib.ExitStack() as stack:
        for folder, name in itertools.product(folders, sorted({plan.name for plan in plans})):
            path = folder / f".{name}.lock"
            busy = f"another harness command is executing the study {name!r}"
            lock = FileLock(path)
            try:
                make_directory(path.parent)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    if not settings.wait:
                        raise BusyError(f"{busy}; wait until it finishes, or pass --wait") from None
                    say(f"waiting, because {busy}")
                    lock.acquire()
            except OSError as error:
                if folder != folders[0]:  # as for the locks of devices, no lock is held
                    continue
                raise RecordError(f"{path}: cannot be locked: {error.strerror}") from None
            stack.callback(lock.release)
        yield


@contextlib.contextmanager
def _measuring(plans: Sequence[StudyPlan], settings: Settings, listener: Guarded) -> Iterator[None]:
    """Hold the locks of the devices if the trials are executed on this machine.

    An executor that uses other machines locks the devices of these machines.
    """
    if plans[0].executor.remote:
        yield
        return
    with measuring_on([plan.spec.device for plan in plans], wait=settings.wait, say=listener.message):
        yield


@contextlib.contextmanager
def _claimed(
    studies: Sequence[OpenStudy],
    keys: Collection[str],
    store: Store,
    settings: Settings,
    listener: Guarded,
    devices: contextlib.ExitStack,
) -> Iterator[None]:
    """Claim the runs with these keys. `devices` holds the locks of the devices."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(claimed(store, keys))
        except BusyError as error:
            if not settings.wait:
                raise BusyError(
                    f"the trials are finished, but the settings are not confirmed yet: {error}; then repeat the command"
                ) from None
            # Other commands claim their runs before they lock the devices. Two commands could otherwise wait for each
            # other.
            devices.close()
            stack.enter_context(claimed(store, keys, wait=True, say=listener.message))
            devices.enter_context(_measuring([each.plan for each in studies], settings, listener))
        yield


def _confirm(
    studies: Sequence[OpenStudy],
    catalog: Catalog,
    store: Store,
    settings: Settings,
    listener: Guarded,
    devices: contextlib.ExitStack,
) -> list[RunRecord]:
    """Execute runs with the default settings and with the best settings on fresh seeds, unless the runs are already
    stored.

    The test split is used only here, after the settings have been chosen. The runs are interleaved. `devices` holds the
    locks of the devices.
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

    def missing(records: Mapping[str, RunRecord]) -> list[RunSpec]:
        return [spec for key, spec in specs.items() if key not in records]

    def stored() -> dict[str, RunRecord]:
        return {
            decision.spec.key: record
            for decision in decide(list(specs.values()), catalog, store, machines=machines)
            if decision.stored
            and (record := read_record(decision.stored.path / RECORD)).tuning == costs.get(decision.spec.key)
        }

    records = stored()
    if left := missing(records):
        with _claimed(studies, [spec.key for spec in left], store, settings, listener, devices):
            records = stored()  # Before the runs were claimed, another command may have executed some of them.
            left = missing(records)
            if left:
                listener.message(f"confirmation on fresh seeds: {len(left)} runs")
            executed = run_all(
                left,
                catalog,
                store,
                timeout_s=settings.timeout_s,
                memory_limit_bytes=settings.memory_limit_bytes,
                executor=executor,
                listener=Guarded(listener),  # which collects only the records of these runs
                tuning=costs,
            )
            records |= {spec.key: record for spec, record in zip(left, executed, strict=True)}
    for each in studies:
        runs: dict[str, list[str]] = {}
        for study, contender, spec in chosen:
            if study is each:
                runs.setdefault(contender, []).append(records[spec.key].run_id)
        each.confirmed(runs)
    return [records[key] for key in specs]
