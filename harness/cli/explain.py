"""The command ``harness explain``."""

from __future__ import annotations

from typing import Any

import click

from harness.cli import options
from harness.cli.output import say, show

PERMUTATION, GRADIENTS = "permutation", "integrated-gradients"
_OF_METHOD = {
    PERMUTATION: ("split", "metric", "repeats", "seed", "together"),
    GRADIENTS: ("examples", "class_", "steps"),
}
"""Options that only one method uses."""


@click.command(short_help="Explain the predictions of a trained model.")
@options.plugins
@click.argument("run")
@click.option(
    "--method",
    type=click.Choice([PERMUTATION, GRADIENTS]),
    help=options.with_default("Method of the explanation.", f"{PERMUTATION} for tables, else {GRADIENTS}"),
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    default="test",
    help="permutation: split on which the importance is computed.",
)
@click.option(
    "--metric",
    metavar="NAME",
    help=options.with_default("permutation: metric whose decrease is measured.", "the primary metric of the run"),
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 1000),
    default=10,
    metavar="N",
    help="permutation: number of permutations of each column.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, metavar="N", help="permutation: seed of the permutations."
)
@click.option(
    "--together",
    multiple=True,
    metavar="NAME,NAME",
    help="permutation: columns to permute together, such as correlated columns. Can be repeated.",
)
@options.names(
    "--examples",
    "integrated-gradients: test examples to explain, as listed in the first column of `harness predictions`.",
)
@click.option(
    "--class",
    "class_",
    metavar="NAME",
    help=options.with_default("integrated-gradients: class whose output is attributed.", "the predicted class"),
)
@click.option(
    "--steps",
    type=click.IntRange(2, 10_000),
    default=50,
    metavar="N",
    help="integrated-gradients: number of steps of the numerical integration.",
)
@options.computed_by()
@options.format_
@options.timeout("Time limit for the explanation, in seconds.")
@options.results
@click.pass_context
def explain(
    context: click.Context,
    run: str,
    method: str | None,
    split: Any,
    metric: str | None,
    repeats: int,
    seed: int,
    together: tuple[str, ...],
    examples: tuple[str, ...],
    class_: str | None,
    steps: int,
    backend: str | None,
    device: str | None,
    format_: str,
    timeout: float,
    results: str | None,
) -> None:
    """Explain the model of a run with saved weights (`harness run --save-weights`). The result is stored next to the
    run in `explanations/`, and is shown on the page of the run.

    permutation: The importance of a column of a table is the decrease in the score when the values of the column are
    permuted across the examples of a split. The columns are those of the original table.

    integrated-gradients: The model's output for a class is attributed to the tokens or pixels of the example. The
    backend must be torch, with Captum (`pip install 'ml-harness[explain]'`).

    RUN is the id of a run, a unique part of the id, or the path of the run's directory.

    \b
    Examples:
      harness run --task tabular,vision --backend torch --save-weights
      harness explain mlp-torch-s0
      harness explain mlp-torch-s0 --metric roc_auc --repeats 30 --together 'mean radius,mean area'
      harness explain resnet-20-torch-s0 --examples 12,57
    """
    from harness.deploy.attributions import attributions
    from harness.deploy.explanations import save_attributions, save_importance
    from harness.deploy.importance import permutation_importance
    from harness.records.store import Store, results_dir
    from harness.report.explanations import attributions_text, importance_text

    stored = Store(results_dir(results)).find_trained(run)
    catalog = options.catalog()
    if method is None:
        method = PERMUTATION if catalog.task(stored.record.spec.task).kind == "table" else GRADIENTS
    _check_options(context, method)
    computed_by: dict[str, Any] = {"backend": backend, "device": device or "auto", "timeout_s": timeout}
    if method == PERMUTATION:
        columns = [[name.strip() for name in names.split(",")] for names in together]
        settings: dict[str, Any] = {"split": split, "metric": metric, "repeats": repeats, "seed": seed}
        importance = permutation_importance(stored, catalog, together=columns, **settings, **computed_by)
        path = save_importance(stored, importance)
        show(importance, format_, importance_text)
    else:
        found, arrays = attributions(stored, catalog, examples, target=class_, steps=steps, **computed_by)
        path = save_attributions(stored, found, arrays)
        show(found, format_, attributions_text)
    say(f"Saved {path}")


def _check_options(context: click.Context, method: str) -> None:
    """Raise `harness.UsageError` if the user passed an option that only another method uses."""
    from click.core import ParameterSource

    from harness.errors import UsageError

    for other, names in _OF_METHOD.items():
        given = [name for name in names if context.get_parameter_source(name) != ParameterSource.DEFAULT]
        if other != method and given:
            raise UsageError(
                f"--{given[0].strip('_')} applies only to --method {other}; remove it, or change the method"
            )
