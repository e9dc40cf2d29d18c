"""The command ``harness rank``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import echo, echo_data, print_json

if TYPE_CHECKING:
    from harness.records.store import StoredRun

_FILTERS = ("task", "dataset", "model", "backend", "device", "precision")


@click.command(short_help="Rank backends or models across datasets.")
@options.plugins
@click.argument("directories", metavar="[RESULTS]...", nargs=-1, type=click.Path(file_okay=False))
@options.names(
    "--metric",
    "Metric to rank by: quality (the primary metric of each task) or the name of a metric, such as accuracy, "
    "train_samples_per_s or latency_p50_ms.",
    default="quality",
)
@options.names(
    "--by",
    "Fields to rank: backend, model, device, precision, or a setting such as recipe.batch_size. If several "
    "fields are given, their combinations are ranked.",
    default="backend",
)
@click.option(
    "--baseline",
    metavar="NAME",
    help=options.with_default(
        "Backend, model or setting to use as the baseline for ratios. The results of the baseline also replace the "
        "results of failed runs.",
        "the first candidate with results on the largest number of datasets",
    ),
)
@click.option(
    "--ties",
    type=click.Choice(["verdict", "exact"]),
    default="verdict",
    help="Rule for ties between two candidates: an inconclusive result of `harness compare` (verdict) or equal "
    "means (exact).",
)
@options.price_per_hour
@options.filters(*_FILTERS)
@options.results_in("Results directory to use if no RESULTS are given.", "HARNESS_RESULTS, else ./results")
@options.formats("text", "markdown", "csv", "json")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Also write a critical-difference plot. The suffix selects the format: svg, png, pdf, html or json "
    "(Vega-Lite).",
)
def rank(
    directories: tuple[str, ...],
    metric: tuple[str, ...],
    by: tuple[str, ...],
    baseline: str | None,
    ties: str,
    price_per_hour: float | None,
    results: str | None,
    format_: str,
    plot: str | None,
    **filters: tuple[str, ...],
) -> None:
    """Rank backends, models or other settings across datasets. The ranking contains the mean rank, the win rate and the
    geometric mean ratio, with 95% intervals over datasets.

    RESULTS are results directories, whose runs are ranked together. A dataset is included only if every
    ranked backend, model or setting was run on it. Failed runs are handled in two ways, and both results are shown.
    With the first method ("excluded"), failed runs are ignored. Datasets on which a ranked entry has no successful runs
    are also ignored. With the second method ("imputed"), a failed run is replaced by a run of the baseline. Choose a
    simple baseline, because a strong baseline would compensate for failures.

    \b
    Examples:
      harness rank
      harness rank results/ --by model --metric accuracy --plot ranks.svg
      harness rank results/a results/b --metric latency_p50_ms --baseline torch
      harness rank --by backend,precision --ties exact --format csv
    """
    from harness.analysis.rank import rank as ranking_of
    from harness.errors import UsageError
    from harness.records.store import results_dir
    from harness.report import ranking

    if directories and results is not None:
        raise UsageError(
            f"pass all results directories as arguments: harness rank {shlex.join([*directories, results])}"
        )
    runs = _runs([Path(directory) for directory in directories] or [results_dir(results)], filters)
    plugins = {name: provided.value for name, provided in options.catalog().metrics.items()}
    rankings = [
        ranking_of(
            runs,
            plugins,
            name,
            by or ("backend",),
            baseline=baseline or "",
            ties="exact" if ties == "exact" else "verdict",
            price_per_hour=price_per_hour,
        )
        for name in metric or ("quality",)
    ]
    if format_ == "json":
        print_json(rankings)
    elif format_ == "csv":
        echo_data(ranking.csv(rankings), nl=False)
    else:
        echo(ranking.markdown(rankings) if format_ == "markdown" else ranking.text(rankings))
    if plot is not None:
        from harness.records.files import write_whole
        from harness.report.plots.ranking import figure

        write_whole(Path(plot), figure(rankings, Path(plot).suffix))


def _runs(directories: list[Path], filters: dict[str, tuple[str, ...]]) -> list[StoredRun]:
    """Return the distinct runs from several results directories, ordered by start time.

    Raises `harness.UsageError` if a directory contains no matching runs.
    """
    from harness.errors import UsageError
    from harness.records.store import Store

    runs: dict[tuple[str, str], StoredRun] = {}
    for directory in directories:
        loaded = Store(directory).load(lambda run: options.matches(run.setting, filters))
        for problem in loaded.problems:
            echo(f"Warning: excluded: {problem}", err=True)
        if not loaded.runs:
            state = "has no matching runs" if loaded.summaries else "contains no runs"
            raise UsageError(f"results directory {str(directory)!r} {state}; choose another directory or other filters")
        for run in loaded.runs:
            runs.setdefault((run.record.run_id, run.record.started_at), run)
    return sorted(runs.values(), key=lambda run: run.record.started_at)
