"""Export of a run's trained model to files for deployment. The outputs of the exported model are compared with those of
the run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from harness.checks.parity.tolerances import tolerance
from harness.deploy.card import model_card
from harness.deploy.predict import stored_preprocessing
from harness.errors import CombinationError, HarnessError, RecordError, UsageError
from harness.execute.exporting import CLOSE, MODEL, differences, export_in_child, exporter_spec
from harness.plan.exporter import exporter_for
from harness.plan.weights import trained_weights
from harness.plugins.catalog import Catalog
from harness.records import samples
from harness.records.arrays import read_arrays
from harness.records.export import DESCRIPTION, Export
from harness.records.files import write_new
from harness.records.scratch import temporary
from harness.records.store import ARRAYS, PREPROCESSING, StoredRun, indented_json, write_json

CARD = "README.md"
PARTIAL = ".partial-harness-export-"
"""Prefix of the name of the temporary folder in which an export is written. The temporary folder and the output folder
have the same parent."""


def export(run: StoredRun, format_: str, output: Path, catalog: Catalog, *, timeout_s: float) -> Export:
    """Export a run's model, its preprocessing and a model card to the new folder `output`.

    The model is exported by the backend that trained it, or by the first installed backend that supports the format.
    The outputs of the exported files for the test split are compared with the outputs of the run. Raises
    `harness.UsageError` if the model cannot be exported or `output` already exists. Raises `harness.HarnessError` if
    the export fails or its outputs differ. If an error occurs, `output` is not created.
    """
    spec = msgspec.structs.replace(run.record.spec, weights=trained_weights(run))
    preprocessing = stored_preprocessing(run)
    own = catalog.for_run(run.record.provenance.plugins)
    exporter = spec.backend
    if format_ != "safetensors":
        try:
            exporter = exporter_for(format_, own.model(spec.model)[0].name, spec.backend, own, spec.env)
        except CombinationError as error:
            raise UsageError(f"run {run.record.run_id!r}: {error}") from None
    _check_new(output)
    if output.parent.exists() and not output.parent.is_dir():
        raise UsageError(f"{output}: cannot be written, because {output.parent} is not a folder; pass another --output")
    try:
        with temporary(output.parent, PARTIAL) as scratch:
            written = export_in_child(
                exporter_spec(spec, exporter), own, format_, scratch, timeout_s=timeout_s, option="--timeout"
            )
            prepared_by = hashlib.sha256(indented_json(preprocessing)).hexdigest()
            made = msgspec.structs.replace(_compared(run, scratch, written), preprocessing_digest=prepared_by)
            write_json(scratch / MODEL / PREPROCESSING, preprocessing)
            write_json(scratch / MODEL / DESCRIPTION, made)
            write_new(scratch / MODEL / CARD, model_card(run, made, own).encode())
            _check_new(output)
            (scratch / MODEL).rename(output)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror}") from None
    return made


def _check_new(output: Path) -> None:
    if output.exists() or output.is_symlink():
        raise UsageError(f"{output} already exists; pass a new folder with --output")


def _compared(run: StoredRun, scratch: Path, written: Export) -> Export:
    """Return a copy of the description with the differences between the outputs of the exported model and of
    the run. Raises `harness.HarnessError` if the differences are too large.
    """
    record, arrays = run.record, samples.stored(run)
    info = record.provenance.data
    if info is None or "test_outputs" not in arrays:
        raise RecordError(f"{run.path / ARRAYS}: {samples.not_stored(record)}")
    parameters = record.outcome.model.parameters  # type: ignore[union-attr]  # trained_weights has checked the outcome
    in_full = record.spec.precision in ("fp32", "fp64")
    allowed = CLOSE if in_full else max(CLOSE, tolerance("logits", record.spec.precision, parameters).value)
    outputs = read_arrays(scratch / ARRAYS)["outputs"]
    error, same, problems = differences(outputs, arrays["test_outputs"], arrays["test_targets"], info, allowed)
    if problems:
        raise HarnessError(f"the exported model of run {record.run_id!r} differs from the trained model: {problems}")
    return msgspec.structs.replace(written, same_labels=same, error=error)
