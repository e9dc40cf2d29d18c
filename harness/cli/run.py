"""``harness run``."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Literal

import click

from harness.cli import options

if TYPE_CHECKING:
    from harness.plan import Selection
    from harness.plugins.catalog import Catalog
    from harness.records import ParityMark, RunRecord, RunSpec
    from harness.records.store import Store


@click.command(short_help="Train and measure; print the comparison.")
@options.plugins
@options.selection("Framework; without it every one that can run here.")
@click.option(
    "--suite",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Carry out the runs of a TOML file instead of those that options select.",
)
@click.option("--parity", is_flag=True, help="First check that the backends compute the same; the verdict is recorded.")
@click.option(
    "--seed",
    multiple=True,
    metavar="N[,N]",
    callback=options.split_whole_numbers,
    help="Each seed is a run of its own [0; publish: 0,1,2].",
)
@click.option(
    "--split",
    multiple=True,
    metavar="all|N[,N]",
    callback=options.split_numbers,
    help="Published splits of the dataset, each a run of its own [the first].",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    metavar="N",
    help="Do every run N times, in turns; `harness compare` needs 3 or more for speed [1; publish: 5].",
)
@options.price_per_hour
@click.option("--save-weights", is_flag=True, help="Keep the trained weights, for `harness evaluate`.")
@options.results
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=3600.0,
    help="End a run that takes longer [3600].",
)
@click.option("--quiet", "-q", is_flag=True, help="Print the table and errors only.")
@click.option("--dry-run", is_flag=True, help="Print the runs that are planned, and run nothing.")
def run(
    selection: Selection,
    suite: str | None,
    parity: bool,
    repeat: int | None,
    price_per_hour: float | None,
    save_weights: bool,
    seed: tuple[int, ...],
    split: tuple[int, ...] | Literal["all"],
    results: str | None,
    timeout: float,
    quiet: bool,
    dry_run: bool,
) -> None:
    """Train a model on each backend, score it, measure its speed, latency and memory, and print the comparison.

    Each run is a process of its own and is kept in the results directory, failed ones too. Progress goes to
    stderr, the table to stdout. The exit status is 0 if every run succeeded, 1 if one failed, 2 if the request is
    wrong (nothing was run then), 130 after Ctrl-C.

    \b
    Examples:
      harness run --task nlp --backend torch
      harness run --task nlp,vision,speech,regression --backend torch,tensorflow --seed 0,1,2
      harness run --task nlp --model bert-mini --set recipe.batch_size=128 --device cuda --precision bf16
      harness run --task nlp --backend torch,tensorflow --parity
      harness run --task nlp --protocol publish
      harness run --task regression --dataset uci-energy --backend torch,tensorflow --split all
      harness run --task vision --seed 0,1,2 --dry-run
      harness run --suite nightly.toml --results results/nightly
    """
    from harness.records import Failure
    from harness.records.store import Store, results_dir

    catalog = options.catalog()
    specs = _planned(selection, suite, seed, split, repeat, catalog)
    if dry_run:
        _print_plan(specs)
        return

    from harness.cli.progress import listener
    from harness.execute.runner import run_all

    for name in ("SIGTERM", "SIGHUP"):  # as Ctrl-C: end the child and record it
        signal.signal(getattr(signal, name), signal.default_int_handler)
    store = Store(results_dir(results))
    marks = _checked(specs, catalog, store, quiet) if parity else None
    progress = listener(quiet=quiet)
    try:
        run_all(specs, catalog, store, timeout_s=timeout, listener=progress, marks=marks, save_weights=save_weights)
    finally:
        progress.close()
        _print_finished(progress.records, store, quiet, price_per_hour)
    if any(isinstance(record.outcome, Failure) for record in progress.records):
        raise click.exceptions.Exit(1)


_BESIDE_A_SUITE = ("suite", "parity", "results", "timeout", "quiet", "dry_run", "save_weights", "price_per_hour")


def _planned(
    selection: Selection,
    suite: str | None,
    seed: tuple[int, ...],
    split: tuple[int, ...] | Literal["all"],
    repeat: int | None,
    catalog: Catalog,
) -> tuple[RunSpec, ...]:
    import dataclasses
    from pathlib import Path

    from harness.plan import expand, named_protocol
    from harness.plan import suite as suites

    if suite is None:
        specs = expand(dataclasses.replace(selection, seeds=seed, splits=split), catalog)
        return specs * (repeat or named_protocol(selection.protocol).repeats)
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") == click.core.ParameterSource.COMMANDLINE
        and parameter.name not in _BESIDE_A_SUITE
    ]
    if given:
        raise click.UsageError(f"--suite says what to run; leave out {', '.join(given)}")
    return suites.plan(suites.load(Path(suite)), catalog)


def _checked(specs: tuple[RunSpec, ...], catalog: Catalog, store: Store, quiet: bool) -> dict[str, list[ParityMark]]:
    from harness.checks.parity.check import marks_for

    store.prepare()
    return marks_for(specs, catalog, store, say=lambda text: None if quiet else click.echo(f"parity: {text}", err=True))


def _print_finished(records: list[RunRecord], store: Store, quiet: bool, price_per_hour: float | None) -> None:
    """Also after Ctrl-C or a full disk: what was measured until then is shown."""
    if not records:
        return
    from harness.analysis.comparison_table import build_table
    from harness.checks.parity.verdict import load
    from harness.report.text import render

    table = build_table(records, list(load(store.path).values()), price_per_hour=price_per_hour)
    click.echo(render(table), nl=False)
    if not quiet:
        click.echo(f"{len(records)} run{'s' * (len(records) != 1)} kept in {store.path}", err=True)


def _print_plan(specs: tuple[RunSpec, ...]) -> None:
    from tabulate import tabulate

    split = ["split"] if any(spec.split is not None for spec in specs) else []
    names = ["task", "dataset", "model", "backend", "device", "precision", "compile", "threads", *split, "seed"]
    rows = [
        [*(getattr(spec, name) for name in names), spec.recipe.epochs, spec.recipe.batch_size, spec.key[:8]]
        for spec in specs
    ]
    headers = [*names, "epochs", "batch", "key"]
    texts = [headers.index(name) for name in ("dataset", "key")]  # such as 084e0232, which is no number
    click.echo(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=texts))
    click.echo(f"\n{len(specs)} run{'s' * (len(specs) != 1)} planned; nothing was run")
