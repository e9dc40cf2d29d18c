"""The command ``harness show``."""

from __future__ import annotations

import click

from harness.cli import options, output


@click.command(short_help="Show the record of a run.")
@click.argument("run")
@options.format_
@options.results
def show(run: str, format_: str, results: str | None) -> None:
    """Show a run's record: settings, quality, speed, latency, memory and environment.

    RUN is the id of a run, a unique part of the id, or the path of the run's directory.

    \b
    Examples:
      harness show bert-tiny-torch-s0
      harness show results/nlp-cldr-langid-bert-tiny-torch-s0-1f2e3d4c-1 --format json
    """
    from harness.records.store import Store, results_dir
    from harness.report.run_text import render

    stored = Store(results_dir(results)).find(run)
    output.show(stored.record, format_, lambda record: render(record, stored.path))
