"""``harness baseline``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli import options


@click.command(short_help="Keep runs in one file, to compare with later.")
@options.plugins
@click.argument("runs")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@options.results
def baseline(runs: str, file: Path, results: str | None) -> None:
    """Write the records of successful runs into one FILE, to be kept under version control; `harness compare` takes it
    as BASE or NEW.

    RUNS is a results directory, the directory of a run, or the beginning or a part of the ids of runs in the results
    directory. Raw samples are not kept, so that quality is compared over seeds only.

    \b
    Examples:
      harness run --task nlp --backend torch --seed 0,1,2 --repeat 3 --results results/main
      harness baseline results/main baseline.json
      harness compare baseline.json results/branch --fail-on train_samples_per_s:-5%
    """
    from harness.analysis.compare.baseline import save
    from harness.analysis.compare.match import find
    from harness.records.store import results_dir

    kept = save(file, find(runs, results_dir(results), options.catalog))
    click.echo(f"{kept} run{'s' * (kept != 1)} kept in {file}")
