"""The command ``harness baseline``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli import options
from harness.cli.output import counted, echo


@click.command(short_help="Save runs to a file for comparisons with later runs.")
@options.plugins
@click.argument("runs")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@options.results
def baseline(runs: str, file: Path, results: str | None) -> None:
    """Save the records of successful runs to one FILE, which can be kept under version control and passed to `harness
    compare` as BASE or NEW.

    RUNS is a results directory, a run's directory, or a substring of one or more run ids in the results directory. Raw
    samples are not saved, so quality can only be compared across seeds, not across examples.

    \b
    Examples:
      harness run --task nlp --seed 0,1,2 --repeat 3 --results results/main
      harness baseline results/main baseline.json
      harness compare baseline.json results/ --fail-on train_samples_per_s:-5%
    """
    from harness.analysis.compare.baseline import save
    from harness.analysis.compare.match import find
    from harness.records import Failure
    from harness.records.store import results_dir

    chosen = find(runs, results_dir(results), options.catalog, strict=True)
    failed = [run.path.name for run in chosen if isinstance(run.record.outcome, Failure)]
    if failed:
        echo(f"Warning: failed runs are excluded: {', '.join(failed)}", err=True)
    echo(f"Saved {counted(save(file, chosen), 'run')} to {file}")
