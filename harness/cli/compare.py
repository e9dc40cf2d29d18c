"""The command ``harness compare``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import echo

if TYPE_CHECKING:
    from harness.analysis.compare.gates import Gate
    from harness.analysis.compare.judge import Compared, Comparison
    from harness.records.store import StoredRun


@click.command(short_help="Compare two sets of runs: better, worse or inconclusive.")
@options.plugins
@click.argument("base")
@click.argument("new")
@options.names(
    "--metric",
    "Metric to compare, such as accuracy, train_samples_per_s, latency_p50_ms or host_peak_mib.",
    default="the primary metric of the task, speed, latency and memory",
)
@click.option(
    "--fail-on",
    multiple=True,
    metavar="METRIC:BOUND",
    help="Exit with status 1 if the whole confidence interval of the change is beyond this bound, such as "
    "train_samples_per_s:-5% or accuracy:-0.01. Can be repeated.",
)
@options.format_
@options.results
def compare(
    base: str, new: str, metric: tuple[str, ...], fail_on: tuple[str, ...], format_: str, results: str | None
) -> None:
    """Compare two sets of runs, metric by metric: report whether NEW is better or worse than BASE, the change with its
    confidence interval, and the smallest change that these runs could have detected.

    BASE and NEW are each a results directory, a run's directory, a file written by `harness baseline`, a suite file
    (which selects its runs in the results directory), or a substring of the run ids in the results directory. Runs are
    matched by their settings. The remaining runs are matched by task, dataset, model, backend, device and precision,
    and then by all of these except the backend. Finally, if one group of runs is left on each side, the two groups are
    compared.

    To compare speed, latency and memory, each side needs at least three runs (`harness run --repeat 3`). Quality is
    compared across seeds or splits if there are at least three, and across the examples of one seed otherwise. The exit
    status is 1 if a --fail-on bound is violated, and 0 otherwise.

    \b
    Examples:
      harness compare results/main results/branch
      harness compare nlp-bert-tiny-torch nlp-bert-tiny-tensorflow
      harness compare baseline.json results/ --fail-on train_samples_per_s:-5%
    """
    import msgspec

    from harness.analysis.compare.gates import broken, parse
    from harness.analysis.compare.judge import compare_all
    from harness.analysis.compare.match import find, match
    from harness.errors import UsageError
    from harness.records import Failure
    from harness.records.store import results_dir

    gates = parse(fail_on)
    directory = results_dir(results)
    sides = {"BASE": find(base, directory, options.catalog), "NEW": find(new, directory, options.catalog)}
    for side, runs in sides.items():
        failed_runs = [run for run in runs if isinstance(run.record.outcome, Failure)]
        if failed_runs:
            click.echo(
                f"Warning: {side}: failed runs are excluded: {', '.join(run.path.name for run in failed_runs)}",
                err=True,
            )
        for text in _flags(runs):
            click.echo(f"Warning: {side}: {text}", err=True)
    matches, left = match(*sides.values())
    for name in left:
        click.echo(f"Warning: excluded because the other side has no matching runs: {name}", err=True)
    if not matches:
        raise UsageError("no successful runs of BASE and NEW match; compare runs of the same task, dataset and model")
    compared = compare_all(matches, options.catalog(), metric, [gate.metric for gate in gates])
    failed = broken(gates, compared)
    if format_ == "json":
        echo(msgspec.json.format(msgspec.json.encode(compared), indent=1).decode())
    else:
        echo(render(compared))
    for gate, pair, comparison in failed:
        click.echo(f"Failed: {gate.text}: {pair.name}: {_change(comparison)}, {_interval(comparison)}", err=True)
    for text in _unchecked(gates, compared):
        click.echo(f"Warning: {text}", err=True)
    if failed:
        raise click.exceptions.Exit(1)


def render(compared: Sequence[Compared]) -> str:
    from tabulate import tabulate

    from harness.analysis.metrics import named_with_unit

    parts = []
    for pair in compared:
        header = ["metric", "base", "new", "change", "interval", "detectable", "verdict", "evidence"]
        rows = [
            [
                named_with_unit(comparison.metric, comparison.unit),
                _number(comparison.base),
                _number(comparison.new),
                _change(comparison),
                _interval(comparison),
                "–" if comparison.detectable is None else f"±{_amount(comparison.detectable, comparison.relative)}",
                comparison.verdict,
                comparison.evidence,
            ]
            for comparison in pair.comparisons
        ]
        align = ["left", *["right"] * 5, "left", "left"]
        grid = tabulate(rows, headers=header, tablefmt="simple", colalign=align, disable_numparse=True)
        lines = [f"  {name}: {before} -> {after}" for name, before, after in pair.differences]
        parts.append("\n".join([pair.name, "", grid, *(["", "other differences", *lines] if lines else [])]))
    count = sum(len(pair.comparisons) for pair in compared)
    parts.append(
        f"The probability of a false difference in any of {count} comparisons is at most 1% (Bonferroni correction).\n"
        "detectable: the smallest change that would have been detected with probability 0.95."
    )
    return "\n\n".join(parts)


def _flags(runs: Sequence[StoredRun]) -> list[str]:
    """Return a line for each metric and kind of flag, with the number of flagged runs."""
    from harness.analysis.flags import run_flags
    from harness.records import Success

    counts: dict[tuple[str, str], int] = {}
    for run in runs:
        flags = run_flags(run.record) if isinstance(run.record.outcome, Success) else []
        for metric, kind in {(flag.columns[0], flag.kind) for flag in flags}:
            counts[metric, kind] = counts.get((metric, kind), 0) + 1
    return [
        f"{metric} is flagged for {kind} in {n} of {len(runs)} runs" for (metric, kind), n in sorted(counts.items())
    ]


def _unchecked(gates: Sequence[Gate], compared: Sequence[Compared]) -> list[str]:
    """Return a line for each bound whose violation could not be detected, because the runs are too few or too noisy."""
    lines = []
    for gate in gates:
        for comparison in (c for pair in compared for c in pair.comparisons if c.metric == gate.metric):
            if comparison.low is None:
                lines.append(f"{gate.text} was not checked: {comparison.evidence}")
            elif comparison.detectable is not None and comparison.detectable > abs(gate.bound):
                smallest = _amount(comparison.detectable, comparison.relative)
                lines.append(f"{gate.text}: these runs cannot detect changes smaller than {smallest}; run more repeats")
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"


def _change(comparison: Comparison) -> str:
    return "–" if comparison.change is None else _signed(comparison.change, comparison.relative)


def _interval(comparison: Comparison) -> str:
    if comparison.low is None or comparison.high is None:
        return "–"
    return " to ".join(_signed(end, comparison.relative) for end in (comparison.low, comparison.high))


def _signed(value: float, relative: bool) -> str:
    return f"{100 * value:+.2f}%" if relative else f"{value:+.4g}"


def _amount(value: float, relative: bool) -> str:
    return f"{100 * value:.2f}%" if relative else f"{value:.4g}"
