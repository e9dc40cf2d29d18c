"""Execution of planned runs and studies for `harness.run`, `harness.tune` and the command line."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.api.results import Results, TuningResults
from harness.records import RunRecord

if TYPE_CHECKING:
    from harness.execute.runner import Listener
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec
    from harness.records.store import Store
    from harness.tuning.request import StudyPlan


def carry_out(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    store: Store,
    *,
    parity: bool = False,
    timeout_s: float | None = None,
    memory_limit: str | int | None = None,
    batch_size_backoff: bool = False,
    executor: str = "local",
    executor_options: Mapping[str, str] | None = None,
    detach: bool = False,
    save_weights: bool = False,
    rerun: bool = True,
    retry: str | Iterable[str] | None = None,
    jobs: int = 1,
    quality_only: bool = False,
    wait: bool = False,
    budget_s: float | None = None,
    checkpoint_every: str | int | None = None,
    resume: bool | None = None,
    command: Sequence[str] = (),
    later: Sequence[RunSpec] = (),
    listener: Listener | None = None,
    show: Callable[[Results], None] | None = None,
) -> Results:
    """Execute planned runs and return their records. If `parity` is true, a parity check is performed first.

    Unless `rerun` is true, runs that are already in the store are not executed again, and their stored records are
    returned (see `harness.execute.resume.decide`). If another process is measuring on the same device, or executing one
    of these runs in the same results directory, `harness.BusyError` is raised. If `wait` is true, the function waits
    for the other process to finish instead. No runs are started after `budget_s` seconds, and the number of remaining
    runs is reported. `command` contains the arguments of the ``harness`` command, which ``harness status`` prints if
    the plan is interrupted.

    First, the results of runs that were submitted earlier with `detach` are stored. With `detach`, the remaining runs
    are submitted to the executor, and only the stored records are returned. Without `detach`, the function waits for
    submitted runs that are part of `specs`.

    Unless the runs are executed on other machines, options that refer to model parameters or to classes in the data are
    checked before the first run starts. The check includes the options of the runs in `later`, which are executed by
    another call (see `harness.execute.option_checks.check_before_runs`).

    With `quality_only`, throughput and latency are not measured. If several runs are executed at the same time
    (`jobs`), throughput and latency are measured only if `harness.checks.side_by_side.measured_part` allows it.

    With `checkpoint_every`, runs write checkpoints. `resume` determines which runs continue from their checkpoints (see
    `harness.execute.checkpoints.assign`).

    At the end, `show` is called with the finished runs, if there are any. `show` is also called if the execution is
    stopped by Ctrl-C or by an error such as a full disk.

    Raises the same errors as `harness.execute.runner.run_all`. Also raises `harness.UsageError` if `parity` is true and
    fewer than two backends are selected.
    """
    from harness.analysis.differences import titles
    from harness.api.checked_settings import checked_settings
    from harness.checks.parity.check import marks_for
    from harness.checks.parity.verdict import load as load_verdicts
    from harness.checks.side_by_side import Part, measured_part
    from harness.errors import RecordError
    from harness.execute.checkpoints import assign
    from harness.execute.claims import claimed
    from harness.execute.detached import collect_all, describe_submission, submit, without
    from harness.execute.device_lock import measuring_on
    from harness.execute.machines import machines_for
    from harness.execute.option_checks import check_before_runs
    from harness.execute.plans import recorded
    from harness.execute.resume import Decision, decide, describe, failure_kinds
    from harness.execute.runner import Guarded, Listener, planned_runs, run_all
    from harness.execute.side_by_side import SideBySide, turns_of
    from harness.execute.submissions import Access, locked, new_name, submissions
    from harness.records.store import RECORD, read_record

    listener = Guarded(listener or Listener())
    titles_of_runs = titles(specs)
    listener.planned(titles_of_runs)
    kinds = failure_kinds(retry)
    decisions = [Decision(spec, None, "") for spec in specs]
    collected: list[RunRecord] = []
    started = False
    try:
        checked = checked_settings(
            specs,
            catalog,
            parity=parity,
            timeout_s=timeout_s,
            memory_limit=memory_limit,
            batch_size_backoff=batch_size_backoff,
            executor=executor,
            executor_options=executor_options,
            detach=detach,
            rerun=rerun,
            jobs=jobs,
            budget_s=budget_s,
            checkpoint_every=checkpoint_every,
            resume=resume,
        )
        chosen, lanes, pairs = checked.executor, checked.lanes, checked.compared

        def permitted() -> Part:
            found = measured_part(
                specs, catalog, jobs, quality_only=quality_only, batch_size_backoff=batch_size_backoff
            )
            if found.reason:
                listener.message(found.reason)
            return found

        part = permitted()
        machines = machines_for(chosen, specs, catalog)
        store.prepare()
        with contextlib.ExitStack() as stack:
            seen: set[str] = set()
            pending: Counter[str] = Counter()

            def collect_submissions() -> None:
                nonlocal pending
                seen.update(submission.name for submission in submissions(store))
                found, pending = collect_all(
                    specs,
                    catalog,
                    store,
                    listener,
                    wait=not detach,
                    given=Access(executor=executor, options=dict(executor_options or {})),
                    rerun=rerun,
                    quality_only=part.quality_only,
                    save_weights=save_weights,
                )
                collected.extend(found)

            def submitted_since() -> bool:
                return any(submission.name not in seen for submission in submissions(store))

            def left() -> list[RunSpec]:
                return without([decision.spec for decision in decisions if decision.stored is None], pending)

            def decide_again() -> None:
                if not rerun or collected:
                    decisions[:] = decide(
                        specs,
                        catalog,
                        store,
                        save_weights=save_weights,
                        compared=pairs,
                        retry=kinds,
                        batch_size_backoff=batch_size_backoff,
                        quality_only=part.quality_only,
                        machines=machines,
                        collected={record.run_id for record in collected},
                        rerun=rerun,
                    )

            with locked(store, create=detach, wait=wait):
                collect_submissions()
            decide_again()
            submitting = stack.enter_context(contextlib.ExitStack())
            if left():
                # Claim the runs before acquiring any other lock. Otherwise, two commands could wait for each other.
                keys = {spec.key for spec in left()}
                if stack.enter_context(claimed(store, keys, wait=wait, say=listener.message)):
                    part = permitted()
                # Before the runs were claimed, another command may have executed or submitted some of them.
                if detach or submitted_since():
                    submitting.enter_context(locked(store, create=detach, wait=wait))
                    if submitted_since():
                        collect_submissions()
                    # With detach, the lock is held until the runs are submitted, so that no other command reads an
                    # incomplete submission.
                    if not detach:
                        submitting.close()
                decide_again()
            # A remote executor locks the devices of the machines that execute the runs.
            lock = contextlib.ExitStack() if chosen.remote else stack
            if left() and (parity or not chosen.remote):
                used = [name for spec in left() for name in spec.used_devices]
                if lock.enter_context(measuring_on(used, wait=wait, say=listener.message)):
                    # The process that used the device may have executed the same runs or a check. The code or the
                    # packages may have changed.
                    part = permitted()
                    decide_again()
            if not (chosen.remote or detach or batch_size_backoff):
                decisions[:] = assign(decisions, catalog, store, every=checked.every, resume=False if rerun else resume)
            for line in describe(decisions, titles_of_runs):
                listener.message(line)
            if not chosen.remote:
                check_before_runs([*left(), *later], catalog, say=listener.message)
            marks = None
            with lock if chosen.remote else contextlib.nullcontext():
                if parity and left():
                    marks = marks_for(specs, catalog, store, say=lambda text: listener.message(f"parity: {text}"))
            planned, started = left(), True
            submission = new_name() if detach else ""
            if planned:
                skipped = sum(decision.stored is not None for decision in decisions)
                stack.enter_context(
                    recorded(
                        store,
                        planned,
                        skipped=skipped,
                        command=command,
                        jobs=jobs,
                        quality_only=part.quality_only,
                        submission=submission,
                        titles=titles_of_runs,
                    )
                )
            settings: dict[str, Any] = {
                "timeout_s": checked.limit_s,
                "memory_limit_bytes": checked.limit_bytes,
                "save_weights": save_weights,
                "quality_only": part.quality_only,
            }
            if detach:
                runs = planned_runs(planned, catalog, with_digests=True, **settings)
                submit(submission, chosen, executor_options or {}, runs, marks or {}, store, rerun=rerun)
                submitting.close()
                listener.message(describe_submission(len(planned), pending.total(), executor, store.path))
            records = run_all(
                [] if detach else planned,
                catalog,
                store,
                batch_size_backoff=batch_size_backoff,
                executor=SideBySide(lanes, turns_of(planned, quality_only=part.quality_only), part.checked_at)
                if lanes
                else chosen,
                listener=listener,
                marks=marks,
                budget_s=budget_s,
                checkpoints=[decision.checkpoints for decision in decisions if decision.stored is None],
                **settings,
            )
            if not detach and (rest := len(planned) - len(records)):
                listener.message(
                    f"the time budget is used up; {rest} {'run was' if rest == 1 else 'runs were'} not executed; "
                    "repeat the command to continue"
                )
    finally:
        listener.close()
        numbers = iter(range(1, len(specs) + 1))  # of the executed runs
        found: list[RunRecord] = []
        for decision in decisions:
            record = None
            if decision.stored is None:
                record = listener.latest.get(next(numbers))
            else:
                try:
                    record = read_record(decision.stored.path / RECORD)
                except RecordError as error:  # the run was removed or changed in the meantime
                    listener.message(f"{error}; this run is excluded")
            found += [record] if record is not None else []
        results = Results(
            found,
            verdicts=load_verdicts(store.path).values(),
            metrics=[provided.value for provided in catalog.metrics.values()],
            reused=sum(
                decision.stored is not None and decision.stored.record.run_id not in {one.run_id for one in collected}
                for decision in decisions
            ),
            directory=store.path,
        )
        if show is not None and started and results:
            show(results)
    return results


def tune_selection(
    plans: Sequence[StudyPlan],
    catalog: Catalog,
    store: Store,
    *,
    timeout_s: float | None = None,
    memory_limit: str | int | None = None,
    storage: str | None = None,
    rerun: bool = False,
    wait: bool = False,
    listener: Listener | None = None,
) -> TuningResults:
    """Execute planned studies.

    Raises `harness.UsageError` if a speed objective cannot be measured while other trials are executed. Also raises the
    same errors as `harness.tuning.driver.tune`.
    """
    from harness.checks.parity.verdict import load as load_verdicts
    from harness.execute.memory_limit import check_memory_limit, size_bytes
    from harness.execute.runner import DEFAULT_TIMEOUT_S, Listener, check_limit
    from harness.tuning.driver import tune as execute
    from harness.tuning.open_study import Settings

    limit_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
    limit_bytes = None if memory_limit is None else size_bytes(memory_limit)
    check_limit(limit_s)
    check_memory_limit(limit_bytes)
    settings = Settings(
        timeout_s=limit_s,
        memory_limit_bytes=limit_bytes,
        storage=storage or "",
        rerun=rerun,
        wait=wait,
        checked_at=_speed_checked_at(plans, catalog),
    )
    tuned = execute(plans, catalog, store, settings, listener or Listener())
    metrics = [provided.value for provided in catalog.metrics.values()]
    verdicts = load_verdicts(store.path).values()
    return TuningResults(
        tuned.studies, Results(tuned.records, verdicts=verdicts, metrics=metrics, directory=store.path)
    )


def _speed_checked_at(plans: Sequence[StudyPlan], catalog: Catalog) -> str:
    """Return the time of the check that validated speed measurements of simultaneous trials.

    An empty string is returned if speed is not measured, or if the trials are not executed at the same time on this
    machine. Raises `harness.UsageError` if a setting in the search space was not checked.
    """
    from harness.checks.side_by_side import NEUTRAL, measured_part
    from harness.errors import CombinationError
    from harness.execute.runner import LOCAL
    from harness.tuning.request import MAX_CHECKED
    from harness.tuning.space import grid

    jobs = plans[0].request.jobs
    if jobs == 1 or plans[0].executor.name != LOCAL or not plans[0].measures_speed:
        return ""
    refused = f"the objective train_throughput cannot be measured with --jobs {jobs}: "
    neutral = {f"recipe.{name}" for name in NEUTRAL}
    for plan in plans:
        for each in plan.dimensions:
            if each.kind != "choices" and each.name not in neutral:
                raise CombinationError(
                    f"{refused}the settings in the range {each.text!r} cannot all be checked; list values instead, or "
                    "remove --jobs"
                )
        if grid(plan.dimensions, MAX_CHECKED) is None:
            raise CombinationError(
                f"{refused}the search space has more than {MAX_CHECKED} combinations of settings; search fewer "
                "settings, or remove --jobs"
            )
    part = measured_part([spec for plan in plans for spec in plan.checked], catalog, jobs, quality_only=False)
    if part.quality_only:
        raise CombinationError(f"{refused}{part.reason.removeprefix('quality only: ')}, or remove --jobs")
    return part.checked_at
