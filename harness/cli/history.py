"""The command ``harness history``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import counted, echo, print_json

if TYPE_CHECKING:
    from harness.analysis.history import Figure, History, Point


@click.command(short_help="Show metrics over time, commits and package versions.")
@options.plugins
@options.names(
    "--metric",
    "Metric to show: quality (the primary metric of the task) or the name of a metric, such as latency_p50_ms or "
    "host_peak_mib.",
    default="quality and throughput",
)
@options.filters("task", "model", "backend")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also show settings whose runs all have the same commit and package versions.",
)
@options.price_per_hour
@options.format_
@options.results
def history(
    metric: tuple[str, ...],
    everything: bool,
    price_per_hour: float | None,
    format_: str,
    results: str | None,
    **filters: tuple[str, ...],
) -> None:
    """Show how metrics changed across harness commits and package versions, and which changes are significant.

    A history consists of runs with the same settings on the same machine. Each row summarizes the runs with the same
    commit and package versions. Consecutive rows are compared in the same way as in `harness compare`.

    \b
    Examples:
      harness history
      harness history --metric train_samples_per_s --task nlp
      harness history --metric latency_p50_ms,host_peak_mib --format json
    """
    from harness.analysis.history import histories
    from harness.errors import UsageError
    from harness.records.store import Store, results_dir

    directory = results_dir(results)
    loaded = Store(directory).load(lambda run: options.matches(run.setting, filters))
    for problem in loaded.problems:
        echo(f"Warning: excluded: {problem}", err=True)
    if not loaded.runs:
        raise UsageError(
            f"no run in results directory {str(directory)!r} matches; choose another directory with --results DIR"
        )
    every = histories(loaded.runs, options.catalog(), metric or (), price_per_hour=price_per_hour)
    shown = [one for one in every if everything or len(one.points) > 1]
    if format_ == "json":
        print_json(shown)
        return
    if shown:
        echo(render(shown))
    if len(every) > len(shown):
        echo(
            f"not shown: {counted(len(every) - len(shown), 'history', 'histories')} with only one row (use --all)",
            err=True,
        )


def render(shown: Sequence[History]) -> str:
    from tabulate import tabulate

    from harness.analysis.formatting import short_commit
    from harness.analysis.metrics import named_with_unit, unranked_note

    parts = []
    for one in shown:
        units = {figure.metric: figure.unit for point in one.points for figure in point.figures}
        names = list(units)
        titles = [named_with_unit(name, unit) for name, unit in units.items()]
        headers = ["since", "commit", "runs", *(text for title in titles for text in (title, "change")), "what changed"]
        rows = [
            [
                point.first_at[:16].replace("T", " "),
                short_commit(point.commit),
                _runs(point),
                *_figures(point, names),
                _changed(point),
            ]
            for point in one.points
        ]
        align = ["left", "left", "right", *["right", "left"] * len(names), "left"]
        grid = tabulate(rows, headers=headers, tablefmt="simple", colalign=align, disable_numparse=True)
        parts.append(f"{one.name}\n{one.machine}\n\n{grid}")
    unranked = {
        figure.metric
        for one in shown
        for point in one.points
        for figure in point.figures
        if figure.since is not None and figure.since.higher_is_better is None
    }
    if unranked:
        parts.append(unranked_note(sorted(unranked)))
    sinces = [figure.since for one in shown for point in one.points for figure in point.figures if figure.since]
    remarks = (
        (_NOT_INTERLEAVED, any(since.verdict != "inconclusive" and not since.interleaved for since in sinces)),
        (_NOT_ALL_RUNS, any(not since.all_runs for since in sinces)),
        (_RATIOS, any(since.relative and since.change is not None for since in sinces)),
    )
    parts.append(
        "±: half-width of the 95% confidence interval of the mean over runs. "
        "better, worse: significant after Bonferroni correction."
        + "".join(f"\n{text}" for text, applies in remarks if applies)
    )
    return "\n\n".join(parts)


_NOT_INTERLEAVED = "?: the runs of the two rows were not interleaved, so the machine may have caused the difference."
_NOT_ALL_RUNS = "(...): the runs from which the change was computed, if not all runs of the two rows were used."
_RATIOS = "Changes in percent are ratios of geometric means."


def _runs(point: Point) -> str:
    return f"{point.runs - point.failed}/{point.runs}" if point.failed else str(point.runs)


def _figures(point: Point, names: Sequence[str]) -> list[str]:
    by_name = {figure.metric: figure for figure in point.figures}
    cells = []
    for name in names:
        figure = by_name.get(name)
        cells += ["–", ""] if figure is None else [_value(figure), _change(figure)]
    return cells


def _value(figure: Figure) -> str:
    from harness.analysis.formatting import rounded

    if figure.value is None:
        return "–"
    shown, half = rounded(float(figure.value), figure.ci95)
    return f"{shown} ± {half}" if half else shown


def _change(figure: Figure) -> str:
    since = figure.since
    if since is None or since.change is None:
        return ""
    amount = f"{100 * since.change:+.1f}%" if since.relative else f"{since.change:+.4g}"
    amount += "" if since.all_runs else f" ({since.evidence})"
    mark = "" if since.interleaved else "?"
    return amount if since.verdict == "inconclusive" else f"{amount} {since.verdict}{mark}"


def _changed(point: Point) -> str:
    shown = [f"{name} {before} -> {now}" for name, before, now in point.changed if name != "commit"]
    return ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")
