"""The command ``harness parity``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import echo, print_json

if TYPE_CHECKING:
    from harness.checks.parity.verdict import ParityVerdict
    from harness.plan.selection import Selection
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec


@click.command(short_help="Check that backends compute the same results.")
@options.plugins
@options.selection(
    leave_out=("seed", "split", "repeat", "devices", "weights", "metric"),
    backend="Backends to compare (at least two). Each backend is compared with the first one.",
    threads="Number of CPU threads for each backend. Two backends run at the same time if there are enough cores. "
    "The verdict does not depend on the number of threads.",
    defaults={"threads": "half of the available cores, at least 1"},
)
@click.option(
    "--all", "everything", is_flag=True, help="Check every model at its default size on every compatible task."
)
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    metavar="N",
    default=50,
    help="Number of training steps in the loss curve. Verdicts based on fewer than 50 steps are not saved.",
)
@click.option("--strict", is_flag=True, help="Also exit with status 1 if a model is only partly checked.")
@options.results
@options.timeout("Maximum duration of the check of one backend, in seconds.", 1800)
@options.formats("text", "markdown", "json")
def parity(
    selection: Selection,
    everything: bool,
    steps: int,
    strict: bool,
    results: str | None,
    timeout: float,
    format_: str,
) -> None:
    """Check that backends compute the same results from the same weights and batches. The check covers logits, loss,
    gradients, dropout, running statistics, and each of 300 optimizer steps. The loss curve and the predictions of a
    short training run are also checked.

    Each backend runs in a separate process. If a backend supports float64, it also computes a reference on the CPU.
    Verdicts are saved in the results directory and shown by `harness report`. The exit status is 1 if a check failed,
    and 0 otherwise. With --strict, the exit status is also 1 if a model could only be partly checked.

    \b
    Examples:
      harness parity --task nlp --backend torch,tensorflow
      harness parity --task nlp --set recipe.optimizer=sgd --steps 0
      harness parity --all --format markdown
    """
    from pathlib import Path

    from harness.checks.parity.check import check, pairs
    from harness.checks.parity.report import STEPS
    from harness.checks.parity.verdict import keep
    from harness.errors import UsageError
    from harness.records.store import results_dir

    if everything and (selection.tasks or selection.datasets or selection.models):
        raise UsageError("--all selects every task and model; remove --task, --dataset and --model")
    catalog = options.catalog()
    verdicts = []
    for one, other in pairs(_specs(selection, catalog, everything, results)):
        verdict = check(one, other, catalog, steps=steps, timeout_s=timeout, say=_progress(one))
        verdicts.append(verdict)
        if verdict.key and steps >= STEPS:
            keep(verdict, Path(results_dir(results)))
        if format_ == "text":
            from harness.checks.parity.text import render

            echo(render(verdict) + "\n")
    _print(verdicts, format_)
    if not all(verdict.state == "same" or (verdict.passed and not strict) for verdict in verdicts):
        raise click.exceptions.Exit(1)


def _specs(selection: Selection, catalog: Catalog, everything: bool, results: str | None) -> Iterator[RunSpec]:
    """Yield the selected specs. If `everything` is true, yield the specs of every model on every compatible task
    instead. The teacher is looked up in the results directory `results`.
    """
    import dataclasses

    from harness.checks.parity.check import specs_to_check
    from harness.data.checkpoint import locate
    from harness.errors import UsageError
    from harness.plan.expand import suits
    from harness.records.store import Store, results_dir

    selection = selection.resolved(locate, Store(results_dir(results)).find_trained)
    if not everything:
        yield from specs_to_check(selection, catalog)
        return
    for name, provided in sorted(catalog.tasks.items()):
        for family, model in sorted(catalog.models.items()):
            if suits(provided.value, model.value):
                try:
                    chosen = dataclasses.replace(selection, tasks=(name,), models=(family,))
                    specs = specs_to_check(chosen, catalog)
                except UsageError as error:
                    echo(f"Warning: task {name!r} with model {family!r} is excluded: {error}", err=True)
                else:
                    yield from specs


def _progress(spec: RunSpec) -> Callable[[str], None]:
    return lambda text: echo(f"{spec.task} · {spec.model}: {text}", err=True)


def _print(verdicts: list[ParityVerdict], format_: str) -> None:
    if format_ == "json":
        print_json(verdicts)
    elif format_ == "markdown" or len(verdicts) > 1:
        from harness.checks.parity.text import summary

        echo(summary(verdicts))
