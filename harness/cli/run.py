"""The command ``harness run``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.cli.output import counted, echo, say

if TYPE_CHECKING:
    from pathlib import Path

    from harness.api import Results
    from harness.plan.selection import Selection
    from harness.plan.stages import Stages
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec
    from harness.records.store import Store, StoredRun


@click.command(
    cls=options.CommandWithExecutor, short_help="Train models, measure quality and speed, and print a comparison."
)
@options.plugins
@options.selection()
@click.option(
    "--suite",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Execute the runs defined in a suite (TOML file) instead of runs selected by options.",
)
@click.option(
    "--parity",
    is_flag=True,
    help="First check that the backends compute the same results, and store the verdict in the records.",
)
@options.price_per_hour
@click.option(
    "--save-weights",
    is_flag=True,
    help="Save the trained weights, for commands such as `harness evaluate` and `harness distill`.",
)
@click.option(
    "--checkpoint-every",
    metavar="INTERVAL",
    help="Interval between checkpoints of training: a number of epochs such as 1, a number of steps such as "
    "500steps, or a time such as 10min.",
)
@click.option(
    "--resume/--no-resume",
    default=None,
    help="Continue interrupted runs from their checkpoints, or start from the beginning. By default, a run "
    "continues if nothing that affects it has changed. With --resume, an error is reported if a run cannot continue.",
)
@click.option(
    "--rerun", is_flag=True, help="Execute all runs again, even if they are already in the results directory."
)
@options.names(
    "--retry",
    "Execute failed runs again only if they failed for one of these reasons: oom, timeout, crash, "
    "error, unsupported, bad_result or interrupted.",
    default="all failed runs",
)
@options.jobs
@click.option(
    "--quality-only",
    is_flag=True,
    help="Measure only the quality, without timing throughput or latency. This takes less time.",
)
@options.wait
@options.results
@options.timeout("Maximum duration of a run, in seconds.")
@click.option(
    "--skip-unavailable",
    is_flag=True,
    help="Skip runs whose backend, dataset or device is not available, and execute the others.",
)
@click.option(
    "--memory-limit",
    metavar="SIZE",
    help="Maximum host memory of a run and its child processes, such as 4GiB. A run that exceeds this limit is "
    "stopped and recorded with the failure oom.",
)
@click.option(
    "--batch-size-backoff",
    is_flag=True,
    help="If a run runs out of memory, repeat the run with half the batch size, down to a batch size of 1.",
)
@click.option(
    "--executor",
    metavar="NAME",
    default="local",
    show_default=True,
    help="Executor, which determines where runs are executed.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Also write a plot of quality against throughput, or of quality alone with --quality-only. The suffix selects "
    "the format: svg, png, pdf, html or json (Vega-Lite).",
)
@options.executor_options
@options.trackers
@click.option(
    "--detach",
    is_flag=True,
    help="Submit the runs to the executor and return. `harness status` shows the progress of the runs. The same "
    "command without --detach waits for the runs and stores the results.",
)
@options.quiet
@click.option("--dry-run", is_flag=True, help="Print the planned runs without executing them.")
def run(
    selection: Selection,
    suite: str | None,
    parity: bool,
    price_per_hour: float | None,
    save_weights: bool,
    checkpoint_every: str | None,
    resume: bool | None,
    rerun: bool,
    retry: tuple[str, ...],
    jobs: int,
    quality_only: bool,
    wait: bool,
    results: str | None,
    timeout: float,
    skip_unavailable: bool,
    memory_limit: str | None,
    batch_size_backoff: bool,
    executor: str,
    plot: str | None,
    executor_option: dict[str, str],
    tracker: tuple[str, ...],
    detach: bool,
    quiet: bool,
    dry_run: bool,
) -> None:
    """Train a model under each backend, score it, measure its speed, latency and memory, and print the comparison.

    Each run is executed in a separate process. The record of a run is saved in the results directory, even if the run
    fails. Progress is written to stderr, and the table is written to stdout.

    To complete a stopped comparison, repeat the command. A run is skipped if the results directory already contains it
    with the same settings, plugin code, package versions and machine class. Failed runs are executed again.

    With --checkpoint-every, a run that was killed or stopped continues from its last checkpoint if the command is
    repeated. The interruption does not change the results.

    With --jobs, several runs are executed at the same time. Each run has separate cores and, if the machine has GPUs, a
    separate GPU. Speed is measured only if `harness selftest --jobs` found that the runs do not slow each other down.
    Otherwise, only quality is measured.

    The exit status is 0 if all runs succeeded, and 1 if a run failed or was not started within the suite's time budget.
    The exit status is 2 if the request is invalid and no run is started, and 130 after Ctrl-C.

    Options described as "For your own data" apply only if --dataset is a path to a file or directory.

    \b
    Examples:
      harness run --task nlp --backend torch
      harness run --task nlp,vision --backend torch,tensorflow --seed 0,1,2
      harness run --task nlp --model bert-mini --set recipe.batch_size=128
      harness run --task nlp --device cuda --precision bf16
      harness run --task vision --backend torch --devices 1,2
      harness run --task nlp --backend torch,tensorflow --parity
      harness run --task nlp --protocol publish
      harness run --task regression --dataset uci-energy --split all
      harness run --task vision --seed 0,1,2 --dry-run
      harness run --task nlp --backend torch --checkpoint-every 1
      harness run --task nlp --backend torch --checkpoint-every 1 --resume
      harness run --weights nlp-bert-tiny-torch-s0 --backend torch,tensorflow
      harness run --task nlp --model bert-tiny --teacher nlp-bert-mini-torch-s0
      harness run --task regression --seed 0,1,2,3 --jobs 2 --quality-only
      harness run --suite suites/frameworks-cpu.toml --dry-run
      harness run --suite nightly.toml --results results/nightly
      harness run --suite suites/optimizers.toml --plot optimizers.svg
      harness run --suite nightly.toml --executor ray --ray-address auto --detach
      harness run --task nlp --backend torch --tracker tensorboard --tracker mlflow
    """
    from pathlib import Path

    from harness.cli.progress import carry_out, planned_warnings, undecoded_notes
    from harness.data.checkpoint import locate
    from harness.errors import UsageError
    from harness.execute.availability import unavailable
    from harness.execute.memory_limit import size_bytes
    from harness.execute.runner import check_executor
    from harness.plan.expand import expand_all
    from harness.plan.stages import staged
    from harness.plan.suite import Suite, load
    from harness.plugins.trackers import check, with_trackers
    from harness.records import Failure
    from harness.records.store import Store, results_dir

    if suite is not None:
        _check_nothing_selected()
    if plot is not None:
        from harness.report.plots.formats import check_suffix

        check_suffix(Path(plot).suffix)
    chosen = Suite([selection]) if suite is None else load(Path(suite))
    catalog, store = options.catalog(), Store(results_dir(results))
    chosen_executor = catalog.executor(executor, executor_option)
    check(catalog, tracker)
    limit_bytes = None if memory_limit is None else size_bytes(memory_limit)

    def planned(trained: Callable[[RunSpec], StoredRun | None]) -> tuple[tuple[RunSpec, ...], Stages]:
        stages = staged(chosen.selections, catalog, locate, store.find, trained)
        unchecked = dry_run or skip_unavailable or bool(suite)
        return expand_all(stages.selections, catalog, unavailable=unchecked, jobs=jobs), stages

    specs, stages = planned(lambda spec: _trained(spec, catalog, store))
    check_executor(specs, chosen_executor)
    remote = chosen_executor.remote
    reasons = unavailable(specs, catalog, remote=remote) if dry_run or skip_unavailable or suite else {}
    if reasons and not dry_run:
        specs = _available(specs, reasons, skip=skip_unavailable)
    warned = [] if quiet else planned_warnings(specs)
    for line in warned:
        say(line)
    if dry_run:
        from harness.cli.dry_run import print_runs

        for line in [] if quiet else undecoded_notes(specs, catalog):
            say(line)
        print_runs(
            specs,
            catalog,
            store,
            reasons=reasons,
            checkpoint_every=checkpoint_every,
            resume=resume,
            rerun=rerun,
            retry=retry or None,
            batch_size_backoff=batch_size_backoff,
            budget_s=chosen.budget_s,
            executor=chosen_executor,
            jobs=jobs,
            quality_only=quality_only,
        )
        return

    def show(finished: Results) -> None:
        from harness.report.text import render

        table = render(finished.table(price_per_hour=price_per_hour))
        try:
            echo(table, nl=False)
        except (OSError, ValueError) as error:  # Do not fail, because the runs have been saved.
            if not isinstance(error, BrokenPipeError):
                say(f"Warning: cannot write the table to stdout: {error}; show it with `harness report`")
        if not quiet:
            reused = f"; {counted(finished.reused, 'run')} skipped, use --rerun to repeat" if finished.reused else ""
            say(f"Saved {counted(len(finished) - finished.reused, 'run')} to {store.path}/{reused}")

    settings: dict[str, Any] = {
        "quiet": quiet,
        "timeout_s": timeout,
        "memory_limit": limit_bytes,
        "batch_size_backoff": batch_size_backoff,
        "executor": executor,
        "executor_options": executor_option,
        "detach": detach,
        "rerun": rerun,
        "retry": retry or None,
        "checkpoint_every": checkpoint_every,
        "resume": resume,
        "jobs": jobs,
        "quality_only": quality_only,
        "wait": wait,
        "command": click.get_current_context().meta.get("harness.arguments", ()),
    }
    budget_s, began = chosen.budget_s, time.monotonic()
    tracked = with_trackers(catalog, tracker, store.path)
    if stages.untrained or (rerun and stages.teachers):
        if detach:
            raise UsageError("--detach cannot be used, because the suite's teachers must be trained first; remove it")
        trained = _train_teachers(tuple(stages.teachers.values()), tracked, store, warned, budget_s, show, settings)
        specs, _ = planned(lambda spec: trained[spec.key])
        specs = tuple(spec for spec in specs if not rerun or spec.key not in stages.teachers)
        budget_s = None if budget_s is None else max(1.0, budget_s - (time.monotonic() - began))
    finished = carry_out(
        specs,
        tracked,
        store,
        warned=warned,
        parity=parity,
        save_weights=save_weights,
        budget_s=budget_s,
        show=show,
        **settings,
    )
    if plot is not None:
        _draw(finished, catalog, store, Path(plot))
    if (len(finished) < len(specs) and not detach) or any(isinstance(record.outcome, Failure) for record in finished):
        raise click.exceptions.Exit(1)


def _trained(spec: RunSpec, catalog: Catalog, store: Store) -> StoredRun | None:
    """Return the stored run of a teacher, or None if the teacher has not been executed with these settings and this
    code.
    """
    from harness.execute.resume import decide
    from harness.records.store import RECORD, StoredRun, read_record

    (decision,) = decide([spec], catalog, store, save_weights=True, quality_only=True)
    if decision.stored is None:
        return None
    path = decision.stored.path
    return StoredRun(path, read_record(path / RECORD))


def _train_teachers(
    specs: Sequence[RunSpec],
    catalog: Catalog,
    store: Store,
    warned: Sequence[str],
    budget_s: float | None,
    show: Callable[[Results], None],
    settings: Mapping[str, Any],
) -> dict[str, StoredRun]:
    """Execute those runs of a suite that are teachers of its other runs, and return the stored runs. The results are
    keyed by the keys of the specs. If a run fails, show the results and exit with status 1.
    """
    from harness.cli.progress import carry_out
    from harness.records import Success
    from harness.records.store import StoredRun

    finished = carry_out(
        specs, catalog, store, warned=warned, save_weights=True, budget_s=budget_s, **{**settings, "retry": None}
    )
    if len(finished) < len(specs) or not all(isinstance(record.outcome, Success) for record in finished):
        show(finished)
        say("the students were not trained, because a teacher failed")
        raise click.exceptions.Exit(1)
    return {
        spec.key: StoredRun(store.path / record.run_id, record) for spec, record in zip(specs, finished, strict=True)
    }


def _draw(finished: Results, catalog: Catalog, store: Store, path: Path) -> None:
    """Save a plot of quality against throughput for the runs of this command. If no throughput was measured, plot only
    the quality.
    """
    from harness.checks.parity.verdict import load
    from harness.records.files import write_whole
    from harness.records.store import StoredRun
    from harness.report.plots.figure import figure
    from harness.report.report import Report

    runs = tuple(StoredRun(store.path / record.run_id, record) for record in finished)
    report = Report(runs=runs, catalog=catalog, verdicts=tuple(load(store.path).values()))
    name = "quality" if all(record.quality_only for record in finished) else "pareto"
    write_whole(path, figure(report, name, path.suffix))
    say(f"Wrote {path}")


def _check_nothing_selected() -> None:
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") == click.core.ParameterSource.COMMANDLINE
        and parameter.name in options.SELECTING
    ]
    if given:
        raise click.UsageError(f"--suite selects the runs; remove {', '.join(given)}")


def _available(specs: Sequence[RunSpec], reasons: Mapping[str, str], *, skip: bool) -> tuple[RunSpec, ...]:
    """Return the specs that have no entry in `reasons`, and print the reasons for omitting the other specs.

    Raises `harness.UsageError` with these reasons if any spec has an entry and `skip` is false, or if no specs remain.
    """
    from harness.errors import UsageError
    from harness.execute.availability import describe_reasons

    lines = describe_reasons(reasons)
    left = tuple(spec for spec in specs if spec.key not in reasons)
    if not (skip and left):
        advice = (
            "install the missing packages or datasets, or pass --skip-unavailable to execute the other runs"
            if left
            else ""
        )
        raise UsageError(
            "\n  ".join(["some runs cannot be executed on this machine:", *lines, *filter(None, [advice])])
        )
    for line in lines:
        say(f"unavailable: {line}")
    return left
