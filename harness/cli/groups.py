"""The command ``harness groups``."""

from __future__ import annotations

import click

from harness.cli import options
from harness.cli.predict import output, write_table


@click.command(short_help="Compare the error rates of groups of examples.")
@click.argument("run")
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME",
    help=options.with_default(
        "Class for which rates are computed. Can be repeated.",
        "the second class if there are two, all classes otherwise",
    ),
)
@click.option(
    "--min-examples",
    type=click.IntRange(min=1),
    default=20,
    metavar="N",
    help="Minimum number of examples required to compute intervals for a group and to include it in the gaps.",
)
@click.option(
    "--table",
    type=click.Choice(["rates", "gaps"]),
    default="rates",
    help="Table to write with --format csv.",
)
@options.formats("text", "json", "csv")
@output
@options.results
def groups(
    run: str,
    classes: tuple[str, ...],
    min_examples: int,
    table: str,
    format_: str,
    output: str | None,
    results: str | None,
) -> None:
    """Show the accuracy, the selection rate, the true positive rate and the false positive rate of each group of test
    examples, with 95% intervals. Also show the largest gap in each rate between groups, as a difference and as a ratio.

    The groups are defined by the columns of your own data that are passed to `harness run --slice-columns`, by the
    intersections of these columns, and by the dataset or the task.

    RUN is the id of a run, a unique part of the id, or the path of the run's directory.

    \b
    Examples:
      harness run --task tabular --dataset loans.csv --slice-columns 'sex,region,sex*region'
      harness groups mlp-torch-s0
      harness groups mlp-torch-s0 --class approved --format csv --table gaps
    """
    from harness.analysis.groups import groups as of_run
    from harness.cli.output import show
    from harness.errors import UsageError
    from harness.records.store import Store, results_dir
    from harness.report.groups import gaps_frame, rates_frame, render

    if output is not None and format_ != "csv":
        raise UsageError("--output FILE requires --format csv")
    found = of_run(Store(results_dir(results)).find(run).record, classes, min_examples)
    if format_ == "csv":
        write_table(rates_frame(found) if table == "rates" else gaps_frame(found), format_, output)
    else:
        show(found, format_, render)
