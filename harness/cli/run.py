"""The command ``harness run``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import counted, echo, say

if TYPE_CHECKING:
    from pathlib import Path

    from harness.api import Results
    from harness.plan.selection import Selection
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec
    from harness.records.store import Store


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
    help="First check that the backends compute the same results, and store the verdict in the records. During the "
    "check, each backend uses at most half of the available cores.",
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
    help="Interval between training checkpoints: a number of epochs such as 1, a number of steps such as "
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
    "error, unsupported or bad_result. Interrupted runs are always executed again.",
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
    help="Executor that determines where the runs are executed.",
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
    """Train a model with each backend, score it, measure its speed, latency and memory, and print the comparison.

    Each run is executed in a separate process. The record of a run is saved in the results directory, even if the run
    fails. Progress is written to stderr, and the table is written to stdout.

    To complete an interrupted comparison, run the command again. A run is skipped if the results directory already
    contains a run with the same settings, plugin code, package versions and machine class. Failed runs are executed
    again.

    With --checkpoint-every, a run that was killed or stopped continues from its last checkpoint when the command is run
    again. The interruption does not change the results.

    With --jobs, several runs are executed at the same time. Each run uses separate cores and, if the machine has GPUs,
    a separate GPU. Speed is measured only if `harness selftest --jobs` found that the runs do not slow each other down.
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
      harness run --weights bert-tiny-torch-s0 --backend torch,tensorflow
      harness run --task nlp --model bert-tiny --teacher bert-mini-torch-s0
      harness run --task regression --seed 0,1,2,3 --jobs 2 --quality-only
      harness run --suite suites/frameworks-cpu.toml --dry-run
      harness run --suite nightly.toml --results results/nightly
      harness run --suite suites/optimizers.toml --plot optimizers.svg
      harness run --suite nightly.toml --executor ray --ray-address auto --detach
      harness run --task nlp --backend torch --tracker tensorboard --tracker mlflow
    """
    from pathlib import Path

    from harness.api.planning import execute_plan, only_available, plan_runs
    from harness.cli.progress import carry_out, undecoded_notes
    from harness.execute.availability import unavailable
    from harness.execute.memory_limit import size_bytes
    from harness.execute.runner import check_executor
    from harness.plan.left_out import describe, left_out
    from harness.plan.suite import Suite, load
    from harness.plan.weights import unsavable_warning
    from harness.plugins.trackers import check, with_trackers
    from harness.records.store import Store, results_dir
    from harness.report.progress import planned_notes, planned_warnings

    if suite is not None:
        _check_nothing_selected()
    if plot is not None:
        from harness.report.plots.formats import check_suffix

        check_suffix(Path(plot).suffix)
    chosen = Suite([selection]) if suite is None else load(Path(suite))
    catalog, store = options.catalog(), Store(results_dir(results))
    chosen_executor = catalog.executor(executor, executor_option)
    check(catalog, tracker, store.path)
    limit_bytes = None if memory_limit is None else size_bytes(memory_limit)
    unchecked = dry_run or skip_unavailable or suite is not None
    plan = plan_runs(chosen, catalog, store, unavailable=unchecked, jobs=jobs)
    check_executor(plan.specs, chosen_executor)
    reasons = unavailable(plan.specs, catalog, remote=chosen_executor.remote) if unchecked else {}
    if not dry_run:
        plan = plan._replace(specs=only_available(plan.specs, reasons, skip=skip_unavailable, say=say))
    asked = quiet or suite is not None or selection.backends or selection.weights
    if unused := {} if asked else left_out(plan.specs, catalog):
        say(describe(unused))
    warned = [] if quiet else planned_warnings(plan.specs)
    notes = [] if quiet else planned_notes(plan.specs)
    unsavable = unsavable_warning(plan.specs, catalog) if save_weights else ""
    for line in (*notes, *warned, *filter(None, [unsavable])):
        say(line)
    if dry_run:
        from harness.api.checked_settings import checked_settings
        from harness.report.dry_run import plan_text

        for line in [] if quiet else undecoded_notes(plan.specs, catalog):
            say(line)
        checked = checked_settings(
            [spec for spec in plan.specs if spec.key not in reasons],
            catalog,
            parity=parity and not reasons,
            timeout_s=timeout,
            memory_limit=limit_bytes,
            batch_size_backoff=batch_size_backoff,
            executor=executor,
            executor_options=executor_option,
            detach=detach,
            rerun=rerun,
            jobs=jobs,
            budget_s=chosen.budget_s,
            checkpoint_every=checkpoint_every,
            resume=resume,
        )
        planned = plan_text(
            plan.specs,
            catalog,
            store,
            reasons=reasons,
            every=checked.every,
            resume=resume,
            rerun=rerun,
            retry=retry or None,
            batch_size_backoff=batch_size_backoff,
            budget_s=chosen.budget_s,
            executor=checked.executor,
            jobs=jobs,
            quality_only=quality_only,
        )
        for line in [] if quiet else planned.notes:
            say(line)
        echo(planned.text)
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
            reused = f"; {counted(finished.reused, 'run')} skipped (use --rerun to repeat)" if finished.reused else ""
            say(f"Saved {counted(len(finished) - finished.reused, 'run')} to {store.path}/{reused}")

    tracked = with_trackers(catalog, tracker, store.path)

    def execute(specs: tuple[RunSpec, ...], *, budget_s: float | None, teachers: bool) -> Results:
        return carry_out(
            specs,
            tracked,
            store,
            quiet=quiet,
            warned=warned,
            parity=parity and not teachers,
            later=plan.specs if teachers else (),
            timeout_s=timeout,
            memory_limit=limit_bytes,
            batch_size_backoff=batch_size_backoff,
            executor=executor,
            executor_options=executor_option,
            detach=detach,
            save_weights=save_weights or teachers,
            rerun=rerun,
            retry=None if teachers else retry or None,
            checkpoint_every=checkpoint_every,
            resume=resume,
            jobs=jobs,
            quality_only=quality_only,
            wait=wait,
            budget_s=budget_s,
            command=click.get_current_context().meta.get("harness.arguments", ()),
            show=None if teachers else show,
        )

    executed = execute_plan(plan, store, execute, budget_s=chosen.budget_s, rerun=rerun, detach=detach)
    if executed.teacher_failed:
        show(executed.results)
        say("the students were not trained, because a teacher failed")
        raise click.exceptions.Exit(1)
    if plot is not None:
        _draw(executed.results, catalog, store, Path(plot))
    if not executed.is_complete() and not (detach and executed.is_successful()):
        raise click.exceptions.Exit(1)


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
