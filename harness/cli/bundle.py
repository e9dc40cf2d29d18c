"""The command ``harness bundle``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli import options
from harness.cli.output import counted, echo


@click.command(short_help="Pack a comparison into a single file for publication.")
@options.plugins
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option(
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Path of the zip archive.",
)
@click.option("--title", default="Benchmark results", help="Title of the report in the bundle.")
@options.results
@options.filters("task", "dataset", "model", "backend")
@options.status_and_date
def bundle(
    runs: tuple[str, ...],
    output: Path,
    title: str,
    results: str | None,
    status: tuple[str, ...],
    since: str | None,
    until: str | None,
    **filters: tuple[str, ...],
) -> None:
    """Pack runs into an archive with everything needed to check and reproduce them. The archive contains the records,
    the raw samples, the report, the environment, digests, a suite, and a manifest with the SHA-256 digest of every
    file.

    RUN is a substring of one or more run ids, a run's directory, a results directory, or a suite file. By default, all
    runs in the results directory are packed. Failed runs are included. A run that is present in several results
    directories is packed only once. If different runs have the same id, their repeats are numbered in the order in
    which they started.

    \b
    Examples:
      harness bundle --results results/reference/defaults --output reference.zip
      harness bundle bert-tiny lstm --output comparison.zip
      harness bundle --task nlp --status success --since 2026-11-01 --output nlp.zip
      harness bundle laptop/results server/results --output both.zip
      harness reproduce comparison.zip
    """
    from importlib.metadata import version

    from harness.analysis.compare.match import find
    from harness.api.filters import checked_states, has_status
    from harness.checks.results.merge import combined, newest_verdicts
    from harness.errors import CombinationError
    from harness.plugins.requirements import DISTRIBUTION
    from harness.records.files import real_path
    from harness.records.store import RECORD, results_dir
    from harness.report.bundle.pack import pack
    from harness.report.report import Report
    from harness.tuning.collect import selected

    directory = results_dir(results)
    chosen = {
        real_path(run.path): run for text in runs or (str(directory),) for run in find(text, directory, options.catalog)
    }
    states = checked_states(status)
    chosen = {
        path: run
        for path, run in chosen.items()
        if options.matches(run.record.spec, filters)
        and options.is_within(run.record.started_at, since, until)
        and has_status(run.record, states)
    }
    if not chosen:
        raise CombinationError("no run matches all of these filters; remove some of them")
    included = combined(chosen.values())
    verdicts = newest_verdicts(dict.fromkeys(run.path.parent for run in chosen.values()))
    ids = {run.path: run.record.run_id for run in included}
    folders = [
        path for text in runs or (str(directory),) if (path := Path(text)).is_dir() and not (path / RECORD).exists()
    ]
    studies, problems = selected(ids, folders)
    for problem in problems:
        echo(f"Warning: excluded: {problem}", err=True)
    report = Report(
        runs=tuple(included),
        catalog=options.catalog(),
        verdicts=tuple(verdicts),
        studies=tuple(studies),
        title=title,
    )
    digest = pack(report, output, version(DISTRIBUTION))
    if any(run.record.spec.source for run in included):
        echo(
            "Warning: the bundle contains no data files, but it contains information about the data: the "
            "targets of the test and validation examples, the names of columns and classes, the text of "
            "skipped rows, and file paths; check that you may publish it",
            err=True,
        )
    size = output.stat().st_size / 2**20
    echo(f"{output}: {counted(len(included), 'run')}, {size:.1f} MiB\nmanifest SHA-256 {digest}")
