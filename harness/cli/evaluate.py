"""The command ``harness evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import show

if TYPE_CHECKING:
    from harness.checks.evaluate import Evaluation


@click.command(short_help="Evaluate a trained model with another backend.")
@options.plugins
@click.argument("run")
@click.option("--backend", required=True, metavar="NAME", help="Backend that evaluates the model.")
@click.option("--device", metavar="NAME", default="auto", help="Device: auto, cpu, cuda or cuda:N.")
@options.format_
@options.timeout("Maximum duration of the evaluation, in seconds.")
@options.results
def evaluate(run: str, backend: str, device: str, format_: str, timeout: float, results: str | None) -> None:
    """Load a run's saved weights (`harness run --save-weights`) into another backend, predict the test split, score the
    predictions, and compare them with the run's predictions.

    RUN is the id of a run, a unique part of the id, or the path of the run's directory. The exit status is 0 if the
    predictions match. For classification, the predicted class of every example must be the same. For regression, the
    outputs may differ only by rounding errors.

    \b
    Examples:
      harness run --task nlp --backend torch --save-weights
      harness evaluate bert-tiny-torch-s0 --backend tensorflow
    """
    from harness.checks.evaluate import evaluate as evaluated
    from harness.records.store import Store, results_dir

    stored = Store(results_dir(results)).find_trained(run)
    evaluation = evaluated(stored, backend, options.catalog(), device=device, timeout_s=timeout)
    show(evaluation, format_, render)
    if not evaluation.agree:
        raise click.exceptions.Exit(1)


def render(evaluation: Evaluation) -> str:
    from tabulate import tabulate

    rows = [
        [name, *("undefined" if v is None else f"{v:.6g}" for v in (value, evaluation.evaluated_scores.get(name)))]
        for name, value in evaluation.trained_scores.items()
    ]
    header = [
        "test",
        f"trained by {evaluation.trained_by}",
        f"evaluated by {evaluation.evaluated_by} on {evaluation.device}",
    ]
    lines = [evaluation.run, tabulate(rows, headers=header, tablefmt="plain", disable_numparse=True)]
    if evaluation.same_class is not None:
        lines.append(f"{evaluation.same_class} of {evaluation.examples} examples have the same predicted class")
    lines.append(f"relative difference between the outputs: {evaluation.error:.1e} (norm-wise)")
    lines.append("the predictions agree" if evaluation.agree else "the predictions DIFFER")
    return "\n".join(lines)
