"""The command ``harness selftest``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import say, show

if TYPE_CHECKING:
    from harness.checks.selftest import Check
    from harness.checks.side_by_side import SideBySideCheck
    from harness.plan.selection import Selection


@click.command(short_help="Check that measurements on this machine are accurate.")
@options.plugins
@options.jobs
@options.selection(leave_out=("seed", "split", "metric"), repeat="With --jobs: number of rounds, at least 4.")
@options.wait
@options.timeout("With --jobs: maximum duration of each run, in seconds.")
@options.quiet
@options.format_
def selftest(jobs: int, selection: Selection, wait: bool, timeout: float, quiet: bool, format_: str) -> None:
    """Check the accuracy of measurements on this machine, and print the measurement errors. The checks allocate known
    amounts of memory on the host and on every accelerator, and compare the step timer with the wall clock. Memory and
    time are measured in the same way as in a run.

    The exit status is 1 if the memory error exceeds both 1% and 2 MiB, or if the step timer deviates by more than 1 ms
    over half a second.

    With --jobs N, check whether N - 1 other runs slow down a run with the selected settings. Runs are executed
    alternately one at a time and N at a time. The check passes if, for every metric, the confidence interval of the
    change is within 5% (25% for the 99th percentile of the latency). If intervals are too wide, increase the number of
    rounds (--repeat). The result is saved in the cache directory. If the check passed, `harness run --jobs N` can
    measure speed for these settings on this class of machine. The exit status is 1 if the check does not pass.

    \b
    Examples:
      harness selftest
      harness selftest --format json
      harness selftest --jobs 2 --task regression --model mlp --backend torch --threads 1
    """
    passed = _side_by_side(jobs, selection, wait, timeout, quiet, format_) if jobs > 1 else _accuracy(format_)
    if not passed:
        raise click.exceptions.Exit(1)


def _accuracy(format_: str) -> bool:
    from harness.checks.selftest import run

    given = [
        parameter.opts[0]
        for parameter in click.get_current_context().command.params
        if click.get_current_context().get_parameter_source(parameter.name or "")
        == click.core.ParameterSource.COMMANDLINE
        and parameter.name in options.SELECTING
    ]
    if given:
        raise click.UsageError(f"{', '.join(given)} can only be used with --jobs")
    checks = run(options.catalog())
    show(checks, format_, render)
    return all(check.passed for check in checks)


def _side_by_side(jobs: int, selection: Selection, wait: bool, timeout: float, quiet: bool, format_: str) -> bool:
    import dataclasses

    from harness.analysis.compare.side_by_side import figures
    from harness.checks.side_by_side import ROUNDS, check
    from harness.cli.progress import listener
    from harness.data.checkpoint import locate
    from harness.execute.device_lock import measuring_on
    from harness.plan.expand import expand_all

    catalog = options.catalog()
    chosen = dataclasses.replace(selection.resolved(locate), seeds=(0,), repeat=1)
    specs = expand_all([chosen], catalog, jobs=jobs)
    shown = listener(quiet=quiet)
    try:
        with measuring_on([spec.device for spec in specs], wait=wait, say=say):
            rounds = selection.repeat or ROUNDS
            found = check(
                specs, catalog, jobs, figures, rounds=rounds, timeout_s=timeout, listener=shown, say=shown.message
            )
    finally:
        shown.close()
    show(found, format_, render_side_by_side)
    return found.passed


def render_side_by_side(found: SideBySideCheck) -> str:
    from tabulate import tabulate

    from harness.checks.side_by_side import described

    rows = [
        [
            figure.setting,
            ", ".join(map(str, figure.cores)),
            figure.metric,
            f"{figure.alone:.4g}",
            f"{figure.beside:.4g}",
            described(figure),
            f"{figure.margin:.0%}",
            figure.evidence,
            figure.result,
        ]
        for figure in found.figures
    ]
    header = ["setting", "cores", "metric", "alone", "side by side", "change", "margin", "from", ""]
    table = tabulate(rows, headers=header, tablefmt="simple", disable_numparse=True)
    verdict = (
        f"passed: `harness run --jobs {found.jobs}` can measure speed with these settings"
        if found.passed
        else f"not passed: `harness run --jobs {found.jobs}` can measure only the quality with these settings"
    )
    results = {figure.result for figure in found.figures}
    if "undecided" in results and "differs" not in results:
        verdict += (
            "; some intervals are too wide: increase the number of rounds, for example with "
            f"--repeat {2 * found.rounds}"
        )
    return f"{table}\n\n{verdict}"


def render(checks: list[Check]) -> str:
    from tabulate import tabulate

    rows = [
        [
            check.name,
            _amount(check.expected, check.unit),
            _amount(check.measured, check.unit),
            _amount(check.measured - check.expected, check.unit),
            _amount(check.tolerance, check.unit),
            "ok" if check.passed else "WRONG",
            check.note,
        ]
        for check in checks
    ]
    header = ["check", "expected", "measured", "error", "allowed", "", "counter"]
    return tabulate(rows, headers=header, tablefmt="simple", disable_numparse=True)


def _amount(value: float, unit: str) -> str:
    return f"{value / 2**20:.3f} MiB" if unit == "bytes" else f"{value:.6f} {unit}"
