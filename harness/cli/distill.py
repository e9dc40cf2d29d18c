"""The command ``harness distill``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import echo, say, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.plan.selection import Selection
    from harness.records import RunSpec


@click.command(short_help="Train a student model with and without a teacher model.")
@options.plugins
@click.option(
    "--teacher", required=True, metavar="RUN", help="Run with saved weights, whose model is used as the teacher."
)
@click.option("--student", required=True, metavar="NAME", help="Model to train, such as bert-tiny.")
@click.option(
    "--temperature",
    type=options.FiniteRange(min=0, min_open=True),
    metavar="T",
    default=2.0,
    show_default=True,
    help="Temperature of the softmax for both the teacher and the student.",
)
@click.option(
    "--alpha",
    type=options.FiniteRange(0, 1, min_open=True),
    metavar="A",
    default=0.5,
    show_default=True,
    help="Weight of the teacher's probabilities in the loss. The weight of the true classes is 1 - A.",
)
@options.selection(
    leave_out=("task", "dataset", "model", "teacher", "weights", "split"),
    own_data=False,
    defaults={"backend": "the backend of the teacher", "seed": "0,1,2"},
)
@click.option("--parity", is_flag=True, help="First check that the backends compute the same results.")
@click.option("--save-weights", is_flag=True, help="Save the trained weights of the students.")
@click.option(
    "--rerun", is_flag=True, help="Execute all runs again, even if they are already in the results directory."
)
@click.option("--quality-only", is_flag=True, help="Measure only the quality, without timing throughput or latency.")
@options.jobs
@options.wait
@options.results
@options.timeout("Maximum duration of a run, in seconds.")
@options.format_
@options.quiet
@click.option("--dry-run", is_flag=True, help="Print the planned runs without executing them.")
def distill(
    teacher: str,
    student: str,
    temperature: float,
    alpha: float,
    selection: Selection,
    parity: bool,
    save_weights: bool,
    rerun: bool,
    quality_only: bool,
    jobs: int,
    wait: bool,
    results: str | None,
    timeout: float,
    format_: str,
    quiet: bool,
    dry_run: bool,
) -> None:
    """Train a student with knowledge distillation (Hinton et al. 2015), and train the same model without the teacher.
    Print the quality and the cost of the teacher and of both students. For each backend, the change in quality is
    compared across seeds, with a paired confidence interval.

    The teacher is a run with saved weights (`harness run --save-weights`). The student uses the same task, dataset and
    splits as the teacher. The teacher's logits for the training examples are computed once and cached. The loss of an
    example is (1 - A) H + A T^2 KL. H is the cross-entropy with the true class. KL is the Kullback-Leibler divergence
    of the student's probabilities from the teacher's probabilities, both at temperature T.

    Runs that are already in the results directory are not executed again. The exit status is 0 if all runs succeeded, 1
    if a run failed, and 2 if the request is invalid and no run is started.

    \b
    Examples:
      harness run --task nlp --model bert-mini --backend torch --save-weights
      harness distill --teacher bert-mini-torch-s0 --student bert-tiny
      harness distill --teacher bert-mini --student lstm --backend torch,tensorflow --seed 0,1,2,3,4
      harness distill --teacher bert-mini --student lstm --temperature 4 --alpha 0.9
    """
    from harness.analysis.distillation import summarize
    from harness.cli.progress import carry_out
    from harness.data.checkpoint import locate
    from harness.plan.distillation import student_selections
    from harness.plan.expand import expand_all
    from harness.records import Failure
    from harness.records.store import Store, StoredRun, results_dir
    from harness.report.distillation import render
    from harness.report.progress import planned_notes, planned_warnings

    catalog, store = options.catalog(), Store(results_dir(results))
    found = store.find_trained(teacher)
    selections = student_selections(found, student, selection, catalog, alpha=alpha, temperature=temperature)
    specs = expand_all([each.resolved(locate, store.find_trained) for each in selections], catalog, jobs=jobs)
    _check_one_setting(specs, selection)
    for line in [] if quiet else planned_notes(specs):
        say(line)
    if dry_run:
        from harness.api.checked_settings import checked_settings
        from harness.report.dry_run import plan_text

        checked_settings(specs, catalog, parity=parity, timeout_s=timeout, rerun=rerun, jobs=jobs)
        planned = plan_text(specs, catalog, store, rerun=rerun, jobs=jobs, quality_only=quality_only)
        for line in planned.notes:
            say(line)
        echo(planned.text)
        return
    finished = carry_out(
        specs,
        catalog,
        store,
        quiet=quiet,
        warned=planned_warnings(specs),
        timeout_s=timeout,
        parity=parity,
        save_weights=save_weights,
        rerun=rerun,
        jobs=jobs,
        quality_only=quality_only,
        wait=wait,
        command=click.get_current_context().meta.get("harness.arguments", ()),
    )
    students = [StoredRun(store.path / record.run_id, record) for record in finished]
    for record in finished:
        if isinstance(record.outcome, Failure):
            say(f"{record.spec.title}: failed: {record.outcome.kind}: {record.outcome.message}")
    show(summarize(found, students, catalog), format_, render)
    if any(isinstance(record.outcome, Failure) for record in finished):
        raise click.exceptions.Exit(1)


def _check_one_setting(specs: Sequence[RunSpec], selection: Selection) -> None:
    """Raise `harness.UsageError` if the students of a backend differ in anything other than the seed and the
    teacher.
    """
    from harness.errors import UsageError

    settings: dict[tuple[str, bool], set[str]] = {}
    for spec in specs:
        settings.setdefault((spec.backend, spec.teacher is None), set()).add(spec.group_key)
    if any(len(keys) > 1 for keys in settings.values()):
        several = ", ".join(selection.several()) or "each option"
        raise UsageError(
            f"harness distill trains one student for each backend; pass a single value to {several}, or train several "
            "students with `harness run --teacher RUN`"
        )
