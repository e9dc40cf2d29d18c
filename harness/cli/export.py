"""The command ``harness export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options
from harness.cli.output import echo

if TYPE_CHECKING:
    from harness.records.export import Export


@click.command(short_help="Export a trained model for deployment.")
@options.plugins
@click.argument("run")
@click.option(
    "--format",
    "format_",
    metavar="FORMAT",
    required=True,
    help="Format of the exported files: onnx, torch-export, savedmodel, safetensors, or a format provided by another "
    "plugin.",
)
@click.option("--output", type=click.Path(), required=True, metavar="DIR", help="New folder for the exported files.")
@options.timeout("Maximum duration of the export, in seconds.")
@options.results
def export(run: str, format_: str, output: str, timeout: float, results: str | None) -> None:
    """Export the trained model of a run (`harness run --save-weights`), together with its preprocessing and a model
    card.

    The model is exported by the backend that trained it. torch can export onnx and torch-export, tensorflow can export
    onnx and savedmodel, and every backend can export safetensors. If the backend that trained the model does not
    support the format, the weights are exported by another installed backend. The outputs of the exported files for the
    test split are compared with the outputs of the run. The export fails if fewer than 99.9% of the predicted labels
    agree, or if the outputs differ by more than 1e-4 (relative, in fp32).

    RUN is the id of a run, a unique part of the id, or the path of the run's directory.

    \b
    Examples:
      harness run --task nlp --backend torch --save-weights
      harness export bert-tiny-torch-s0 --format onnx --output model/
    """
    from harness.deploy.export import export as exported
    from harness.records.store import Store, results_dir

    stored = Store(results_dir(results)).find_trained(run)
    made = exported(stored, format_, Path(output), options.catalog(), timeout_s=timeout)
    echo(render(made, output))


def render(made: Export, output: str) -> str:
    lines = [f"Exported {made.run} to {output}: {', '.join(made.files)}"]
    if made.same_labels is not None:
        lines.append(f"{made.same_labels} of {made.examples} test examples have the same predicted label")
    lines.append(f"relative difference between the outputs: {made.error:.1e} (norm-wise)")
    return "\n".join(lines)
