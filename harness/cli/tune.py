"""The command ``harness tune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import echo, print_json, say

if TYPE_CHECKING:
    from harness.plan.selection import Selection
    from harness.plugins.catalog import Catalog
    from harness.records.store import Store


@click.command(cls=options.CommandWithExecutor, short_help="Search for better hyperparameters on the validation split.")
@options.plugins
@options.selection(leave_out=("repeat",))
@click.option(
    "--search",
    multiple=True,
    metavar="KEY=SPACE",
    help="Setting to tune and its possible values, as a list (recipe.batch_size=16,32,64), a range "
    "(recipe.dropout=0.0:0.5) or a logarithmic range (recipe.learning_rate=log:1e-4:1e-2). Can be repeated.",
)
@click.option(
    "--trials", type=click.IntRange(min=1), metavar="N", default=20, help="Number of trials for each backend."
)
@click.option(
    "--objective",
    multiple=True,
    metavar="NAME[,NAME]",
    callback=options.split_all,
    help=options.with_default(
        "Value to optimize on the validation split: quality, loss, train_throughput or parameters. With several "
        "objectives, the result is a Pareto front.",
        "quality",
    ),
)
@click.option(
    "--sampler",
    type=click.Choice(["tpe", "random", "gp", "nsga2"]),
    default="tpe",
    help="Algorithm that suggests settings. gp requires PyTorch.",
)
@click.option("--sampler-seed", type=click.IntRange(min=0), metavar="N", default=0, help="Random seed of the sampler.")
@click.option(
    "--pruner",
    type=click.Choice(["median", "hyperband", "none"]),
    help=options.with_default("Pruner that stops unpromising trials early.", "median, or none with several objectives"),
)
@click.option(
    "--confirm",
    type=click.IntRange(min=0),
    metavar="N",
    default=3,
    help="Number of fresh seeds for training with the best and the default settings. The trained models are "
    "scored on the test split.",
)
@click.option(
    "--storage",
    metavar="URL",
    help=options.with_default(
        "Optuna storage, such as sqlite:///tuning.db.", "a journal file in the results directory"
    ),
)
@click.option(
    "--lr-range",
    is_flag=False,
    flag_value="1e-6:1",
    metavar="[LOW:HIGH]",
    help="Train one model per backend instead of searching. The learning rate increases from LOW to HIGH (1e-6:1 if "
    "no range is given), and the loss is plotted.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Number of trials of a study to execute at the same time. On this machine, each trial uses separate "
    "cores and a separate GPU.",
)
@click.option(
    "--executor",
    metavar="NAME",
    default="local",
    show_default=True,
    help="Executor that determines where the trials and the confirmation runs are executed.",
)
@options.executor_options
@click.option("--rerun", is_flag=True, help="Start a new study, even if a study with the same settings exists.")
@options.wait
@options.results
@options.timeout("Maximum duration of a trial or run, in seconds.")
@click.option(
    "--memory-limit",
    metavar="SIZE",
    help="Maximum host memory of a trial or run, such as 4GiB. A trial or run that exceeds this limit is stopped "
    "and recorded as failed.",
)
@options.price_per_hour
@options.trackers
@options.quiet
@options.format_
def tune(
    selection: Selection,
    search: tuple[str, ...],
    trials: int,
    objective: tuple[str, ...],
    sampler: str,
    sampler_seed: int,
    pruner: str | None,
    confirm: int,
    storage: str | None,
    lr_range: str | None,
    jobs: int,
    executor: str,
    executor_option: dict[str, str],
    rerun: bool,
    wait: bool,
    results: str | None,
    timeout: float,
    memory_limit: str | None,
    price_per_hour: float | None,
    tracker: tuple[str, ...],
    quiet: bool,
    format_: str,
) -> None:
    """Search for settings that improve a model on the validation split, and compare them with the default settings.

    Each trial trains the model with different settings in a separate process, which does not use the test split. Trials
    that are unlikely to become the best are stopped early. The best settings and the default settings are then trained
    on fresh seeds, scored on the test split, and measured in the same way as in `harness run`.

    There is a separate study for each backend. All studies have the same search space, number of trials and sampler
    seed. To continue an interrupted study or to add trials, run the command again.

    The exit status is 0 on success, and 1 if no trial was completed or a run failed. The exit status is 2 if the
    request is invalid and no trial is started, and 130 after Ctrl-C.

    \b
    Examples:
      harness tune --task nlp --backend torch --search recipe.learning_rate=log:1e-4:1e-2
      harness tune --task nlp --search recipe.batch_size=16,32,64 --search model.hidden_size=64,128 --trials 30
      harness tune --task vision --backend torch,tensorflow --search recipe.weight_decay=log:1e-5:1e-1
      harness tune --task regression --search recipe.learning_rate=log:1e-4:1e-1 --objective quality,train_throughput
      harness tune --task nlp --backend torch --search recipe.learning_rate=log:1e-4:1e-2 --jobs 4
      harness tune --task nlp --backend torch --lr-range
    """
    from harness.api import tune_selection
    from harness.cli.progress import catch_signals, listener
    from harness.data.checkpoint import locate
    from harness.plugins.trackers import with_trackers
    from harness.records import Failure
    from harness.records.store import Store, results_dir
    from harness.report.progress import planned_notes, planned_warnings
    from harness.report.text import render
    from harness.report.tuning import render as render_study
    from harness.tuning.request import Tuning, plan

    catalog, store = options.catalog(), Store(results_dir(results))
    if lr_range is not None:
        _check_alone()
        _range_tests(
            selection.resolved(locate, store.find_trained),
            catalog,
            store,
            lr_range,
            timeout,
            wait=wait,
            format_=format_,
        )
        return
    request = Tuning(
        selection=selection.resolved(locate, store.find_trained),
        search=search,
        trials=trials,
        objectives=objective or ("quality",),
        sampler=sampler,
        pruner=pruner or "",
        sampler_seed=sampler_seed,
        confirm=confirm,
        jobs=jobs,
        executor=executor,
        executor_options=executor_option,
    )
    plans = plan(request, catalog)
    warned = [] if quiet else planned_warnings([each.spec for each in plans])
    for line in [] if quiet else [*planned_notes([each.spec for each in plans]), *warned]:
        say(line)
    catch_signals()
    tuned = tune_selection(
        plans,
        with_trackers(catalog, tracker, store.path),
        store,
        timeout_s=timeout,
        memory_limit=memory_limit,
        storage=storage,
        rerun=rerun,
        wait=wait,
        listener=listener(quiet=quiet, warned=warned),
    )
    if format_ == "json":
        print_json(tuned.studies)
    else:
        records = {record.run_id: record for record in tuned.results}
        for study in tuned.studies:
            echo(render_study(study, records))
        if tuned.results:
            echo(render(tuned.results.table(price_per_hour=price_per_hour)), nl=False)
    failed = any(isinstance(record.outcome, Failure) for record in tuned.results)
    if failed or not all(study.best for study in tuned.studies):
        raise click.exceptions.Exit(1)


_OF_SEARCHES = (
    *("search", "trials", "objective", "sampler", "sampler_seed", "pruner", "confirm", "storage", "rerun"),
    *("jobs", "executor", "executor_option", "memory_limit", "price_per_hour", "tracker"),
)
"""Command parameters that have no effect on a learning rate range test."""


def _check_alone() -> None:
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in _OF_SEARCHES
        and context.get_parameter_source(parameter.name) == click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"--lr-range does not perform a search; remove {', '.join(given)}")


def _range_tests(
    selection: Selection, catalog: Catalog, store: Store, text: str, timeout_s: float, *, wait: bool, format_: str
) -> None:
    from harness.execute.device_lock import measuring_on
    from harness.report.plots.lr_range import plot
    from harness.tuning.lr_range import STEPS, check, parse_range, range_test, save
    from harness.tuning.request import base_specs

    low, high = parse_range(text)
    _, specs = base_specs(selection, catalog)
    for spec in specs:
        check(spec, catalog)
    store.prepare()
    found = []
    with measuring_on([spec.device for spec in specs], wait=wait, say=say):
        for spec in specs:
            result = range_test(spec, catalog, low, high, timeout_s=timeout_s)
            path = save(result, store.path, plot(result))
            found.append(result)
            if format_ == "json":
                continue
            echo(f"{spec.title}: {len(result.rates)} of {STEPS} steps, {low:g} to {high:g}")
            if result.useful is None:
                echo("  the loss did not decrease; choose another range of learning rates")
            else:
                ends = ":".join(f"{end:.2g}" for end in result.useful)
                echo(
                    f"  the loss decreased in the range {ends}; use it in a search: --search "
                    f"recipe.learning_rate=log:{ends}"
                )
            echo(f"  plot: {path}")
    if format_ == "json":
        print_json(found)
