"""The command ``harness audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import show

if TYPE_CHECKING:
    from harness.checks.audit.finding import Finding


CONSISTENT = (
    "An audit shows that a record is consistent, not that it is genuine. Only the first training steps are\n"
    "repeated, and predictions are recomputed only if the weights were saved. Timings cannot be recomputed;\n"
    "run `harness reproduce` to measure them again."
)


@click.command(short_help="Audit a run: check its results against its raw data.")
@options.plugins
@click.argument("run")
@options.format_
@options.timeout("Time limit for repeating the first training steps in a new process, in seconds.")
@options.results
def audit(run: str, format_: str, timeout: float, results: str | None) -> None:
    """Audit a run. The audit recomputes the key, learning curves, speeds, flags, latencies, scores and intervals from
    the spec, the raw samples, the data and the model, and compares the results with the record. The audit also checks
    that training changed the weights, that the trained weights were used for scoring, and that the same predictions
    were timed and scored. Runs with different seeds must differ, and the step timer must agree with wall-clock time.
    The data are then prepared again and the model is rebuilt in a new process. The audit also checks that the data, the
    weights and the model match the record, and that predictions do not depend on the batch. The last lines of the
    output list the fields that an audit cannot check.

    RUN is the id of a run, a unique part of the id, or the path of the run's directory. The findings are saved next to
    the record, in audit.json. Checks that cannot be performed are listed with the reason. The exit status is 1 if a
    check failed.

    \b
    Examples:
      harness run --task nlp --backend torch --save-weights
      harness audit bert-tiny-torch-s0
    """
    from harness.checks.audit.from_record import on_record
    from harness.checks.audit.replay import replay
    from harness.checks.audit.siblings import is_comparable
    from harness.checks.parity.verdict import load as load_verdicts
    from harness.errors import UsageError
    from harness.records import Success, Trial
    from harness.records.store import AUDIT, Store, results_dir, write_json

    stored = Store(results_dir(results)).find(run)
    if not isinstance(stored.record.outcome, Success):
        state = "is a trial of `harness tune`" if isinstance(stored.record.outcome, Trial) else "failed"
        raise UsageError(f"run {stored.record.run_id!r} {state}; only complete, successful runs can be audited")
    catalog = options.catalog().for_run(stored.record.provenance.plugins)
    results_path = stored.path.absolute().parent
    siblings = Store(results_path).load(lambda run: is_comparable(run.setting, stored.record.spec)).runs
    verdicts = load_verdicts(results_path)
    findings = [*on_record(stored, siblings, verdicts, catalog), *replay(stored, catalog, timeout)]
    write_json(stored.path / AUDIT, findings)
    show(findings, format_, lambda findings: f"{stored.record.run_id}\n\n{render(findings)}")
    if any(finding.passed is False for finding in findings):
        raise click.exceptions.Exit(1)


def render(findings: list[Finding]) -> str:
    from tabulate import tabulate

    from harness.checks.audit.fields import UNCHECKABLE

    labels = {True: "ok", False: "FAILED", None: "not checked"}
    rows = [[labels[finding.passed], finding.check, finding.detail] for finding in findings]
    checks = tabulate(rows, headers=["", "check", "detail"], tablefmt="simple", maxcolwidths=[None, 40, 60])
    limits = tabulate(list(UNCHECKABLE.items()), tablefmt="plain", maxcolwidths=[None, 72])
    return f"{checks}\n\nFields that no audit can check completely:\n\n{limits}\n\n{CONSISTENT}"
