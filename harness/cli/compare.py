"""The command ``harness compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import echo, print_json

if TYPE_CHECKING:
    from harness.analysis.compare.gates import Gate
    from harness.analysis.compare.judge import Compared, Comparison
    from harness.analysis.compare.match import Match
    from harness.records.store import StoredRun


@click.command(short_help="Compare two sets of runs, with confidence intervals.")
@options.plugins
@click.argument("base")
@click.argument("new")
@options.names(
    "--metric",
    "Metric to compare: quality (the task's primary metric) or the name of a metric, such as accuracy, "
    "train_samples_per_s, latency_p50_ms or host_peak_mib.",
    default="the primary metric of the task, speed, latency and memory",
)
@click.option(
    "--fail-on",
    multiple=True,
    metavar="METRIC:BOUND",
    help="Exit with status 1 if the whole confidence interval of the change is beyond this bound, or if "
    "the bound cannot be checked. Examples are train_samples_per_s:-5% and accuracy:-0.01. Can be "
    "repeated.",
)
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Do not fail if a bound cannot be checked for some settings, for example because of missing runs, seeds or "
    "metric values. Each bound must still be checked for at least one setting.",
)
@options.price_per_hour
@options.format_
@options.results
def compare(
    base: str,
    new: str,
    metric: tuple[str, ...],
    fail_on: tuple[str, ...],
    allow_missing: bool,
    price_per_hour: float | None,
    format_: str,
    results: str | None,
) -> None:
    """Compare two sets of runs, metric by metric. Report whether NEW is better or worse than BASE, the change with its
    confidence interval, and the smallest change that could have been detected with these runs.

    Each of BASE and NEW is a results directory, a run's directory, a file written by `harness baseline`, a suite file,
    or a substring of the run ids in the results directory. A suite file stands for its runs in the results directory.
    Runs are matched by all of their settings if possible. The remaining runs are matched by all settings except the
    named environment, then by task, dataset, model, backend, device and precision, and finally by these settings
    without the backend. If BASE and NEW each contain runs of only one configuration, the runs are compared even if the
    two configurations differ.

    To compare speed, latency and memory, BASE and NEW each need at least three runs (`harness run --repeat 3`). Speed,
    latency and energy drift with the machine, so the runs of BASE and NEW must be interleaved (A B B A). The verdict is
    followed by a note if the runs were not interleaved. Quality is compared across seeds or splits if there are at
    least three, and across the examples of one seed otherwise. The exit status is 1 if a bound given with --fail-on is
    violated or cannot be checked, and 0 otherwise.

    \b
    Examples:
      harness compare results/main results/branch
      harness compare nlp-bert-tiny-torch nlp-bert-tiny-tensorflow
      harness compare baseline.json results/ --fail-on train_samples_per_s:-5%
    """

    from harness.analysis.compare.gates import check, not_held, parse
    from harness.analysis.compare.judge import compare_all
    from harness.errors import HarnessError, UnknownNameError, UsageError
    from harness.records.store import results_dir

    gates = parse(fail_on)
    if allow_missing and not gates:
        raise UsageError("--allow-missing requires --fail-on")
    try:
        matches, left, failed_runs = _matched(base, new, results_dir(results))
        compared = compare_all(
            matches,
            options.catalog(),
            metric,
            [gate.metric for gate in gates],
            price_per_hour=price_per_hour,
            warn=lambda text: echo(f"Warning: {text}", err=True),
        )
    except HarnessError as error:
        if not gates or isinstance(error, UnknownNameError):
            raise
        for gate in gates:
            echo(f"Failed: {gate.text}: not checked: {error}", err=True)
        raise click.exceptions.Exit(1) from None
    checked = check(gates, matches, compared, unmatched=left, failed=failed_runs, price_per_hour=price_per_hour)
    failed = not_held(checked, allow_missing=allow_missing)
    if format_ == "json":
        print_json(compared)
    else:
        echo(render(compared))
    for result in checked:
        if result.state != "holds":
            label = "Failed" if result in failed else "Warning"
            state = "not checked: " * (result.state == "not checked")
            parts = filter(None, [label, result.gate.text, result.name, state + result.reason])
            echo(": ".join(parts), err=True)
    for text in (*_wrong_signs(gates, compared), *_too_noisy(gates, compared)):
        echo(f"Warning: {text}", err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _matched(base: str, new: str, directory: Path) -> tuple[list[Match], list[str], list[str]]:
    """Return the matches, the names of the settings that occur only in BASE or only in NEW, and the failed runs of NEW.

    Excluded runs and flagged measurements are listed on stderr. Raises `harness.HarnessError` if no runs match or if a
    record cannot be read.
    """
    from harness.analysis.compare.match import find_each, match
    from harness.errors import UsageError
    from harness.records import Failure

    found = find_each([base, new], directory, options.catalog, strict=True)
    sides = dict(zip(("BASE", "NEW"), found, strict=True))
    failed: dict[str, list[str]] = {}
    for side, runs in sides.items():
        failed[side] = [run.path.name for run in runs if isinstance(run.record.outcome, Failure)]
        if failed[side]:
            echo(f"Warning: {side}: failed runs are excluded: {', '.join(failed[side])}", err=True)
        for text in _flags(runs):
            echo(f"Warning: {side}: {text}", err=True)
    matches, left = match(*sides.values())
    for name in left:
        echo(f"Warning: excluded, because there are no matching runs to compare with: {name}", err=True)
    if not matches:
        which = next((side for side, names in failed.items() if names and len(names) == len(sides[side])), "")
        reason = f"all runs of {which} failed" if which else "compare runs of the same task, dataset and model"
        raise UsageError(f"no successful runs of BASE and NEW match; {reason}")
    return matches, left, failed["NEW"]


def render(compared: Sequence[Compared]) -> str:
    from tabulate import tabulate

    from harness.analysis.compare.gates import shown
    from harness.analysis.metrics import named_with_unit, unranked_note

    parts = []
    for pair in compared:
        header = ["metric", "base", "new", "change", "interval", "detectable", "verdict", "evidence"]
        rows = [
            [
                named_with_unit(comparison.metric, comparison.unit),
                _number(comparison.base),
                _number(comparison.new),
                shown(comparison.change, comparison.relative),
                _interval(comparison),
                "–" if comparison.detectable is None else f"±{_amount(comparison.detectable, comparison.relative)}",
                comparison.verdict if comparison.interleaved else f"{comparison.verdict}, not interleaved",
                comparison.evidence,
            ]
            for comparison in pair.comparisons
        ]
        align = ["left", *["right"] * 5, "left", "left"]
        grid = tabulate(rows, headers=header, tablefmt="simple", colalign=align, disable_numparse=True)
        lines = [f"  {name}: {before} -> {after}" for name, before, after in pair.differences]
        parts.append("\n".join([pair.name, "", grid, *(["", "other differences", *lines] if lines else [])]))
    comparisons = [comparison for pair in compared for comparison in pair.comparisons]
    judged = sum(comparison.low is not None for comparison in comparisons)
    if not judged:
        promise = "No comparison has a confidence interval; the column 'evidence' gives the reason."
    elif all(comparison.interleaved for comparison in comparisons):
        promise = (
            f"The probability of a false difference in any of {judged} comparisons is at most 1% (Bonferroni "
            "correction)."
        )
    else:
        promise = (
            "not interleaved: the runs of BASE and NEW did not alternate (A B B A), so a change in the machine\n"
            "may be mistaken for a difference between them. The interval is wider, but the probability of a false "
            "difference is unknown."
        )
    parts.append(f"{promise}\ndetectable: the smallest change that would have been detected with probability 0.95.")
    unranked = {c.metric for pair in compared for c in pair.comparisons if c.higher_is_better is None}
    if unranked:
        parts.append(unranked_note(sorted(unranked)))
    return "\n\n".join(parts)


def _flags(runs: Sequence[StoredRun]) -> list[str]:
    """Return one line per metric and kind of flag, with the number of flagged runs."""
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


def _wrong_signs(gates: Sequence[Gate], compared: Sequence[Compared]) -> list[str]:
    """Return a warning for each metric with bounds that limit only improvements, because this is rarely intended."""
    better = {c.metric: c.higher_is_better for pair in compared for c in pair.comparisons}
    return [
        f"{gate.text} limits only improvements, because {'higher' if better[gate.metric] else 'lower'} values of "
        f"{gate.metric} are better; write {'-' if gate.bound > 0 else '+'} to limit how much worse they may become"
        for gate in gates
        if better.get(gate.metric) is not None
        and all((one.bound > 0) == better[gate.metric] for one in gates if one.metric == gate.metric)
    ]


def _too_noisy(gates: Sequence[Gate], compared: Sequence[Compared]) -> list[str]:
    """Return a warning for each bound that is smaller than the smallest detectable change."""
    from harness.analysis.compare.gates import bound_on

    lines = []
    for gate in gates:
        for comparison in (c for pair in compared for c in pair.comparisons if c.metric == gate.metric):
            bound = bound_on(gate, comparison)
            if bound is not None and comparison.detectable is not None and comparison.detectable > abs(bound):
                smallest = _amount(comparison.detectable, comparison.relative)
                advice = "run more repeats" if comparison.interleaved else "interleave the runs (A B B A)"
                lines.append(f"{gate.text}: these runs cannot detect changes smaller than {smallest}; {advice}")
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"


def _interval(comparison: Comparison) -> str:
    from harness.analysis.compare.gates import shown

    if comparison.low is None or comparison.high is None:
        return "–"
    return " to ".join(shown(end, comparison.relative) for end in (comparison.low, comparison.high))


def _amount(value: float, relative: bool) -> str:
    return f"{100 * value:.2f}%" if relative else f"{value:.4g}"
