"""The command group ``harness results``."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli import options
from harness.cli.output import counted, echo, say


@click.group(cls=options.SuggestingGroup, short_help="Merge, prune and verify results directories.")
def results() -> None:
    """Merge, prune and verify results directories.

    \b
    Examples:
      harness results merge laptop/results server/results --results all
      harness results prune --keep 3
      harness results verify
    """


@results.command(short_help="Add the runs of other results directories.")
@click.argument("others", nargs=-1, required=True, metavar="DIR...", type=click.Path(path_type=Path))
@options.results
def merge(others: tuple[Path, ...], results: str | None) -> None:
    """Add the runs from each DIR to the results directory, together with their files, parity verdicts and tuning
    studies.

    Runs that are already present are skipped, so a merge can be repeated safely. Repeats of a run are numbered by their
    start times, so the ids of existing runs may change. The order of the directories has no effect. The exit status is
    1 if a run, a verdict or a study could not be merged.

    \b
    Examples:
      harness results merge laptop/results server/results --results all
    """
    from harness.checks.results.merge import merge as merge_into
    from harness.records.store import results_dir
    from harness.tuning.collect import merge_studies

    target = results_dir(results)
    merged = merge_into(target, others)
    studies, problems = merge_studies(target, others, merged.ids)
    merged.problems += problems
    for old, new in merged.renamed.items():
        say(f"{old} is now {new}")
    for problem in merged.problems:
        say(f"Warning: {problem}")
    echo(
        f"{target}: {counted(merged.added, 'run')} added, {merged.present} already present, "
        f"{counted(merged.verdicts, 'parity verdict')} added"
        + (f", {counted(studies, 'tuning study', 'tuning studies')} added" if studies else "")
    )
    if merged.problems:
        raise click.exceptions.Exit(1)


@results.command(short_help="Remove failed and superseded runs.")
@click.option("--failed", is_flag=True, help="Remove all failed runs, even those that were not repeated successfully.")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help=options.with_default("Keep only the newest N successful repeats of each run.", "all"),
)
@options.filters("task", "dataset", "model", "backend")
@click.option("--yes", is_flag=True, help="Remove the runs instead of only listing them.")
@options.results
def prune(failed: bool, keep: int | None, yes: bool, results: str | None, **filters: tuple[str, ...]) -> None:
    """List the runs that are no longer needed. With --yes, remove these runs.

    A failed run is not needed if a later run with the same specification succeeded. With --failed, all other failed
    runs are also listed. With --keep, old repeats are also listed. Training checkpoints are not needed if their run has
    succeeded, or if they are damaged. With --failed, the checkpoints of unfinished runs are also listed.

    \b
    Examples:
      harness results prune
      harness results prune --keep 3 --task nlp --yes
    """
    from harness.checks.results.prune import removable, removable_checkpoints, remove
    from harness.errors import RecordError
    from harness.execute.checkpoints import find
    from harness.records import checkpoint as checkpoints
    from harness.records.store import Store

    store = Store(_existing(results))
    loaded = store.load()
    for problem in loaded.problems:
        say(f"Warning: {problem}")
    found = removable(loaded.runs, failed=failed, keep=keep, selected=lambda spec: options.matches(spec, filters))
    for each in found:
        echo(f"{each.run.record.run_id}: {each.reason}")
        if yes:
            remove(each.run)
    unused = removable_checkpoints(
        find(store), loaded.runs, failed=failed, selected=lambda spec: options.matches(spec, filters)
    )
    for directory, reason in unused:
        echo(f"{directory.relative_to(store.path)}: {reason}")
        if yes:
            try:
                checkpoints.remove(directory)
            except OSError as error:
                raise RecordError(f"{directory}: cannot be removed: {error.strerror}") from None
    count = counted(len(found), "run") + (f" and {counted(len(unused), 'checkpoint')}" if unused else "")
    advice = "; pass --yes to confirm" if found or unused else ""
    echo(f"{store.path}: {count} removed" if yes else f"{store.path}: {count} can be removed{advice}")


@results.command(short_help="Check that the files of all runs are complete and unchanged.")
@options.results
def verify(results: str | None) -> None:
    """Check the files of all runs: records must be valid, and raw samples, weights, environment locks and checkpoints
    must match the recorded digests.

    The exit status is 1 if any problems are found. `harness audit` checks a single run more thoroughly.

    \b
    Examples:
      harness results verify --results results/reference/defaults
    """
    from harness.checks.results.verify import verify as check

    directory = _existing(results)
    runs = problems = 0
    for run, found in check(directory):
        runs += run is not None
        problems += len(found)
        for problem in found:
            echo(problem)
    echo(f"{directory}: {counted(runs, 'run')} checked, {counted(problems, 'problem')} found")
    if problems:
        raise click.exceptions.Exit(1)


def _existing(results: str | None) -> Path:
    """Return the results directory. Raises `harness.UsageError` if the directory does not exist."""
    from harness.errors import UsageError
    from harness.records.store import results_dir

    directory = results_dir(results)
    if not directory.is_dir():
        raise UsageError(f"{directory}: this results directory does not exist; choose another one with --results DIR")
    return directory
