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
    from harness.execute.runner import Listener
    from harness.interfaces import Metric
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec
    from harness.records.store import Store


class Results(Sequence[RunRecord]):
    """A sequence of run records, in the order in which the runs started, with a comparison table.

    Indexing with an integer returns a `RunRecord`, and slicing returns `Results`. In a notebook, `Results` are
    displayed as a comparison table.

    Parameters
    ----------
    records : iterable of RunRecord
        The records, in order.
    problems : iterable of str, optional
        A message for each record file that could not be read.
    verdicts : iterable of ParityVerdict, optional
        Results of parity checks, which are shown in the comparison table.
    metrics : iterable of Metric, optional
        Metrics provided by plugins. The comparison table shows their units and directions.

    Attributes
    ----------
    records : tuple of RunRecord
        The records, in order.
    problems : tuple of str
        A message for each record file that could not be read: the path of the file and the reason.
    reused : int
        Number of records of earlier runs that were returned instead of executing the runs again.
    """

    def __init__(
        self,
        records: Iterable[RunRecord],
        problems: Iterable[str] = (),
        verdicts: Iterable[ParityVerdict] = (),
        metrics: Iterable[Metric] = (),
        *,
        reused: int = 0,
    ) -> None:
        self.records = tuple(records)
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
            return Results(self.records[index], self.problems, self._verdicts, self._metrics)
        return self.records[index]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(self.records)

    def table(self, *, price_per_hour: float | None = None) -> Table:
        """Return the comparison table, aggregated over seeds and splits.

        The table has one row for each task, dataset, model, backend, device and precision.

        Parameters
        ----------
        price_per_hour : float, optional
            Hourly price of the machine, in any currency. If given, the table also includes the cost per million
            samples.

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
            One row for each row of `table`. Metrics are floats. Next to the column of each mean is a column with the
            half-width of the 95% confidence interval.
        """
        return self.table().frame()

    def rank(
        self, metric: str = "quality", by: str | Iterable[str] = "backend", *, baseline: str = "", ties: str = "verdict"
    ) -> Ranking:
        """Return a ranking of backends, models or other settings across datasets.

        This function is the Python equivalent of ``harness rank``, except that scores are compared only across seeds or
        splits, and not across the test examples of single runs.

        Parameters
        ----------
        metric : str, default="quality"
            Name of the metric. ``"quality"`` is the primary metric of each task.
        by : str or iterable of str, default="backend"
            Fields to rank: ``"backend"``, ``"model"``, ``"device"``, ``"precision"``, or a setting such as
            ``"recipe.batch_size"``.
        baseline : str, optional
            Candidate with which the others are compared in ratios, and whose runs replace the failed runs of other
            candidates. By default, the first of the candidates with results on the most datasets.
        ties : {"verdict", "exact"}, default="verdict"
            ``"verdict"``: two candidates tie on a dataset if the comparison is inconclusive. ``"exact"``: only equal
            means tie.

        Returns
        -------
        Ranking
            Mean ranks, win rates and ratios with 95% intervals, once with failed runs excluded and once with failed
            runs imputed, in the structure of ``harness rank --format json``; see ``docs/reference/report-columns.md``.

        Raises
        ------
        UsageError
            If there are fewer than two candidates with common datasets, or a name is unknown.

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
    task: str | Iterable[str],
    backend: str | Iterable[str] = (),
    *,
    dataset: str | os.PathLike[str] | Iterable[str] = (),
    model: str | Iterable[str] = (),
    env: str | Iterable[str] = (),
    device: str | Iterable[str] = "auto",
    precision: str | Iterable[str] = "fp32",
    deterministic: bool = False,
    parity: bool = False,
    pretrained: str | os.PathLike[str] | None = None,
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
    rerun: bool = False,
    retry: str | Iterable[str] | None = None,
    wait: bool = False,
    plugins: Iterable[str] = (),
) -> Results:
    """Train, score and measure models, with a separate process for each run, and return the records of the runs.

    This function is the Python equivalent of ``harness run``. If several values are given for an argument, all
    combinations are run. A failed run does not raise an exception; its record contains a `Failure`.

    If the results directory already contains the record of a run, the run is not executed again, and the stored record
    is returned instead. See ``docs/how-to/many-runs.md`` for the conditions.

    Parameters
    ----------
    task : str or iterable of str
        Names of tasks.
    backend : str or iterable of str, optional
        Names of backends. By default, all available backends that implement the model.
    dataset : str, path-like or iterable of these, optional
        Names of datasets, or paths to files and directories with your own data. By default, the task's default dataset.
    model : str or iterable of str, optional
        Names of models or model families. By default, the task's default model.
    env : str or iterable of str, optional
        Names of environments created with ``harness env create``, in which the runs are executed. ``"current"`` is the
        environment of this process, which is the default.
    device : str or iterable of str, default="auto"
        Devices: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    precision : str or iterable of str, default="fp32"
        Numeric precisions: ``"fp32"``, ``"tf32"``, ``"bf16"``, ``"fp16"`` or ``"fp64"``.
    deterministic : bool, default=False
        Use only deterministic kernels, which give bitwise identical results in every run.
    parity : bool, default=False
        Before the runs, check that the backends compute the same results, and store the verdict in the records.
    pretrained : str or path-like, optional
        Checkpoint to start from: a directory or the id of a model on the Hugging Face Hub. By default, models are
        trained from scratch.
    compile : bool, default=False
        Compile the model with the backend's compiler.
    seed : int or iterable of int, optional
        Random seeds, from 0 to 2**32 - 1. Each seed is a separate run. By default, the protocol's seeds: 0, or 0, 1
        and 2 for ``"publish"``.
    split : int, iterable of int or "all", optional
        Published splits of the dataset. Each split is a separate run. By default, the first split.
    threads : int, optional
        Number of CPU threads per run, from 1 to 1024. By default, the number of available cores.
    repeat : int, optional
        Number of repeats of each run. Repeats are interleaved. By default, 1, or 5 with the protocol
        ``"publish"``.
    protocol : {"standard", "quick", "publish"}, default="standard"
        Measurement effort: the duration and the required precision of the measurements.
    overrides : mapping or iterable of str, optional
        Settings to change, as a mapping such as ``{"recipe.epochs": 3}`` or as strings such as
        ``"recipe.epochs=3"``.
    results : str or path-like, optional
        Results directory. By default, the environment variable ``HARNESS_RESULTS``, or ``results`` if it is not set.
    timeout_s : float, optional
        Maximum duration of a run, in seconds; a longer run is stopped and recorded as failed. By default, 3600.
    memory_limit : str or int, optional
        Maximum host memory of a run and the processes that it starts, such as ``"4GiB"`` or a number of bytes. A run
        that uses more is stopped and recorded with the failure ``"oom"``. By default, the memory is not limited.
    batch_size_backoff : bool, default=False
        If a run exceeds the available memory, repeat it with half the batch size, down to 1. The record contains the
        original batch size.
    executor : str, default="local"
        Name of the executor, which determines where the runs are executed.
    rerun : bool, default=False
        Execute all runs, including those that are already in the results directory.
    retry : str or iterable of str, optional
        Kinds of failures, such as ``"crash"`` and ``"timeout"``. Among failed runs, only those with one of these kinds
        of failures are executed again. By default, all failed runs are executed again.
    wait : bool, default=False
        If another harness process is measuring on the same device, wait until it ends.
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
        If a requested name is provided by more than one plugin, or a plugin in `plugins` cannot be loaded.
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
    from harness.records.store import Store, results_dir

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
            "set": as_overrides(overrides or ()),
            "repeat": repeat,
        }
    )
    sources = tuple(plugins)
    catalog = discover(sources, crashing)
    check_loaded(sources, catalog)
    specs = expand_all([selection.resolved(locate)], catalog)
    return carry_out(
        specs,
        catalog,
        Store(results_dir(results)),
        parity=parity,
        timeout_s=timeout_s,
        memory_limit=memory_limit,
        batch_size_backoff=batch_size_backoff,
        executor=executor,
        rerun=rerun,
        retry=retry,
        wait=wait,
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
    save_weights: bool = False,
    rerun: bool = True,
    retry: str | Iterable[str] | None = None,
    wait: bool = False,
    budget_s: float | None = None,
    command: Sequence[str] = (),
    listener: Listener | None = None,
    show: Callable[[Results], None] | None = None,
) -> Results:
    """Execute planned runs, after a parity check if `parity` is true, and return their records.

    Unless `rerun` is true, runs that are already in the store are not executed again, and the stored records are
    returned instead; see `harness.execute.resume.decide`. If another process is measuring on the same device,
    `harness.BusyError` is raised or, if `wait` is true, this function waits until the other process ends. After
    `budget_s` seconds, no further run is started, and the number of remaining runs is reported. `command` contains the
    arguments of the ``harness`` command. If the plan is interrupted, ``harness status`` prints this command.

    If any runs have finished, `show` is called with them, even if the execution is stopped early by Ctrl-C or by an
    error such as a full disk.

    Raises the same errors as `harness.execute.runner.run_all`, and `harness.UsageError` if `parity` is true and fewer
    than two backends are selected.
    """
    from harness.checks.parity.check import compared, marks_for
    from harness.checks.parity.verdict import load as load_verdicts
    from harness.execute.device_lock import measuring_on
    from harness.execute.memory_limit import check_memory_limit, size_bytes
    from harness.execute.plans import recorded
    from harness.execute.resume import Decision, decide, describe, failure_kinds
    from harness.execute.runner import DEFAULT_TIMEOUT_S, Guarded, Listener, check_limit, run_all

    listener = Guarded(listener or Listener())
    limit_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
    kinds = failure_kinds(retry)
    decisions = [Decision(spec, None, "") for spec in specs]
    started = False
    try:
        check_limit(limit_s)
        limit_bytes = None if memory_limit is None else size_bytes(memory_limit)
        check_memory_limit(limit_bytes)
        catalog.executor(executor)
        store.prepare()
        pairs = compared(specs) if parity else set[str]()

        def left() -> list[RunSpec]:
            return [decision.spec for decision in decisions if decision.stored is None]

        def decide_again() -> None:
            if not rerun:
                decisions[:] = decide(
                    specs,
                    catalog,
                    store,
                    save_weights=save_weights,
                    compared=pairs,
                    retry=kinds,
                    batch_size_backoff=batch_size_backoff,
                )

        decide_again()
        with contextlib.ExitStack() as stack:
            if left():
                devices = [spec.device for spec in left()]
                if stack.enter_context(measuring_on(devices, wait=wait, say=listener.message)):
                    decide_again()  # The process that used the device may have executed the same runs.
            for line in describe(decisions):
                listener.message(line)
            marks = None
            if parity and left():
                marks = marks_for(specs, catalog, store, say=lambda text: listener.message(f"parity: {text}"))
            planned, started = left(), True
            if planned:
                stack.enter_context(recorded(store, planned, skipped=len(specs) - len(planned), command=command))
            records = run_all(
                planned,
                catalog,
                store,
                timeout_s=limit_s,
                memory_limit_bytes=limit_bytes,
                batch_size_backoff=batch_size_backoff,
                executor=executor,
                listener=listener,
                marks=marks,
                save_weights=save_weights,
                budget_s=budget_s,
            )
            if rest := len(planned) - len(records):
                listener.message(
                    f"the time budget is used up; {rest} {'run was' if rest == 1 else 'runs were'} not executed; "
                    "repeat the command to continue"
                )
    finally:
        listener.close()
        numbers = iter(range(1, len(specs) + 1))  # of the executed runs
        results = Results(
            [
                record
                for decision in decisions
                if (record := decision.stored.record if decision.stored else listener.latest.get(next(numbers)))
            ],
            verdicts=load_verdicts(store.path).values(),
            metrics=[provided.value for provided in catalog.metrics.values()],
            reused=sum(decision.stored is not None for decision in decisions),
        )
        if show is not None and started and results:
            show(results)
    return results


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
    )
