"""The command ``harness status``."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.cli.output import counted, echo, say

if TYPE_CHECKING:
    from harness.execute.plans import Progress
    from harness.execute.submissions import Access, Submission
    from harness.plugins.catalog import Catalog
    from harness.records.store import Store


@click.command(cls=options.CommandWithExecutor, short_help="Show the progress of the last plan in a results directory.")
@options.format_
@options.results
@click.option("--cancel", is_flag=True, help="Stop the runs that were submitted with `harness run --detach`.")
@click.option(
    "--executor",
    metavar="NAME",
    help="Executor of the runs, if they were submitted by another user or from another directory. By default, the "
    "executor of such runs is not contacted.",
)
@options.executor_options
def status(
    format_: str, results: str | None, cancel: bool, executor: str | None, executor_option: dict[str, str]
) -> None:
    """Show the progress of the plans in a results directory: the numbers of completed, running, failed and remaining
    runs, and the remaining time.

    Each `harness run` command that executes runs is recorded as a plan. The most recent plan and all running plans are
    shown. The remaining time is estimated from similar runs in the results directory. If a plan was interrupted, the
    command that resumes it is printed.

    Available results of runs that were submitted with `harness run --detach` are first stored in the results directory.

    \b
    Examples:
      harness status
      harness status --results results/nightly --format json
      harness status --cancel
      harness status --results /shared/results --executor ray --ray-address 10.0.0.1:6379
    """
    import msgspec

    from harness.execute.plans import progress
    from harness.execute.submissions import Access
    from harness.records.store import Store, results_dir

    directory = results_dir(results)
    store = Store(directory)
    if executor_option and executor is None:
        raise click.UsageError("--executor-option needs --executor")
    given = None if executor is None else Access(executor=executor, options=executor_option)
    running = _collect_submissions(store, given, cancel=cancel)
    plans, problems = progress(store, running)
    for problem in problems:
        say(f"Warning: {problem}")
    if format_ == "json":
        echo(msgspec.json.format(msgspec.json.encode([_values(each) for each in plans]), indent=1).decode())
    elif plans:
        echo("\n\n".join(map(_text, plans)))
    else:
        echo(
            f"{directory}: no runs were planned in this results directory; start runs with `harness run "
            f"--results {directory}`"
        )


def _collect_submissions(store: Store, given: Access | None, *, cancel: bool) -> dict[str, int]:
    """Store the available results of submissions, or cancel the submissions if `cancel` is true. Return the number of
    runs in progress for each unfinished submission.
    """
    from harness.execute.submissions import submissions

    if not any(not submission.finished for submission in submissions(store)):
        if cancel:
            say("no runs were submitted with --detach")
        return {}
    from harness.errors import BusyError
    from harness.execute.submissions import locked

    catalog = options.loaded(())
    running: dict[str, int] = {}
    try:
        with locked(store):
            for submission in submissions(store):
                if not submission.finished:
                    running |= _collect(submission, catalog, store, given, cancel=cancel)
    except BusyError as error:
        say(f"Warning: {error}")
        return {submission.name: 0 for submission in submissions(store) if not submission.finished}
    return running


def _collect(
    submission: Submission, catalog: Catalog, store: Store, given: Access | None, *, cancel: bool
) -> dict[str, int]:
    """Store the available results of a submission, or cancel it. Return a mapping from the submission's name to the
    number of its runs in progress. The mapping is empty if no runs are left.
    """
    from harness.execute.detached import cancel as end
    from harness.execute.detached import collect
    from harness.execute.runner import Guarded, Listener

    day = _day(submission.submitted_at)
    collected = collect(submission, catalog, store, Guarded(Listener()), given=given, keep=submission.rerun)
    if collected.records:
        say(f"Saved {counted(len(collected.records), 'run')} to {store.path}/")
    if cancel and collected.left:
        problem = end(submission, catalog, store, given)
        say(f"canceled {counted(len(collected.left), 'run')} submitted on {day}")
        if problem:
            say(f"Warning: these runs may continue, because the executor cannot be reached: {problem}")
    elif collected.problem:
        say(f"Warning: the results of the runs submitted on {day} cannot be collected: {collected.problem}")
        return {submission.name: 0}
    elif collected.state is None:
        say(f"Warning: the executor {submission.executor} no longer lists the runs submitted on {day}")
    elif collected.left:
        return {submission.name: len(collected.state.running)}
    return {}


def _state(plan: Progress) -> str:
    if plan.alive:
        return "running"
    return "interrupted" if plan.left else "finished"


def _command(plan: Progress) -> str:
    """Return the command that started a plan, or an empty string if the plan was started from Python."""
    words = plan.plan.command
    if not words:
        return ""
    command = shlex.join(["harness", *words])
    same = plan.plan.directory in ("", str(Path.cwd()))
    return command if same else f"cd {shlex.quote(plan.plan.directory)} && {command}"


def _values(plan: Progress) -> dict[str, Any]:
    return {
        "state": _state(plan),
        "started_at": plan.plan.started_at,
        "host": plan.plan.host,
        "pid": plan.plan.pid,
        "submission": plan.plan.submission,
        "command": _command(plan),
        "skipped": plan.plan.skipped,
        "done": plan.done,
        "failed": plan.failed,
        "running": plan.running,
        "left": len(plan.left) - plan.running,
        "seconds_left": plan.seconds_left,
        "runs_of_unknown_duration": plan.unknown,
    }


def _text(plan: Progress) -> str:
    from harness.report.progress import clock

    process = f" (process {plan.plan.pid} on {plan.plan.host})" if plan.alive else ""
    if plan.alive and plan.plan.submission:
        process = " (detached)"
    lines = [f"plan of {_day(plan.plan.started_at)}: {_state(plan)}{process}"]
    total = counted(plan.plan.skipped + len(plan.plan.runs), "run")
    before = f" ({plan.plan.skipped} of them before this plan)" if plan.plan.skipped else ""
    counts = f"{plan.done + plan.plan.skipped} done{before}, {plan.running} running, {plan.failed} failed"
    lines.append(f"{total}: {counts}, {len(plan.left) - plan.running} remaining")
    if plan.running:
        lines.append(f"running now: {plan.left[0].title}")
    if plan.left:
        rest = f", not including {counted(plan.unknown, 'run')} of unknown duration" if plan.unknown else ""
        known = plan.unknown < len(plan.left)
        lines.append(f"remaining time: about {clock(plan.seconds_left)}{rest}" if known else "remaining time: unknown")
    if not plan.alive and (plan.left or plan.failed):
        reason = "interrupted" if plan.left else f"{counted(plan.failed, 'run')} failed"
        command = _command(plan)
        lines.append(f"{reason}; repeat the {'command' if command else 'call of harness.run'} to continue the plan")
        lines += [f"  {command}"] if command else []
    return "\n".join(lines)


def _day(started_at: str) -> str:
    try:
        return f"{datetime.fromisoformat(started_at).astimezone():%-d %b %Y, %H:%M}"
    except (ValueError, OverflowError):
        return started_at
