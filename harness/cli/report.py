"""The command ``harness report``."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import console, counted, echo, echo_data

if TYPE_CHECKING:
    from harness.records.store import Loaded, StoredRun
    from harness.report.report import Report

_FILTERS = ("task", "dataset", "model", "backend", "device", "precision")


@click.command(short_help="Write a comparison of results as a table, plot or site.")
@options.plugins
@click.option(
    "--format",
    "format_",
    metavar="FORMAT",
    help=options.with_default(
        "Output format: text, markdown, latex, csv, json, pytest-benchmark, html (a site, which is "
        "written to the directory given by --output) or a format that a plugin provides.",
        "text",
    ),
)
@click.option(
    "--format-option",
    multiple=True,
    metavar="OPTION=VALUE",
    callback=options.split_pairs,
    help="Option of the output format; `harness list reporters` lists the options. Can be repeated.",
)
@click.option(
    "--plot",
    metavar="PLOT",
    help="Write a plot instead of the table: pareto, quality, curves, ratios, confusion, roc, latency or memory. The "
    "suffix of --output selects the file format: svg, png, pdf, html or json (Vega-Lite).",
)
@click.option(
    "--output",
    type=click.Path(),
    metavar="PATH",
    help=options.with_default("File or directory to write, or - for stdout.", "-"),
)
@click.option("--title", default="Benchmark results", help="Title of the site.")
@options.results
@click.option("--all-ratios", is_flag=True, help="Also show ratios between rows that failed a parity check.")
@options.price_per_hour
@options.names("--metric", "Metric to show in addition to the default columns, such as log_loss or first_step_s.")
@options.filters(
    *_FILTERS, backend="Use only runs with this backend. Ratios are relative to the first backend that has runs."
)
@options.status_and_date
def report(
    format_: str | None,
    format_option: dict[str, str],
    plot: str | None,
    output: str | None,
    title: str,
    results: str | None,
    all_ratios: bool,
    price_per_hour: float | None,
    status: tuple[str, ...],
    since: str | None,
    until: str | None,
    metric: tuple[str, ...],
    **filters: tuple[str, ...],
) -> None:
    """Write a comparison of the runs in a results directory. The table has one row for each task, dataset, model,
    backend, device and precision, aggregated over seeds.

    Records that cannot be read are listed on stderr and excluded.

    \b
    Examples:
      harness report
      harness report --task nlp --backend torch,tensorflow
      harness report --status success --since 2026-11-01
      harness report --task tabular --metric log_loss,mcc
      harness report --format markdown --output comparison.md
      harness report --format html --output site/
      harness report --plot pareto --output pareto.svg
      harness report --results results/reference/defaults --format csv
    """
    from harness.api.filters import checked_states
    from harness.checks.parity.verdict import load as load_verdicts
    from harness.errors import RecordError, UnknownNameError, UsageError
    from harness.records.store import Store, no_collection, results_dir
    from harness.report.rendering import render_files, render_text
    from harness.report.report import Report
    from harness.tuning.study import load_all as load_studies

    if plot is not None and metric:
        raise UsageError("--plot and --metric cannot be combined; use only one of them")
    if plot is not None and (format_ is not None or format_option):
        raise UsageError("--plot and --format cannot be combined; use only one of them")
    output = None if output == "-" else output
    catalog = options.catalog()
    reporter = catalog.reporter(format_ or "text")
    for option in format_option:
        if option not in reporter.options:
            raise UnknownNameError(f"{reporter.name} format option", option, reporter.options)
    if (plot is not None or reporter.output == "directory") and output is None:
        wanted = "a file such as figure.svg" if plot is not None else "a directory such as site/"
        raise UsageError(f"pass --output with {wanted}")
    directory = results_dir(results)
    with no_collection():
        loaded = Store(directory).load(
            lambda run: options.matches(run.setting, filters) and options.is_within(run.started_at, since, until)
        )
        gc.freeze()  # Exclude the runs from later garbage collections, since they are in use until the command ends.
    for problem in loaded.problems:
        echo(f"Warning: excluded: {problem}", err=True)
    if loaded.problems and not loaded.summaries:
        raise RecordError(f"{directory}: none of the records can be read")
    if not loaded.summaries:
        state = "contains no runs" if directory.is_dir() else "does not exist"
        raise UsageError(
            f"results directory {str(directory)!r} {state}; create runs with `harness run --task ...`, "
            "or choose another directory with --results DIR"
        )
    studies, unreadable = load_studies(directory)
    for problem in unreadable:
        echo(f"Warning: excluded: {problem}", err=True)
    comparison = Report(
        runs=tuple(_selected(loaded, filters, checked_states(status))),
        catalog=catalog,
        verdicts=tuple(load_verdicts(directory).values()),
        all_ratios=all_ratios,
        price_per_hour=price_per_hour,
        metrics=metric,
        title=title,
        problems=tuple(loaded.problems),
        studies=tuple(study for study in studies if options.matches(study.spec, filters)),
    )
    if plot is not None:
        _draw(plot, comparison, Path(output or ""))
        return
    if reporter.output == "directory":
        _write_site(render_files(reporter, comparison, format_option), comparison, Path(output or ""))
        return
    rendered = render_text(reporter, comparison, format_option)
    if output is None:
        show = echo if reporter.name in ("text", "markdown", "latex") else echo_data
        show(rendered, nl=not rendered.endswith("\n"))
    else:
        from harness.records.files import write_whole

        write_whole(Path(output), rendered.encode())


def _draw(plot: str, report: Report, output: Path) -> None:
    from harness.records.files import write_whole
    from harness.report.plots.figure import figure

    write_whole(output, figure(report, plot, output.suffix))


def _write_site(files: Iterable[tuple[str, bytes]], report: Report, output: Path) -> None:
    from rich.progress import track

    from harness.records.files import write_directory

    count = write_directory(output, track(files, "writing pages", console=console(), transient=True))
    echo(f"Saved {counted(len(report.runs), 'run')} to {output / 'index.html'} ({counted(count, 'file')})", err=True)


def _selected(loaded: Loaded, filters: dict[str, tuple[str, ...]], states: frozenset[str]) -> list[StoredRun]:
    """Return the loaded runs with one of the given states, ordered like the backends in the filter. Raises
    `harness.UsageError` if no runs match the filters.
    """
    from harness.api.filters import has_status
    from harness.errors import CombinationError, UsageError

    settings = {run.setting for run in loaded.summaries}
    for name, names in filters.items():
        present = {getattr(setting, name) for setting in settings}
        for wanted in names:
            if wanted not in present:
                raise UsageError(f"no run has the {name} {wanted!r}; the results contain: {', '.join(sorted(present))}")
    runs = [run for run in loaded.runs if has_status(run.record, states)]
    if not runs:
        raise CombinationError("no run matches all of these filters; remove some of them")
    order = {name: position for position, name in enumerate(filters["backend"])}
    return sorted(runs, key=lambda run: order.get(run.record.spec.backend, 0))
