"""``harness bundle``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli import options
from harness.cli.output import counted


@click.command(short_help="Pack a comparison into one file to publish.")
@options.plugins
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option(
    "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The zip archive."
)
@click.option("--title", default="Benchmark results", show_default=True, help="Title of the report in it.")
@options.results
def bundle(runs: tuple[str, ...], output: Path, title: str, results: str | None) -> None:
    """Put runs into one archive with all that a reader needs to believe and repeat them: records, raw samples, report,
    environment, digests, a suite, and a manifest with the SHA-256 of every file.

    RUN is a run's id, the beginning or a part of ids, the directory of a run, a results directory, or the file of a
    suite; without it every run of the results directory is taken. Failed runs are part of the comparison.

    \b
    Examples:
      harness bundle --results results/reference --output reference.zip
      harness bundle nlp-bert-tiny nlp-lstm --output comparison.zip --title "BERT and LSTM"
      harness reproduce comparison.zip
    """
    from importlib.metadata import version

    from harness.analysis.compare.match import find
    from harness.checks.parity.verdict import load as load_verdicts
    from harness.errors import UsageError
    from harness.records.store import results_dir
    from harness.report.bundle.pack import pack
    from harness.report.report import Report

    place = results_dir(results)
    chosen = {run.path.resolve(): run for text in runs or (str(place),) for run in find(text, place, options.catalog)}
    included = sorted(chosen.values(), key=lambda run: (run.record.started_at, run.record.run_id))
    names = [run.record.run_id for run in included]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two of these runs are named {twice!r}; bundle one results directory at a time")
    verdicts = [v for folder in {run.path.parent for run in included} for v in load_verdicts(folder).values()]
    report = Report(runs=tuple(included), catalog=options.catalog(), verdicts=tuple(verdicts), title=title)
    digest = pack(report, output, version("harness"))
    size = output.stat().st_size / 2**20
    click.echo(f"{output}: {counted(len(included), 'run')}, {size:.1f} MiB\nmanifest SHA-256 {digest}")
