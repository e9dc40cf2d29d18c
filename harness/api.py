"""The Python interface for notebooks and scripts: the functions `run` and `load`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from harness.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd

    from harness.analysis.rank import Ranking
    from harness.analysis.table import Table
    from harness.checks.parity.verdict import ParityVerdict
    from harness.deploy.run import Run
    from harness.execute.runner import Listener
    from harness.interfaces import Metric
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec
    from harness.records.store import Store
    from harness.tuning.request import StudyPlan
    from harness.tuning.study import Study


class Results(Sequence[RunRecord]):
    """A sequence of run records, ordered by start time, with a comparison table.

    Indexing with an integer returns a `RunRecord`, and slicing returns `Results`. In a notebook, `Results` are
    displayed as a comparison table.

    Parameters
    ----------
    records : iterable of RunRecord
        The records, in order.
    problems : iterable of str, optional
        A message for each record file that could not be read.
    verdicts : iterable of ParityVerdict, optional
        Results of parity checks, for display in the comparison table.
    metrics : iterable of Metric, optional
        Metrics provided by plugins, whose units and directions are shown in the comparison table.
    directory : Path, optional
        Results directory that contains the runs.

    Attributes
    ----------
    records : tuple of RunRecord
        The records, in order.
    problems : tuple of str
        A message for each record file that could not be read, including its path and the reason.
    reused : int
        Number of records from earlier runs that were reused instead of being executed again.
    """

    def __init__(
        self,
        records: Iterable[RunRecord],
        problems: Iterable[str] = (),
        verdicts: Iterable[ParityVerdict] = (),
        metrics: Iterable[Metric] = (),
        *,
        reused: int = 0,
        directory: Path | None = None,
    ) -> None:
        self.records = tuple(records)
        self._directory = directory
        self.problems = tuple(problems)
        self._verdicts = tuple(verdicts)
        self._metrics = tuple(metrics)
        self.reused = reused

    @overload
    def __getitem__(self, index: int) -> RunRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> RunRecord | Results:
        if isinstance(index, slice):
            return Results(self.records[index], self.problems, self._verdicts, self._metrics, directory=self._directory)
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(self.records)

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs, in the order of `records`. A run provides its predictions and its trained model.

        Raises `UsageError` if the results directory is not known.
        """
        from harness.deploy.run import Run
        from harness.errors import UsageError

        if self._directory is None:
            raise UsageError("these results have no results directory; load them with harness.load")
        return tuple(Run(self._directory / record.run_id, record) for record in self.records)

    def table(self, *, price_per_hour: float | None = None) -> Table:
        """Return the comparison table, aggregated over seeds and splits.

        The table has one row for each task, dataset, model, backend, device and precision.

        Parameters
        ----------
        price_per_hour : float, optional
            Hourly price of the machine, in any currency. If given, the table includes the cost per million samples.

        Returns
        -------
        Table
            The rows, with means and 95% confidence intervals.
        """
        from harness.analysis.comparison_table import build_table

        return build_table(self.records, self._verdicts, price_per_hour=price_per_hour, metrics=self._metrics)

    def to_frame(self) -> pd.DataFrame:
        """Return the comparison table as a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame
            One row for each row in `table`. Metrics are floats. For each column of means, there is a column with the
            half-width of the 95% confidence interval.
        """
        return self.table().frame()

    def rank(
        self, metric: str = "quality", by: str | Iterable[str] = "backend", *, baseline: str = "", ties: str = "verdict"
    ) -> Ranking:
        """Return a ranking of backends, models or other settings across datasets.

        This method is the Python equivalent of ``harness rank``, with one difference: scores are compared only across
        seeds or splits, and never across the test examples of a single run.

        Parameters
        ----------
        metric : str, default="quality"
            Name of the metric. ``"quality"`` is the primary metric of each task.
        by : str or iterable of str, default="backend"
            Fields to rank: ``"backend"``, ``"model"``, ``"device"``, ``"precision"``, or a setting such as
            ``"recipe.batch_size"``.
        baseline : str, optional
            Reference candidate for the ratios. The runs of this candidate also replace failed runs of other candidates.
            By default, the first candidate with results on the most datasets.
        ties : {"verdict", "exact"}, default="verdict"
            With ``"verdict"``, two candidates tie on a dataset if their comparison is inconclusive. With ``"exact"``,
            two candidates tie only if their means are equal.

        Returns
        -------
        Ranking
            Mean ranks, win rates and ratios with 95% intervals. All values are computed twice: with failed runs
            excluded, and with failed runs imputed. The fields are those of ``harness rank --format json`` (see
            ``docs/reference/report-columns.md``).

        Raises
        ------
        UsageError
            If fewer than two candidates have datasets in common, or if a name is unknown.

        Examples
        --------
        ::

            harness.load("results/").rank(by="model").placements[0].standings
        """
        from harness.analysis.rank import rank
        from harness.errors import UsageError
        from harness.records.store import StoredRun

        if ties not in ("verdict", "exact"):
            raise UsageError(f"unknown value for ties {ties!r}; use 'verdict' or 'exact'")
        return rank(
            [StoredRun(Path(record.run_id), record) for record in self.records],
            {metric.name: metric for metric in self._metrics},
            metric,
            (by,) if isinstance(by, str) else tuple(by),
            baseline=baseline,
            ties="exact" if ties == "exact" else "verdict",
            by_example=False,
        )

    def __repr__(self) -> str:
        """Return the comparison table as text, for display in a notebook."""
        from harness.report.text import render

        return render(self.table()) if self.records else "no runs"


def run(
    task: str | Iterable[str] = (),
    backend: str | Iterable[str] = (),
    *,
    dataset: str | os.PathLike[str] | Iterable[str] = (),
    model: str | Iterable[str] = (),
    env: str | Iterable[str] = (),
    device: str | Iterable[str] = "auto",
    devices: int | Iterable[int] = (),
    precision: str | Iterable[str] = "fp32",
    deterministic: bool = False,
    metric: str | None = None,
    parity: bool = False,
    pretrained: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | Iterable[str] = (),
    teacher: str | os.PathLike[str] | None = None,
    compile: bool = False,  # noqa: A002 - the common term, and the name of the command-line option
    seed: int | Iterable[int] = (),
    split: int | Iterable[int] | Literal["all"] = (),
    threads: int | None = None,
    repeat: int | None = None,
    protocol: str = "standard",
    overrides: Mapping[str, Any] | Iterable[str] = (),
    results: str | os.PathLike[str] | None = None,
    timeout_s: float | None = None,
    memory_limit: str | int | None = None,
    batch_size_backoff: bool = False,
    executor: str = "local",
    executor_options: Mapping[str, str] | None = None,
    detach: bool = False,
    rerun: bool = False,
    retry: str | Iterable[str] | None = None,
    jobs: int = 1,
    quality_only: bool = False,
    wait: bool = False,
    trackers: Iterable[str] = (),
    checkpoint_every: str | int | None = None,
    resume: bool | None = None,
    plugins: Iterable[str] = (),
) -> Results:
    """Train, score and measure models, and return the records of the runs.

    This function is the Python equivalent of ``harness run``. Each run is executed in a separate process. If arguments
    have several values, all combinations of the values are run. A failed run does not raise an exception; its record
    contains a `Failure`.

    If the results directory already contains the record of a run, this record is returned, and the run is not executed
    again. See ``docs/how-to/many-runs.md`` for the conditions.

    Parameters
    ----------
    task : str or iterable of str
        Names of tasks. Required unless `weights` is given.
    backend : str or iterable of str, optional
        Names of backends. By default, all available backends that implement the model.
    dataset : str, path-like or iterable of these, optional
        Names of datasets, or paths to files and directories with your own data. By default, the task's default dataset.
    model : str or iterable of str, optional
        Names of models or model families. By default, the task's default model.
    env : str or iterable of str, optional
        Names of the environments in which to execute the runs (see ``harness env create``). ``"current"`` (the default)
        is the environment of this process.
    device : str or iterable of str, default="auto"
        Devices: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    devices : int or iterable of int, optional
        Numbers of devices on which to train a model, with one process per device. Each number gives a separate run. By
        default, 1.
    precision : str or iterable of str, default="fp32"
        Numeric precisions: ``"fp32"``, ``"tf32"``, ``"bf16"``, ``"fp16"``, ``"fp64"`` or, with `weights`, ``"int8"``.
    deterministic : bool, default=False
        Use only deterministic kernels, which produce bitwise identical results in every run.
    metric : str, optional
        Name of the primary metric, which is used to select the best epoch and to compare runs. By default, the primary
        metric of each task.
    parity : bool, default=False
        Check that the backends compute the same results before the runs start, and store the verdict in the records.
    pretrained : str or path-like, optional
        Checkpoint to start from: a directory or the id of a model on the Hugging Face Hub. By default, models are
        trained from scratch.
    weights : str, path-like or iterable of str, optional
        Ids or paths of runs with saved weights. No model is trained. Only inference with these weights is measured,
        using the task, data and model of each run.
    teacher : str or path-like, optional
        Id or path of a run with saved weights. The model of this run is the teacher in knowledge distillation, and must
        have been trained on the same data. By default, models are trained without a teacher.
    compile : bool, default=False
        Compile the model with the backend's compiler.
    seed : int or iterable of int, optional
        Random seeds, from 0 to 2**32 - 1. Each seed is a separate run. By default, the seed is 0. With the protocol
        ``"publish"``, the seeds are 0, 1 and 2.
    split : int, iterable of int or "all", optional
        Published splits of the dataset. Each split is a separate run. By default, the first split.
    threads : int, optional
        Number of CPU threads per process, from 1 to 1024. By default, the number of available cores divided by the
        largest number of devices.
    repeat : int, optional
        Number of repeats of each run. Repeats are interleaved. The default is 1, or 5 with the protocol ``"publish"``.
    protocol : {"standard", "quick", "publish"}, default="standard"
        Measurement effort, that is, the duration and the required precision of the measurements.
    overrides : mapping or iterable of str, optional
        Settings to change, as a mapping such as ``{"recipe.epochs": 3}`` or as strings such as
        ``"recipe.epochs=3"``.
    results : str or path-like, optional
        Results directory. By default, the environment variable ``HARNESS_RESULTS``, or ``results`` if it is not set.
    timeout_s : float, optional
        Maximum duration of a run, in seconds. A run that takes longer is stopped and recorded as failed. By default,
        3600.
    memory_limit : str or int, optional
        Maximum host memory of a run and its child processes, as a string such as ``"4GiB"`` or a number of bytes. A run
        that exceeds the limit is stopped and recorded with the failure ``"oom"``. By default, memory is not limited.
    batch_size_backoff : bool, default=False
        If a run exceeds the available memory, repeat it with half the batch size, if necessary several times. The
        record contains the original batch size.
    executor : str, default="local"
        Name of the executor, which determines where the runs are executed.
    executor_options : mapping of str to str, optional
        Options of the executor, such as ``{"address": "auto"}`` for the ``ray`` executor.
    detach : bool, default=False
        Submit the runs and return immediately. The executor must be able to execute the runs without this process. A
        later call with the same arguments and without `detach` waits for the runs and returns their records.
    rerun : bool, default=False
        Execute all runs, including those that are already in the results directory.
    retry : str or iterable of str, optional
        Kinds of failures, such as ``"crash"`` and ``"timeout"``. Failed runs are executed again only if they failed in
        one of these ways. By default, all failed runs are executed again.
    jobs : int, default=1
        Number of runs that are executed at the same time. Each run uses separate cores and, on a machine with GPUs, a
        separate GPU. Speed is measured only if ``harness selftest --jobs`` found no difference from sequential runs.
        Otherwise, only quality is measured.
    quality_only : bool, default=False
        Measure only quality, not throughput or latency.
    wait : bool, default=False
        If another harness process is measuring on the same device, wait until that process ends.
    trackers : iterable of str, optional
        Experiment trackers to which the runs are logged, such as ``"tensorboard"``. Options are appended, as in
        ``"tensorboard:directory=logs"``. ``harness list trackers`` lists the trackers and their options.
    checkpoint_every : str or int, optional
        Interval between training checkpoints: a number of epochs such as 1, a number of steps such as ``"500steps"``,
        or a duration such as ``"10min"``. By default, no checkpoints are written.
    resume : bool, optional
        By default, an interrupted run continues from its last checkpoint if its plugin code, package versions and
        machine class are unchanged. If True, an error is raised if a run cannot continue from its checkpoint. If False,
        all runs start from the beginning.
    plugins : iterable of str, optional
        Python files or modules to load as plugins, in addition to the installed plugins.

    Returns
    -------
    Results
        The records, in the order in which the runs started.

    Raises
    ------
    UsageError
        If the request is invalid. No run is started.
    PluginError
        If several plugins provide a requested name, or if a plugin in `plugins` cannot be loaded.
    RecordError
        If results cannot be written.
    BusyError
        If another harness process is measuring on the same device, and `wait` is false.

    Examples
    --------
    ::

        results = harness.run(task="nlp", backend=["torch", "tensorflow"])
        results.to_frame()
    """
    from harness.data.checkpoint import locate
    from harness.execute.trial import crashing
    from harness.plan.expand import expand_all
    from harness.plan.overrides import as_overrides
    from harness.plan.selection import Selection
    from harness.plugins import check_loaded, discover
    from harness.plugins.trackers import with_trackers
    from harness.records.store import Store, results_dir

    selection = Selection.from_values(
        {
            "task": task,
            "dataset": dataset,
            "model": model,
            "backend": backend,
            "env": env,
            "device": device,
            "devices": devices,
            "precision": precision,
            "seed": seed,
            "threads": threads,
            "protocol": protocol,
            "pretrained": pretrained,
            "weights": weights,
            "teacher": teacher,
            "split": split,
            "compile": compile,
            "deterministic": deterministic,
            "metric": metric,
            "set": as_overrides(overrides or ()),
            "repeat": repeat,
        }
    )
    sources = tuple(plugins)
    catalog = discover(sources, crashing)
    check_loaded(sources, catalog)
    store = Store(results_dir(results))
    specs = expand_all([selection.resolved(locate, store.find)], catalog, jobs=max(1, jobs))
    return carry_out(
        specs,
        with_trackers(catalog, trackers, store.path),
        store,
        parity=parity,
        timeout_s=timeout_s,
        memory_limit=memory_limit,
        batch_size_backoff=batch_size_backoff,
        executor=executor,
        executor_options=executor_options,
        detach=detach,
        rerun=rerun,
        retry=retry,
        jobs=jobs,
        quality_only=quality_only,
        wait=wait,
        checkpoint_every=checkpoint_every,
        resume=resume,
    )


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
    listener: Listener | None = None,
    show: Callable[[Results], None] | None = None,
) -> Results:
    """Execute planned runs and return their records. If `parity` is true, a parity check is performed first.

    Unless `rerun` is true, runs that are already in the store are not executed again, and their stored records are
    returned (see `harness.execute.resume.decide`). If another process is measuring on the same device,
    `harness.BusyError` is raised. If `wait` is true, the function waits for the other process to end instead. No runs
    are started after `budget_s` seconds, and the number of remaining runs is reported. `command` contains the arguments
    of the ``harness`` command, which ``harness status`` prints if the plan is interrupted.

    First, the results of runs that were submitted earlier with `detach` are stored. With `detach`, the remaining runs
    are submitted to the executor, and only the stored records are returned. Without `detach`, the function waits for
    submitted runs that are part of `specs`.

    With `quality_only`, throughput and latency are not measured. If several runs are executed at a time (`jobs`),
    throughput and latency are measured only if `harness.checks.side_by_side.measured_part` permits this.

    With `checkpoint_every`, runs write checkpoints. `resume` determines which runs continue from their checkpoints (see
    `harness.execute.checkpoints.assign`).

    At the end, `show` is called with the finished runs, if there are any. `show` is also called if the execution is
    stopped by Ctrl-C or by an error such as a full disk.

    Raises the same errors as `harness.execute.runner.run_all`. Also raises `harness.UsageError` if `parity` is true and
    fewer than two backends are selected.
    """
    from harness.checks.parity.check import compared, marks_for
    from harness.checks.parity.verdict import load as load_verdicts
    from harness.checks.side_by_side import Part, measured_part
    from harness.errors import RecordError, UsageError
    from harness.execute.checkpoints import assign
    from harness.execute.detached import check_detachable, collect_all, describe_submission, submit, without
    from harness.execute.device_lock import measuring_on
    from harness.execute.machines import machines_for
    from harness.execute.memory_limit import check_memory_limit, size_bytes
    from harness.execute.plans import recorded
    from harness.execute.resume import Decision, decide, describe, failure_kinds
    from harness.execute.runner import (
        DEFAULT_TIMEOUT_S,
        LOCAL,
        Guarded,
        Listener,
        check_executor,
        check_limit,
        planned_runs,
        run_all,
    )
    from harness.execute.side_by_side import SideBySide, lanes_for, turns_of
    from harness.execute.submissions import Access, locked, new_name
    from harness.plan.checkpoints import checked_interval
    from harness.records.store import RECORD, read_record

    listener = Guarded(listener or Listener())
    limit_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
    kinds = failure_kinds(retry)
    decisions = [Decision(spec, None, "") for spec in specs]
    collected: list[RunRecord] = []
    started = False
    try:
        check_limit(limit_s)
        limit_bytes = None if memory_limit is None else size_bytes(memory_limit)
        check_memory_limit(limit_bytes)
        chosen = catalog.executor(executor, executor_options)
        check_executor(specs, chosen)
        if detach:
            check_detachable(chosen, batch_size_backoff=batch_size_backoff, budget_s=budget_s)
        every = checked_interval(
            checkpoint_every,
            specs,
            catalog,
            executor=chosen,
            resume=resume,
            rerun=rerun,
            detach=detach,
            batch_size_backoff=batch_size_backoff,
        )
        if jobs != 1 and executor != LOCAL:
            raise UsageError(f"--jobs requires the executor {LOCAL!r}; remove --jobs or --executor")
        lanes = lanes_for(specs, jobs) if jobs != 1 else ()

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
        if parity and any(spec.weights is not None for spec in specs):
            raise UsageError(
                "--parity compares how backends train, but runs with --weights do not train; "
                "remove one of the two options"
            )
        pairs = compared(specs) if parity else set[str]()
        with contextlib.ExitStack() as stack:
            # With detach, the lock is held until the runs are submitted, so that no other command submits them as well.
            submitting = stack.enter_context(contextlib.ExitStack())
            submitting.enter_context(locked(store, create=detach, wait=wait))
            collected, pending = collect_all(
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
            if not detach:
                submitting.close()

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
                decisions[:] = assign(decisions, catalog, store, every=every, resume=False if rerun else resume)
            for line in describe(decisions):
                listener.message(line)
            marks = None
            with lock if chosen.remote else contextlib.nullcontext():
                if parity and left():
                    marks = marks_for(specs, catalog, store, say=lambda text: listener.message(f"parity: {text}"))
            planned, started = left(), True
            submission = new_name() if detach else ""
            if planned:
                skipped = len(specs) - len(planned)
                stack.enter_context(
                    recorded(
                        store,
                        planned,
                        skipped=skipped,
                        command=command,
                        jobs=jobs,
                        quality_only=part.quality_only,
                        submission=submission,
                    )
                )
            settings: dict[str, Any] = {
                "timeout_s": limit_s,
                "memory_limit_bytes": limit_bytes,
                "save_weights": save_weights,
                "quality_only": part.quality_only,
            }
            if detach:
                runs = planned_runs(planned, catalog, with_digests=True, **settings)
                submit(submission, chosen, executor_options or {}, runs, marks or {}, store, rerun=rerun)
                submitting.close()
                listener.message(describe_submission(len(planned), pending.total(), executor))
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


class TuningResults:
    """The results of `tune`.

    Parameters
    ----------
    studies : iterable of Study
        The studies, one for each backend.
    results : Results
        Records of the runs with fresh seeds, which confirm the settings.

    Attributes
    ----------
    studies : tuple of Study
        The studies, one for each backend. A study contains its trials, its cost, and the numbers of its best trials.
    results : Results
        Records of the runs with the default settings and with the best settings. The records of the best settings
        contain the cost of tuning.
    """

    def __init__(self, studies: Iterable[Study], results: Results) -> None:
        self.studies = tuple(studies)
        self.results = results

    @property
    def best(self) -> dict[str, dict[str, Any]]:
        """The best settings by backend, as overrides for `run`.

        With several objectives, these settings are the best ones for the first objective. Backends without a completed
        trial are omitted.
        """
        found = {}
        for study in self.studies:
            trials = [study.trial(number) for number in study.best]
            if trials:
                sign = 1 if study.objectives[0].higher_is_better else -1
                found[study.spec.backend] = max(trials, key=lambda trial: sign * trial.values[0]).settings
        return found

    def __repr__(self) -> str:
        """Return the studies and the comparison table as text, for display in a notebook."""
        from harness.report.tuning import render

        records = {record.run_id: record for record in self.results}
        return "\n".join([*(render(study, records) for study in self.studies), repr(self.results)])


def tune(
    task: str,
    backend: str | Iterable[str] = (),
    *,
    search: Mapping[str, str | Sequence[Any]],
    trials: int = 20,
    objective: str | Iterable[str] = "quality",
    sampler: str = "tpe",
    sampler_seed: int = 0,
    pruner: str | None = None,
    confirm: int = 3,
    storage: str | None = None,
    jobs: int = 1,
    executor: str = "local",
    executor_options: Mapping[str, str] | None = None,
    dataset: str | os.PathLike[str] | None = None,
    model: str | None = None,
    env: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    deterministic: bool = False,
    metric: str | None = None,
    pretrained: str | os.PathLike[str] | None = None,
    compile: bool = False,  # noqa: A002 - the common term, and the name of the command-line option
    seed: int = 0,
    split: int | None = None,
    threads: int | None = None,
    protocol: str = "standard",
    overrides: Mapping[str, Any] | Iterable[str] = (),
    results: str | os.PathLike[str] | None = None,
    timeout_s: float | None = None,
    memory_limit: str | int | None = None,
    rerun: bool = False,
    wait: bool = False,
    plugins: Iterable[str] = (),
) -> TuningResults:
    """Search for settings that improve a model on the validation split, and compare them with the defaults.

    This function is the Python equivalent of ``harness tune``. Arguments that are not described here have the same
    meaning as in `run`, but accept only one value. The test split is not used in trials. See ``docs/how-to/tuning.md``.

    Parameters
    ----------
    task : str
        Name of the task.
    backend : str or iterable of str, optional
        Names of backends. Each backend has a separate study. All studies have the same search space, number of trials
        and sampler seed. By default, all available backends that implement the model.
    search : mapping of str to str or sequence
        Mapping from each setting to its values: a sequence such as ``[16, 32, 64]``, or a range in the format of
        ``--search``, such as ``"0.0:0.5"`` or ``"log:1e-4:1e-2"``.
    trials : int, default=20
        Number of trials per backend.
    objective : str or iterable of str, default="quality"
        Value to optimize: ``"quality"`` (the task's primary metric on the validation split), ``"loss"`` (on the
        validation split), ``"train_throughput"`` or ``"parameters"``. With several objectives, the result is a Pareto
        front.
    sampler : {"tpe", "random", "gp", "nsga2"}, default="tpe"
        Algorithm that suggests settings.
    sampler_seed : int, default=0
        Seed of the sampler.
    pruner : {"median", "hyperband", "none"}, optional
        Algorithm that stops unpromising trials early. By default, ``"median"`` with one objective and ``"none"`` with
        several.
    confirm : int, default=3
        Number of fresh seeds. With each seed, one model is trained with the best settings and one with the default
        settings. Both models are scored on the test split.
    storage : str, optional
        URL of an Optuna storage. By default, a journal file in the results directory.
    jobs : int, default=1
        Number of trials of a study that are executed at the same time. On this machine, each trial has separate cores
        and a separate GPU.
    executor : str, default="local"
        Name of the executor, which determines where the trials and the confirming runs are executed.
    executor_options : mapping of str to str, optional
        Options of the executor, as in `run`.
    seed : int, default=0
        Seed of the trials. The fresh seeds are the numbers that follow `seed`.
    rerun : bool, default=False
        Start a new study, even if a study with the same settings exists.

    Returns
    -------
    TuningResults
        The studies, and the records of the runs that confirm the best settings.

    Raises
    ------
    UsageError
        If the request is invalid. No trial is started.
    HarnessError
        If the first trial of a study fails before training.
    RecordError
        If results cannot be written.
    BusyError
        If another harness process is measuring on the same device, and `wait` is false.

    Examples
    --------
    ::

        tuned = harness.tune("nlp", "torch", search={"recipe.learning_rate": "log:1e-4:1e-2"}, trials=20)
        tuned.best["torch"]
    """
    from harness.data.checkpoint import locate
    from harness.execute.trial import crashing
    from harness.plan.overrides import as_overrides
    from harness.plan.selection import Selection
    from harness.plugins import check_loaded, discover
    from harness.records.store import Store, results_dir
    from harness.tuning.request import Tuning, plan
    from harness.tuning.space import search_texts

    selection = Selection.from_values(
        {
            "task": task,
            "dataset": dataset,
            "model": model,
            "backend": backend,
            "env": env,
            "device": device,
            "precision": precision,
            "seed": seed,
            "threads": threads,
            "protocol": protocol,
            "pretrained": pretrained,
            "split": split,
            "compile": compile,
            "deterministic": deterministic,
            "metric": metric,
            "set": as_overrides(overrides or ()),
        }
    )
    sources = tuple(plugins)
    catalog = discover(sources, crashing)
    check_loaded(sources, catalog)
    request = Tuning(
        selection=selection.resolved(locate),
        search=search_texts(search),
        trials=trials,
        objectives=(objective,) if isinstance(objective, str) else tuple(objective),
        sampler=sampler,
        pruner=pruner or "",
        sampler_seed=sampler_seed,
        confirm=confirm,
        jobs=jobs,
        executor=executor,
        executor_options=dict(executor_options or {}),
    )
    return tune_selection(
        plan(request, catalog),
        catalog,
        Store(results_dir(results)),
        timeout_s=timeout_s,
        memory_limit=memory_limit,
        storage=storage,
        rerun=rerun,
        wait=wait,
    )


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

    Raises `harness.UsageError` if an objective is a speed that cannot be measured while other trials are executed, and
    the same errors as `harness.tuning.driver.tune`.
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
    return TuningResults(
        tuned.studies, Results(tuned.records, verdicts=load_verdicts(store.path).values(), metrics=metrics)
    )


def _speed_checked_at(plans: Sequence[StudyPlan], catalog: Catalog) -> str:
    """Return the time of the check that permits measuring the speed of simultaneous trials.

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


def load(path: str | os.PathLike[str] | None = None) -> Results:
    """Return the records of all runs in a results directory.

    Parameters
    ----------
    path : str or path-like, optional
        Results directory. By default, the environment variable ``HARNESS_RESULTS``, or ``results`` if it is not set.

    Returns
    -------
    Results
        The records, in the order in which the runs started. `Results.problems` lists the files that could not be read.

    Raises
    ------
    UsageError
        If the directory does not exist.

    Examples
    --------
    ::

        harness.load("results/").to_frame()
    """
    from harness.checks.parity.verdict import load as load_verdicts
    from harness.errors import UsageError
    from harness.execute.trial import crashing
    from harness.plugins import discover
    from harness.records.store import Store, results_dir

    directory = Path(results_dir(path))
    if not directory.is_dir():
        raise UsageError(f"{directory}: this results directory does not exist; run `harness run` or pass another path")
    loaded = Store(directory).load()
    return Results(
        [run.record for run in loaded.runs],
        loaded.problems,
        load_verdicts(directory).values(),
        [provided.value for provided in discover((), crashing).metrics.values()],
        directory=directory,
    )
