"""The command ``harness track``."""

from __future__ import annotations

import click

from harness.cli import options
from harness.cli.output import counted, say


@click.command(short_help="Log stored runs to an experiment tracker.")
@options.plugins
@click.argument("runs", nargs=-1, metavar="RUN...")
@click.option("--all", "all_runs", is_flag=True, help="Log all runs in the results directory.")
@options.trackers
@options.results
@options.quiet
def track(runs: tuple[str, ...], all_runs: bool, tracker: tuple[str, ...], results: str | None, quiet: bool) -> None:
    """Log stored runs to one or more experiment trackers, with the same content as `harness run --tracker`.

    RUN is the id of a run, a unique part of its id, or the path of its directory. A run that the tracker has already
    logged is replaced.

    \b
    Examples:
      harness track bert-tiny-torch-s0 --tracker tensorboard
      harness track --all --tracker mlflow:url=http://localhost:5000
      harness track --all --tracker tensorboard:directory=logs --results results/nightly
    """
    from harness.errors import RecordError, UsageError
    from harness.execute.replay import replay
    from harness.plugins.trackers import check, with_trackers
    from harness.records.store import Store, results_dir

    catalog, store = options.catalog(), Store(results_dir(results))
    if not tracker:
        known = ", ".join(sorted(catalog.trackers)) or "none is installed"
        raise UsageError(f"pass --tracker NAME with one of the trackers: {known}")
    check(catalog, tracker, store.path)
    if all_runs == bool(runs):
        raise UsageError("pass the ids of runs, or --all for all runs in the results directory")
    problems: list[str] = []
    if all_runs:
        loaded = store.load()
        chosen, problems = loaded.runs, loaded.problems
        if not chosen and not problems:
            raise UsageError(
                f"the results directory {str(store.path)!r} contains no runs; choose another one with --results DIR"
            )
    else:
        chosen = list({run.path.absolute(): run for run in map(store.find, runs)}.values())
    catalog = with_trackers(catalog, tracker, store.path)
    for problem in problems:
        say(f"Warning: excluded: {problem}")
    for run in chosen:
        replay(run, catalog)
        if not quiet:
            say(f"{run.record.run_id}: logged")
    if problems:
        raise RecordError(f"{counted(len(problems), 'record')} could not be read; the other runs were logged")
