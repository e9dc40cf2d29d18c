"""The commands ``harness predictions`` and ``harness predict``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.cli import options
from harness.cli.output import counted, echo_data, say

if TYPE_CHECKING:
    import pandas as pd

F = TypeVar("F", bound=Callable[..., Any])

output = click.option(
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help=options.with_default("File to write the table to.", "stdout; required for Parquet"),
)


@click.command(short_help="Export the predictions of runs for their test splits.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--all-splits",
    is_flag=True,
    help="Include the runs of the other folds or splits that have the same settings and seed as RUN.",
)
@options.formats("csv", "parquet")
@output
@options.results
def predictions(runs: tuple[str, ...], all_splits: bool, format_: str, output: str | None, results: str | None) -> None:
    """Write a run's predictions for its test split as a table with one row per example.

    The first column is `path` for files and `row` otherwise. A row number is the position of the row in your file
    (counted from 1) or, for other datasets, in the test split. For classification, the other columns are `label`,
    `predicted` and the probability of each class. For regression, the other columns are the true and the predicted
    value of each target, in the target's unit.

    The predictions of several runs, which may differ only in the split and the seed, are combined into one table with
    the additional columns `split` and `seed`. Across all folds of a cross-validation, each example is predicted by a
    model that was not trained on it.

    RUN is the id of a run, a unique part of the id, or the path of the run's directory.

    \b
    Examples:
      harness predictions bert-tiny-torch-s0
      harness predictions bert-tiny-torch-s0 --format parquet --output predictions.parquet
      harness predictions tabular-churn-csv-mlp-torch-s0-1a2b3c4d-1 --all-splits --output out_of_fold.csv
    """
    from harness.deploy.predictions import combined_predictions, stored_predictions, with_other_splits
    from harness.errors import UsageError
    from harness.records.store import Store, results_dir

    _check_output(format_, output)
    store = Store(results_dir(results))
    found = [store.find(run) for run in dict.fromkeys(runs)]
    if all_splits:
        if len(found) > 1:
            raise UsageError("--all-splits adds the runs of the other splits; pass only one run")
        found = with_other_splits(found[0], store.load(lambda run: run.setting.task == found[0].record.spec.task).runs)
    single = len(found) == 1 and not all_splits
    write_table(stored_predictions(found[0]) if single else combined_predictions(found), format_, output)


@click.command(short_help="Compute predictions for new data with a trained model.")
@options.plugins
@click.argument("run")
@click.argument("data", type=click.Path(), metavar="DATA")
@options.computed_by()
@click.option(
    "--on-bad-row",
    type=click.Choice(["error", "skip"]),
    help=options.with_default("How to handle invalid rows: error lists them, skip drops them.", "as in training"),
)
@click.option(
    "--encoding",
    metavar="NAME",
    help=options.with_default("Encoding of a text file, such as windows-1252 or utf-8.", "as in training"),
)
@click.option(
    "--separator",
    metavar="CHARACTER",
    help=options.with_default("Character that separates the cells of a CSV file, such as ';'.", "as in training"),
)
@options.names("--keep", "Columns of DATA to add to the table, such as identifiers.")
@options.formats("csv", "parquet")
@output
@options.timeout("Time limit for the predictions, in seconds.")
@options.results
def predict(
    run: str,
    data: str,
    backend: str | None,
    device: str | None,
    on_bad_row: Any,
    encoding: str | None,
    separator: str | None,
    keep: tuple[str, ...],
    format_: str,
    output: str | None,
    timeout: float,
    results: str | None,
) -> None:
    """Compute predictions for new data with a run's weights and preprocessing (`harness run --save-weights`), and write
    the predictions as a table with one row per example; see `harness predictions`.

    DATA can be a CSV, TSV, JSONL, JSON or Parquet file with the columns of the training data, or a text file (.txt)
    with one text per line. DATA can also be an image, a recording, or a folder of images or recordings. Labels are not
    required. If the data contain the target column, the table includes it, and the scores of the predictions are
    printed to stderr.

    RUN is the id of a run, a unique part of the id, the path of the run's directory, or a folder written by `harness
    export`. The run from which the folder was exported must be in the results directory.

    \b
    Examples:
      harness run --task nlp --dataset reviews.csv --backend torch --save-weights
      harness predict bert-tiny-torch-s0 new_reviews.csv
      harness predict bert-tiny-torch-s0 new_reviews.csv --keep review_id
      harness predict bert-tiny-torch-s0 new_reviews.csv --backend tensorflow --output predictions.csv
    """
    from harness.deploy.new_scores import described
    from harness.deploy.predict import predict as predicted
    from harness.plan.exporter import accepting_exports
    from harness.records.store import Store, results_dir

    _check_output(format_, output, Path(data))
    stored = accepting_exports(Store(results_dir(results)).find_trained)(run)
    found = predicted(
        stored,
        Path(data),
        options.catalog(),
        backend=backend,
        device=device or "auto",
        on_bad_row=on_bad_row,
        encoding=encoding,
        separator=separator,
        keep=keep,
        timeout_s=timeout,
    )
    for warning in found.warnings:
        say(f"warning: {warning}")
    if found.scores is not None and found.scores.values:
        say(described(found.scores))
    write_table(found.table, format_, output)


def _check_output(format_: str, output: str | None, data: Path | None = None) -> None:
    """Raise `harness.UsageError` if the table cannot be written, or if it would replace the file `data`."""
    from harness.errors import UsageError

    if output is not None:
        folder = Path(output).parent
        if not folder.is_dir():
            raise UsageError(f"--output {output}: there is no folder {str(folder)!r}; create it, or change the path")
        if data is not None and data.exists() and Path(output).exists() and data.samefile(output):
            raise UsageError(f"--output {output} would replace the data; write the predictions to another file")
    if format_ == "parquet":
        from importlib.util import find_spec

        if output is None:
            raise UsageError("--format parquet requires --output FILE")
        if find_spec("pyarrow") is None:
            raise UsageError("Parquet requires pyarrow, which is not installed; run: pip install 'ml-harness[parquet]'")


def write_table(table: pd.DataFrame, format_: str, output: str | None) -> None:
    from harness.records.files import write_whole
    from harness.report.csv_json import no_formula

    if format_ == "parquet":
        content = table.to_parquet(index=False)
    else:
        shown = table.copy()
        for name in shown.columns[[dtype.kind not in "iuf" for dtype in shown.dtypes]]:
            shown[name] = [None if cell is None else _safe(cell, no_formula) for cell in shown[name].tolist()]
        shown.columns = [no_formula(name) for name in shown.columns]
        content = shown.to_csv(index=False, lineterminator="\n").encode()
    if output is None:
        echo_data(content.decode(), nl=False)
        return
    write_whole(Path(output), content)
    say(f"Wrote {counted(len(table), 'row')} to {output}")


def _safe(text: str, no_formula: Callable[[str], str]) -> str:
    """Return a cell that no spreadsheet interprets as a formula. Numbers, such as the label -1, are not changed."""
    try:
        float(text)
    except ValueError:
        return no_formula(text)
    return text
