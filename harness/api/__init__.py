"""The Python interface for notebooks and scripts: the functions `run`, `tune` and `load`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.api.execution import carry_out as carry_out
from harness.api.execution import tune_selection as tune_selection
from harness.api.results import Results as Results
from harness.api.results import TuningResults as TuningResults
from harness.records.printing import show

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec
    from harness.records.store import Store


def run(
    task: str | Iterable[str] = (),
    backend: str | Iterable[str] = (),
    *,
    dataset: Any = (),
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
    text_column: str | None = None,
    path_column: str | None = None,
    target_column: str | Iterable[str] = (),
    feature_columns: str | Iterable[str] = (),
    split_column: str | None = None,
    group_column: str | None = None,
    time_column: str | None = None,
    folds: int | None = None,
    fold_column: str | None = None,
    random_splits: int | None = None,
    weight_column: str | None = None,
    slice_columns: str | Iterable[str] = (),
    on_bad_row: Literal["error", "skip"] | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    suite: str | os.PathLike[str] | None = None,
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
    save_weights: bool = False,
    skip_unavailable: bool = False,
    dry_run: bool = False,
    progress: bool | None = None,
    plugins: Iterable[str] = (),
) -> Results:
    """Train, score and measure models, and return the records of the runs.

    This function is the Python equivalent of ``harness run``. Each run is executed in a separate process. If arguments
    have several values, each combination of values results in a separate run. A failed run does not raise an exception;
    its record contains a `Failure`.

    If the results directory already contains the record of a run, this record is returned, and the run is not executed
    again. See ``docs/how-to/many-runs.md`` for the conditions under which records are reused.

    Parameters
    ----------
    task : str or iterable of str
        Names of tasks. Required unless `weights` or `suite` is given.
    backend : str or iterable of str, optional
        Names of backends. By default, all available backends that implement the model are used.
    dataset : str, path-like, pandas.DataFrame, datasets.Dataset, mapping or iterable of these, optional
        Names of datasets, paths to files or directories with your own data, or in-memory data in any form that
        `harness.save_data` accepts. By default, the task's default dataset is used.
    model : str or iterable of str, optional
        Names of models or model families. By default, the task's default model is used.
    env : str or iterable of str, optional
        Names of the environments in which to execute the runs (see ``harness env create``). ``"current"`` (the default)
        is the environment of this process.
    device : str or iterable of str, default="auto"
        Devices: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    devices : int or iterable of int, optional
        Numbers of devices on which to train a model, with one process per device. Each number results in a separate
        run. By default, 1.
    precision : str or iterable of str, default="fp32"
        Numeric precisions: ``"fp32"``, ``"tf32"``, ``"bf16"``, ``"fp16"``, ``"fp64"`` or, with `weights`, ``"int8"``.
    deterministic : bool, default=False
        Use only deterministic kernels, which produce bitwise identical results in every run.
    metric : str, optional
        Name of the primary metric, which is used to select the best epoch and to compare runs. By default, the primary
        metric of each task is used.
    parity : bool, default=False
        Before the runs start, check that the backends compute the same results, and store the verdict in the records.
        During the check, each backend uses at most half of the available cores.
    pretrained : str or path-like, optional
        Checkpoint to start from: a directory or the id of a model on the Hugging Face Hub. By default, models are
        trained from scratch.
    weights : str, path-like or iterable of str, optional
        Ids or paths of runs with saved weights. No model is trained. Only inference with these weights is measured,
        using the task, data and model of each run.
    teacher : str or path-like, optional
        Id or path of a run with saved weights. The model of this run serves as the teacher for knowledge distillation,
        and must have been trained on the same data. By default, models are trained without a teacher.
    compile : bool, default=False
        Compile the model with the backend's compiler.
    seed : int or iterable of int, optional
        Random seeds, from 0 to 2**32 - 1. Each seed results in a separate run. By default, the seed is 0. With the
        protocol ``"publish"``, the seeds are 0, 1 and 2.
    split : int, iterable of int or "all", optional
        Split numbers. Published splits are numbered from 0, and folds and random splits from 1. Each split results in a
        separate run. The default is the first published split. For folds and random splits, the default is all of them.
    threads : int, optional
        Number of CPU threads per process, from 1 to 1024. The default is the number of available cores divided by the
        largest value of `devices`.
    repeat : int, optional
        Number of repeats of each run. Repeats are interleaved. The default is 1. With the protocol ``"publish"``, the
        default is 5.
    protocol : {"standard", "quick", "publish"}, default="standard"
        Measurement effort, that is, the duration and the required precision of the measurements.
    text_column, path_column, split_column, group_column, time_column, weight_column : str, optional
        For your own data: columns that contain the text, file path, split, group, time or weight of each row. See
        ``docs/how-to/own-data.md``.
    folds, random_splits : int, optional
        Number of cross-validation folds, or number of random splits of the same examples. Each fold or split results in
        a separate run.
    fold_column : str, optional
        For your own data: column with the cross-validation fold of each row.
    target_column : str or iterable of str, optional
        For your own data: column with the label, or columns with the regression targets. By default, inferred.
    feature_columns, slice_columns : str or iterable of str, optional
        For your own data: columns used as features, and columns by which the test examples are grouped.
    on_bad_row : {"error", "skip"}, optional
        For your own data: how to handle invalid rows. By default, ``"error"``.
    encoding : str, optional
        For your own data: text encoding of the files. By default, UTF-8.
    separator : str, optional
        For your own data: character that separates the cells of a CSV file. By default, inferred from the header.
    overrides : mapping or iterable of str, optional
        Settings to change, as a mapping such as ``{"recipe.epochs": 3}`` or as strings such as
        ``"recipe.epochs=3"``.
    suite : str or path-like, optional
        Suite (TOML file) that defines the runs. Arguments that select runs cannot be combined with a suite.
    results : str or path-like, optional
        Results directory. The default is the value of the environment variable ``HARNESS_RESULTS``, or ``results`` if
        it is not set.
    timeout_s : float, optional
        Maximum duration of a run, in seconds. A run that takes longer is stopped and recorded as failed. By default,
        3600.
    memory_limit : str or int, optional
        Maximum host memory of a run and its child processes, as a string such as ``"4GiB"`` or a number of bytes. A run
        that exceeds the limit is stopped and recorded with the failure ``"oom"``. By default, memory is not limited.
    batch_size_backoff : bool, default=False
        If a run exceeds the available memory, repeat it with half the batch size, several times if necessary. The
        record contains the original batch size.
    executor : str, default="local"
        Name of the executor, which determines where the runs are executed.
    executor_options : mapping of str to str, optional
        Options of the executor, such as ``{"address": "auto"}`` for the ``ray`` executor.
    detach : bool, default=False
        Submit the runs and return immediately. The executor must be able to continue the runs after this process exits.
        A later call with the same arguments but without `detach` waits for the runs and returns their records.
    rerun : bool, default=False
        Execute all runs, including those whose records are already in the results directory.
    retry : str or iterable of str, optional
        Kinds of failures, such as ``"crash"`` and ``"timeout"``. Failed runs are executed again only if they failed in
        one of these ways. By default, all failed runs are executed again.
    jobs : int, default=1
        Number of runs to execute at the same time. Each run uses separate cores and, on a machine with GPUs, a separate
        GPU. Speed is measured only if ``harness selftest --jobs`` found no difference from sequential runs. Otherwise,
        only quality is measured.
    quality_only : bool, default=False
        Measure only quality, not throughput or latency.
    wait : bool, default=False
        If another harness process is measuring on the same device, or executing the same runs in the same results
        directory, wait for that process to finish.
    trackers : iterable of str, optional
        Experiment trackers to which the runs are logged, such as ``"tensorboard"``. Append the options of a tracker to
        its name, as in ``"tensorboard:directory=logs"``. ``harness list trackers`` lists the trackers and their
        options.
    checkpoint_every : str or int, optional
        Interval between training checkpoints: a number of epochs such as 1, a number of steps such as ``"500steps"``,
        or a duration such as ``"10min"``. By default, no checkpoints are written.
    resume : bool, optional
        By default, an interrupted run continues from its last checkpoint if its plugin code, package versions and
        machine class are unchanged. If True, raise an error if a run cannot continue from its checkpoint. If False,
        start all runs from the beginning.
    save_weights : bool, default=False
        Save the trained weights, which are needed for `harness.Run.predict`.
    skip_unavailable : bool, default=False
        Skip runs whose backend, dataset or device is not available, and execute the other runs.
    dry_run : bool, default=False
        Print the planned runs without executing them. No records are returned.
    progress : bool, optional
        If True, show progress. In a notebook, progress is shown in an output area that is updated in place; otherwise,
        it is written to stderr. If False, show neither progress nor warnings about the data. By default, progress is
        shown only in notebooks, and warnings are always shown.
    plugins : iterable of str, optional
        Python files or modules to load as plugins, in addition to the installed plugins.

    Returns
    -------
    Results
        The records, in the order in which the runs started. If a teacher in a suite fails, only the records of the
        teachers are returned.

    Raises
    ------
    UsageError
        If the request is invalid. No run is started.
    PluginError
        If several plugins provide a requested name, or if a plugin in `plugins` cannot be loaded.
    RecordError
        If results cannot be written.
    BusyError
        If another harness process is measuring on the same device or executing the same runs, and `wait` is false.

    Examples
    --------
    ::

        results = harness.run(task="nlp", backend=["torch", "tensorflow"])
        results.to_frame()
        harness.run(task="tabular", dataset=frame, target_column="churned")
    """
    from harness.api.checked_settings import checked_settings
    from harness.api.planning import execute_plan, only_available, plan_runs
    from harness.data.user_files.memory_files import located
    from harness.errors import UsageError
    from harness.execute.availability import unavailable
    from harness.execute.runner import check_executor
    from harness.execute.trial import crashing
    from harness.plan.overrides import as_overrides, own_data_overrides
    from harness.plan.selection import Selection
    from harness.plan.suite import Suite, load
    from harness.plan.weights import unsavable_warning
    from harness.plugins import check_loaded, discover
    from harness.plugins.trackers import check, with_trackers
    from harness.records.printing import note
    from harness.records.store import Store, results_dir
    from harness.report.notebook import listener_for
    from harness.report.progress import planned_notes, planned_warnings

    own_data = {
        "text_column": text_column,
        "path_column": path_column,
        "target_column": target_column,
        "feature_columns": feature_columns,
        "split_column": split_column,
        "group_column": group_column,
        "time_column": time_column,
        "folds": folds,
        "fold_column": fold_column,
        "random_splits": random_splits,
        "weight_column": weight_column,
        "slice_columns": slice_columns,
        "on_bad_row": on_bad_row,
        "encoding": encoding,
        "separator": separator,
    }
    selection = Selection.from_values(
        {
            "task": task,
            "dataset": located(dataset),
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
            "set": (*own_data_overrides(own_data), *as_overrides(overrides or ())),
            "repeat": repeat,
        }
    )
    if suite is not None and (given := selection.changed()):
        raise UsageError(f"the suite selects the runs; remove {', '.join(given)}")
    chosen = Suite([selection]) if suite is None else load(Path(suite))
    sources = tuple(plugins)
    catalog = discover(sources, crashing)
    check_loaded(sources, catalog)
    store = Store(results_dir(results))
    chosen_executor = catalog.executor(executor, executor_options)
    unchecked = dry_run or skip_unavailable or suite is not None
    plan = plan_runs(chosen, catalog, store, unavailable=unchecked, jobs=max(1, jobs))
    check_executor(plan.specs, chosen_executor)
    reasons = unavailable(plan.specs, catalog, remote=chosen_executor.remote) if unchecked else {}
    if dry_run:
        check(catalog, trackers, store.path)
        checked = checked_settings(
            [spec for spec in plan.specs if spec.key not in reasons],
            catalog,
            parity=parity and not reasons,
            timeout_s=timeout_s,
            memory_limit=memory_limit,
            batch_size_backoff=batch_size_backoff,
            executor=executor,
            executor_options=executor_options,
            detach=detach,
            rerun=rerun,
            jobs=jobs,
            budget_s=chosen.budget_s,
            checkpoint_every=checkpoint_every,
            resume=resume,
        )
        _print_plan(
            plan.specs,
            catalog,
            store,
            reasons=reasons,
            every=checked.every,
            resume=resume,
            rerun=rerun,
            retry=retry,
            batch_size_backoff=batch_size_backoff,
            budget_s=chosen.budget_s,
            executor=checked.executor,
            jobs=jobs,
            quality_only=quality_only,
        )
        return Results((), directory=store.path)
    say = (lambda text: None) if progress is False else note
    plan = plan._replace(specs=only_available(plan.specs, reasons, skip=skip_unavailable, say=say))
    warned = planned_warnings(plan.specs)
    for line in planned_notes(plan.specs):
        say(line)
    if save_weights and (unsavable := unsavable_warning(plan.specs, catalog)):
        say(unsavable)
    tracked = with_trackers(catalog, trackers, store.path)

    def execute(specs: tuple[RunSpec, ...], *, budget_s: float | None, teachers: bool) -> Results:
        return carry_out(
            specs,
            tracked,
            store,
            parity=parity and not teachers,
            later=plan.specs if teachers else (),
            timeout_s=timeout_s,
            memory_limit=memory_limit,
            batch_size_backoff=batch_size_backoff,
            executor=executor,
            executor_options=executor_options,
            detach=detach,
            save_weights=save_weights or teachers,
            rerun=rerun,
            retry=None if teachers else retry,
            jobs=jobs,
            quality_only=quality_only,
            wait=wait,
            budget_s=budget_s,
            checkpoint_every=checkpoint_every,
            resume=resume,
            listener=listener_for(progress, warned),
        )

    executed = execute_plan(plan, store, execute, budget_s=chosen.budget_s, rerun=rerun, detach=detach)
    if executed.teacher_failed:
        say("the students were not trained, because a teacher failed")
    return executed.results


def _print_plan(specs: Sequence[RunSpec], catalog: Catalog, store: Store, **settings: Any) -> None:
    from harness.report.dry_run import plan_text

    planned = plan_text(specs, catalog, store, **settings)
    show("\n".join([*planned.notes, planned.text]))


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
    dataset: Any = None,
    model: str | None = None,
    env: str | None = None,
    device: str = "auto",
    devices: int | None = None,
    precision: str = "fp32",
    deterministic: bool = False,
    metric: str | None = None,
    pretrained: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    teacher: str | os.PathLike[str] | None = None,
    compile: bool = False,  # noqa: A002 - the common term, and the name of the command-line option
    seed: int = 0,
    split: int | None = None,
    threads: int | None = None,
    protocol: str = "standard",
    text_column: str | None = None,
    path_column: str | None = None,
    target_column: str | Iterable[str] = (),
    feature_columns: str | Iterable[str] = (),
    split_column: str | None = None,
    group_column: str | None = None,
    time_column: str | None = None,
    folds: int | None = None,
    fold_column: str | None = None,
    random_splits: int | None = None,
    weight_column: str | None = None,
    slice_columns: str | Iterable[str] = (),
    on_bad_row: Literal["error", "skip"] | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    results: str | os.PathLike[str] | None = None,
    timeout_s: float | None = None,
    memory_limit: str | int | None = None,
    rerun: bool = False,
    wait: bool = False,
    trackers: Iterable[str] = (),
    progress: bool | None = None,
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
        and sampler seed. By default, all available backends that implement the model are used.
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
        Algorithm that stops unpromising trials early. The default is ``"median"`` with one objective and ``"none"``
        with several objectives.
    confirm : int, default=3
        Number of fresh seeds. For each seed, one model is trained with the best settings and one with the default
        settings. Both models are scored on the test split.
    storage : str, optional
        URL of an Optuna storage. By default, a journal file in the results directory is used.
    jobs : int, default=1
        Number of trials of a study that are executed at the same time. On this machine, each trial uses separate cores
        and a separate GPU.
    executor : str, default="local"
        Name of the executor, which determines where the trials and the confirmation runs are executed.
    executor_options : mapping of str to str, optional
        Options of the executor, as in `run`.
    seed : int, default=0
        Seed of the trials. The fresh seeds are the numbers that follow `seed`.
    rerun : bool, default=False
        Start a new study, even if a study with the same settings already exists.

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
        If another harness process is measuring on the same device or executing the same runs, and `wait` is false.

    Examples
    --------
    ::

        tuned = harness.tune("nlp", "torch", search={"recipe.learning_rate": "log:1e-4:1e-2"}, trials=20)
        tuned.best["torch"]
    """
    from harness.data.checkpoint import locate
    from harness.data.user_files.memory_files import located
    from harness.execute.trial import crashing
    from harness.plan.overrides import as_overrides, own_data_overrides
    from harness.plan.selection import Selection
    from harness.plugins import check_loaded, discover
    from harness.plugins.trackers import with_trackers
    from harness.records.printing import note
    from harness.records.store import Store, results_dir
    from harness.report.notebook import listener_for
    from harness.report.progress import planned_notes, planned_warnings
    from harness.tuning.request import Tuning, plan
    from harness.tuning.space import search_texts

    own_data = {
        "text_column": text_column,
        "path_column": path_column,
        "target_column": target_column,
        "feature_columns": feature_columns,
        "split_column": split_column,
        "group_column": group_column,
        "time_column": time_column,
        "folds": folds,
        "fold_column": fold_column,
        "random_splits": random_splits,
        "weight_column": weight_column,
        "slice_columns": slice_columns,
        "on_bad_row": on_bad_row,
        "encoding": encoding,
        "separator": separator,
    }
    selection = Selection.from_values(
        {
            "task": task,
            "dataset": located(dataset),
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
            "set": (*own_data_overrides(own_data), *as_overrides(overrides or ())),
        }
    )
    sources = tuple(plugins)
    catalog = discover(sources, crashing)
    check_loaded(sources, catalog)
    store = Store(results_dir(results))
    request = Tuning(
        selection=selection.resolved(locate, store.find_trained),
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
    plans = plan(request, catalog)
    for line in [] if progress is False else planned_notes([each.spec for each in plans]):
        note(line)
    return tune_selection(
        plans,
        with_trackers(catalog, trackers, store.path),
        store,
        timeout_s=timeout_s,
        memory_limit=memory_limit,
        storage=storage,
        rerun=rerun,
        wait=wait,
        listener=listener_for(progress, planned_warnings([each.spec for each in plans])),
    )


def load(path: str | os.PathLike[str] | None = None) -> Results:
    """Return the records of all runs in a results directory.

    Parameters
    ----------
    path : str or path-like, optional
        Results directory. The default is the value of the environment variable ``HARNESS_RESULTS``, or ``results`` if
        it is not set.

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
