"""``harness parity``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import print_json

if TYPE_CHECKING:
    from harness.checks.parity.verdict import ParityVerdict
    from harness.plan.selection import Selection
    from harness.plugins.catalog import Catalog
    from harness.records import RunSpec


@click.command(short_help="Check that backends compute the same thing.")
@options.plugins
@options.selection(
    leave_out=("seed", "split", "repeat"),
    backend="Two or more; the others are compared with the first [every one that can run here].",
)
@click.option("--all", "everything", is_flag=True, help="Every model's default size on its task, all backends here.")
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    metavar="N",
    default=50,
    help="Training steps of the loss curve [50]; the verdict of a shorter check is not kept.",
)
@options.results
@options.timeout("End a backend that takes longer", 1800.0)
@options.formats("text", "markdown", "json")
def parity(
    selection: Selection,
    everything: bool,
    steps: int,
    results: str | None,
    timeout: float,
    format_: str,
) -> None:
    """Check that backends compute the same thing: logits, loss, gradients, one optimizer step, running statistics, a
    training of 50 steps and what it leads to, from the same weights on the same batches.

    Each backend computes in a process of its own, and a float64 reference on the CPU is computed where a backend
    offers it. Verdicts are kept in the results directory, and `harness report` shows them. The exit status is 0 if all
    checks passed, 1 if one did not.

    \b
    Examples:
      harness parity --task nlp --backend torch,tensorflow
      harness parity --task nlp --model bert-base --set recipe.optimizer=sgd --steps 0
      harness parity --all --format markdown
    """
    from pathlib import Path

    from harness.checks.parity.check import check, pairs
    from harness.checks.parity.verdict import STEPS, keep
    from harness.errors import UsageError
    from harness.records.store import results_dir

    if everything and (selection.tasks or selection.datasets or selection.models):
        raise UsageError("--all covers every task and model; leave --task, --dataset and --model out")
    catalog = options.catalog()
    verdicts = []
    for one, other in pairs(_specs(selection, catalog, everything)):
        verdict = check(one, other, catalog, steps=steps, timeout_s=timeout, say=_progress(one))
        verdicts.append(verdict)
        if verdict.key and steps >= STEPS:
            keep(verdict, Path(results_dir(results)))
        if format_ == "text":
            from harness.checks.parity.text import render

            click.echo(render(verdict) + "\n")
    _print(verdicts, format_)
    if not all(verdict.passed for verdict in verdicts):
        raise click.exceptions.Exit(1)


def _specs(selection: Selection, catalog: Catalog, everything: bool) -> Iterator[RunSpec]:
    """Yield the selected specs; or those of every model that a task can train, at its default size."""
    import dataclasses

    from harness.data.checkpoint import locate
    from harness.errors import UsageError
    from harness.plan.expand import expand

    selection = selection.resolved(locate)
    if not everything:
        yield from expand(selection, catalog)
        return
    for name, provided in sorted(catalog.tasks.items()):
        for family, model in sorted(catalog.models.items()):
            if provided.value.produces in model.value.accepts and provided.value.objective in model.value.objectives:
                try:
                    specs = expand(dataclasses.replace(selection, tasks=(name,), models=(family,)), catalog)
                except UsageError as error:
                    click.echo(f"Warning: left out: {name} {family}: {error}", err=True)
                else:
                    yield from specs


def _progress(spec: RunSpec) -> Callable[[str], None]:
    return lambda text: click.echo(f"{spec.task} · {spec.model}: {text}", err=True)


def _print(verdicts: list[ParityVerdict], format_: str) -> None:
    if format_ == "json":
        print_json(verdicts)
    elif format_ == "markdown" or len(verdicts) > 1:
        from harness.checks.parity.text import summary

        click.echo(summary(verdicts))
