"""The command ``harness compare``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import echo, print_json

if TYPE_CHECKING:
    from harness.analysis.compare.gates import Gate
    from harness.analysis.compare.judge import Compared


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
    or a substring of one or more run ids in the results directory. A suite file refers to the runs of the suite in the
    results directory. Runs are matched by all of their settings if possible. The remaining runs are matched by all
    settings except the named environment, then by task, dataset, model, backend, device and precision, and finally by
    the same settings except the backend. If BASE and NEW each contain runs of only one configuration, the runs are
    compared even if the two configurations differ.

    To compare speed, latency and memory, BASE and NEW each need at least three runs (`harness run --repeat 3`). Speed,
    latency and energy drift with the state of the machine, so the runs of BASE and NEW must be interleaved (A B B A).
    The verdict is followed by a note if the runs were not interleaved. Quality is compared across seeds or splits if
    there are at least three, and across the examples from one seed otherwise. The exit status is 1 if a bound given
    with --fail-on is violated or cannot be checked, and 0 otherwise.

    \b
    Examples:
      harness compare results/main results/branch
      harness compare bert-tiny-torch bert-tiny-tensorflow
      harness compare baseline.json results/ --fail-on train_samples_per_s:-5%
    """

    from harness.analysis.compare.gates import check, not_held, parse
    from harness.analysis.compare.judge import compare_all
    from harness.analysis.compare.match import find_each
    from harness.analysis.compare.sides import match_sides
    from harness.errors import HarnessError, UnknownNameError, UsageError
    from harness.records.store import results_dir
    from harness.report.comparison_text import render

    gates = parse(fail_on)
    if allow_missing and not gates:
        raise UsageError("--allow-missing requires --fail-on")
    try:
        found = find_each([base, new], results_dir(results), options.catalog, strict=True)
        sides = match_sides(*found)
        for text in sides.warnings:
            echo(f"Warning: {text}", err=True)
        sides.check([len(runs) for runs in found])
        compared = compare_all(
            sides.matches,
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
    checked = check(
        gates,
        sides.matches,
        compared,
        unmatched=sides.unmatched,
        failed=sides.failed["NEW"],
        price_per_hour=price_per_hour,
    )
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


def _wrong_signs(gates: Sequence[Gate], compared: Sequence[Compared]) -> list[str]:
    """Return a warning for each metric whose bounds limit only improvements, which is rarely intended."""
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
    from harness.report.comparison_text import amount

    lines = []
    for gate in gates:
        for comparison in (c for pair in compared for c in pair.comparisons if c.metric == gate.metric):
            bound = bound_on(gate, comparison)
            if bound is not None and comparison.detectable is not None and comparison.detectable > abs(bound):
                smallest = amount(comparison.detectable, comparison.relative)
                advice = "run more repeats" if comparison.interleaved else "interleave the runs (A B B A)"
                lines.append(
                    f"{gate.text}: changes smaller than {smallest} cannot be detected with these runs; {advice}"
                )
    return lines
