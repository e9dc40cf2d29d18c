"""Export a run's trained model to files for deployment, after comparing their outputs with the run's."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from harness.checks.parity.distance import relative
from harness.checks.parity.tolerances import tolerance
from harness.data.batches import inference_batches
from harness.deploy.card import model_card
from harness.deploy.description import Export, Format
from harness.deploy.predict import stored_preprocessing
from harness.errors import DataError, HarnessError, RecordError, UsageError
from harness.execute.attempt import child_environment
from harness.execute.child import ChildContext, call_in_child
from harness.execute.preparation import opened_session, prepare, saved_weights
from harness.interfaces import Session
from harness.plan.weights import check_servable
from harness.plugins.catalog import Catalog
from harness.plugins.environments import interpreter
from harness.records import IGNORED, Failure, PluginRef, RunSpec, samples
from harness.records.arrays import digest, read_arrays, write_arrays
from harness.records.files import write_new
from harness.records.recipe import for_inference
from harness.records.store import ARRAYS, PREPROCESSING, WEIGHTS, StoredRun, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMATS: tuple[Format, ...] = ("onnx", "torch-export", "savedmodel", "safetensors")
SAFETENSORS, CARD, DESCRIPTION, MODEL = "model.safetensors", "README.md", "export.json", "model"
SAME_LABELS, CLOSE = 0.999, 1e-4
"""Minimum fraction of test examples with the same label, and maximum relative difference between outputs in fp32."""
ODD_BATCHES = (1, 3)
"""Batch sizes, in addition to the run's, for which an export must give the same outputs."""


class ExportJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that exports a model."""

    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    format: Format
    weights: str
    """Path of the saved weights."""
    weights_digest: str
    dataset_digest: str


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the child process, which saves the exported files in `MODEL` and the test outputs in `ARRAYS`."""

    batch_error: float
    """Largest relative difference between the outputs for batches of different sizes."""


def export(run: StoredRun, format_: Format, output: Path, catalog: Catalog, *, timeout_s: float) -> Export:
    """Export a run's model to the new folder `output`, with its preprocessing and a model card.

    The exported files' outputs for the test split are compared with the run's. Raises `harness.UsageError` if the model
    cannot be exported or `output` exists, and `harness.HarnessError` if the export fails or its outputs differ. If an
    error occurs, `output` is not created.
    """
    check_servable(run)
    record, preprocessing = run.record, stored_preprocessing(run)
    backend = catalog.backend(record.spec.backend)
    offered = (*backend.exports, "safetensors")
    if format_ not in offered:
        raise UsageError(
            f"backend {backend.name!r} of run {record.run_id!r} cannot export {format_}; "
            f"it exports: {', '.join(offered)}"
        )
    if output.exists():
        raise UsageError(f"{output} already exists; pass a new folder with --output")
    spec = msgspec.structs.replace(
        record.spec, device="cpu", devices=1, precision="fp32", compile=False, recipe=for_inference(record.spec.recipe)
    )
    own = catalog.for_run(record.provenance.plugins)
    job = ExportJob(
        spec=spec,
        plugins=own.refs_for(spec),
        format=format_,
        weights=str((run.path / WEIGHTS).absolute()),
        weights_digest=record.provenance.final_weights_digest or "",
        dataset_digest=record.provenance.dataset_digest or "",
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".partial-{output.name}-", dir=output.parent))
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror}") from None
    try:
        written = call_in_child(
            write,
            job,
            timeout_s=timeout_s,
            environment=child_environment(spec),
            interpreter=interpreter(spec.env),
            directory=scratch,
            limit_option="--timeout",
        )
        if isinstance(written, Failure):
            raise HarnessError(f"run {record.run_id!r} could not be exported: {written.message}")
        made = _compared(run, format_, scratch, written)
        write_json(scratch / MODEL / PREPROCESSING, preprocessing)
        write_json(scratch / MODEL / DESCRIPTION, made)
        write_new(scratch / MODEL / CARD, model_card(run, made, own).encode())
        (scratch / MODEL).rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return made


def _compared(run: StoredRun, format_: Format, scratch: Path, written: Written) -> Export:
    """Compare an export's outputs with the run's. Raises `harness.HarnessError` if they differ."""
    record, arrays = run.record, samples.stored(run)
    info = record.provenance.data
    if info is None or "test_outputs" not in arrays:
        raise RecordError(f"{run.path / ARRAYS}: the predictions of the run were not saved; train it again")
    before, outputs = arrays["test_outputs"], read_arrays(scratch / ARRAYS)["outputs"]
    error, same_labels = relative(outputs, before), None
    parameters = record.outcome.model.parameters  # type: ignore[union-attr]  # check_servable has checked the outcome
    in_full = record.spec.precision in ("fp32", "fp64")
    allowed = CLOSE if in_full else max(CLOSE, tolerance("logits", record.spec.precision, parameters).value)
    problems = [f"the outputs differ by {error:.1e} (allowed {allowed:.0e})"] if not error <= allowed else []
    if not written.batch_error <= CLOSE:
        problems.append(
            f"the outputs for single examples differ from the outputs for batches by {written.batch_error:.1e}"
        )
    if info.objective != "regression":
        same = outputs.argmax(axis=-1) == before.argmax(axis=-1)
        if same.ndim == 2:
            same = (same | (arrays["test_targets"] == IGNORED)).all(axis=1)
        same_labels = int(same.sum())
        if same_labels < SAME_LABELS * len(same):
            problems.append(f"only {same_labels} of {len(same)} test examples have the same label (99.9% are required)")
    if problems:
        raise HarnessError(
            f"the exported model of run {record.run_id!r} differs from the trained model: {'; '.join(problems)}"
        )
    meaning = {
        "classification": "logits [B, classes]; the softmax gives the probabilities of the labels",
        "token_classification": "logits [B, L, classes], one vector for each position",
        "regression": "standardized targets [B, targets]; multiply by target_scale and add target_mean",
    }
    folder = scratch / MODEL
    return Export(
        run=record.run_id,
        format=format_,
        files=sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
        inputs=msgspec.to_builtins(info.inputs),
        outputs=meaning[info.objective],
        examples=len(outputs),
        same_labels=same_labels,
        error=error,
    )


def write(job: ExportJob, context: ChildContext) -> Written:
    """Write the exported files and compute their outputs for the test split, in a child process."""
    prepared = prepare(job.spec, job.plugins)
    if prepared.data.digest != job.dataset_digest:
        raise DataError("the data differ from those of the run; restore that version of the data, or train again")
    weights = saved_weights(Path(job.weights), prepared)
    if digest(weights) != job.weights_digest:
        raise RecordError(f"{job.weights}: the weights do not match the digest in the record of the run")
    folder = context.directory / MODEL
    folder.mkdir()
    test, size = prepared.data.test, job.spec.recipe.batch_size
    with opened_session(prepared, weights) as session:
        example, _ = next(iter(inference_batches(test, max(2, min(size, 4)))))
        if job.format == "safetensors":
            function = _as_safetensors(session, weights, folder)
        else:
            function = session.export(job.format, folder, example)
        parts = [function(inputs)[:valid] for inputs, valid in inference_batches(test, size)]
        outputs = np.concatenate(parts, dtype=np.float32)
        errors = []
        for count in ODD_BATCHES:
            inputs, valid = next(iter(inference_batches(test, count)))
            errors.append(relative(function(inputs)[:valid], outputs[:valid]))
    write_arrays(context.directory / ARRAYS, {"outputs": outputs})
    return Written(batch_error=max(errors))


def _as_safetensors(
    session: Session, weights: Mapping[str, NDArray[Any]], folder: Path
) -> Callable[[Mapping[str, NDArray[Any]]], NDArray[Any]]:
    from harness.execute.weights import load, save

    save(folder / SAFETENSORS, weights)
    session.set_weights(load(folder / SAFETENSORS))
    return lambda inputs: session.fetch(session.predict(inputs))
