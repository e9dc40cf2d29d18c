"""Predictions of a trained model for new data, using the preprocessing stored with its weights."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from harness.data.prepared import check_inputs
from harness.data.user_files.location import is_metadata
from harness.data.user_files.new_data import NewData, Reader, reader
from harness.data.user_files.tables import Table
from harness.deploy.new_scores import NewScores, new_scores
from harness.deploy.predictions import check_kept, table
from harness.errors import CombinationError, HarnessError, PluginError, RecordError, UsageError
from harness.execute.child import ChildContext, call_in_child
from harness.execute.exporting import executable_model
from harness.execute.preparation import (
    Preparation,
    choose_device,
    load_plugins,
    opened_session,
    preparation_of,
    trained_weights,
)
from harness.execute.variables import child_environment
from harness.interfaces import PreparedData, Session, Split
from harness.plan.exporter import ExportedRun
from harness.plan.weights import check_servable, served_weights, stored_run
from harness.plugins.catalog import Catalog
from harness.plugins.environments import interpreter
from harness.plugins.failures import described_with_place
from harness.records import DataInfo, Failure, PluginRef, Preprocessing, RunSpec
from harness.records.arrays import read_arrays, read_only, write_arrays
from harness.records.preprocessing import PREPROCESSING_VERSION
from harness.records.reading import MAX_JSON_BYTES, decode, is_stored, read_stored
from harness.records.store import ARRAYS, PREPROCESSING, StoredRun

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

INPUTS = "inputs.npz"
TEXT_FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt")
"""Suffixes of files that have an encoding."""


@dataclass(frozen=True)
class Predicted:
    """Predictions for new data."""

    table: pd.DataFrame
    """Predictions as a table; see `harness.deploy.predictions.table`."""
    outputs: NDArray[Any]
    """Outputs of the model, float32: logits ``[N, C]``, or standardized regression targets ``[N, T]``."""
    rows: NDArray[Any]
    """Row number of each example in the new data, counted from 1, or path of its file."""
    positions: NDArray[Any]
    """Position of each example among all rows of the new data, counted from 0."""
    warnings: tuple[str, ...]
    """Warnings about the new data, such as skipped rows."""
    scores: NewScores | None = None
    """Scores, or None if the new data have no labels."""


class ModelJob(msgspec.Struct, frozen=True, kw_only=True):
    """Description of a trained model that a child process opens."""

    spec: RunSpec
    """Specification of a run that uses the trained weights."""
    plugins: tuple[PluginRef, ...]
    info: DataInfo


class PredictJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that computes the outputs for prepared inputs."""

    model: ModelJob
    inputs: str
    """Path of the prepared inputs."""


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the child process, which saves the outputs in `ARRAYS`."""

    device: str


def stored_preprocessing(run: StoredRun) -> Preprocessing:
    """Return the fitted preprocessing of a run.

    Raises `harness.UsageError` if the run has no saved weights or if the preprocessing was not saved with the weights.
    Raises `harness.RecordError` if the preprocessing file is damaged, has a different version or does not match the
    record.
    """
    check_servable(run)
    path = run.path / PREPROCESSING
    if not is_stored(path):
        raise UsageError(
            f"run {run.record.run_id!r} was recorded before the preprocessing was saved with the weights; train it "
            "again with `harness run ... --save-weights`"
        )
    content, origin = read_stored(path, MAX_JSON_BYTES), run.record.provenance
    found = decode(content, Preprocessing, path)
    if found.version != PREPROCESSING_VERSION:
        raise RecordError(
            f"{path}: version {found.version} cannot be read; this version of harness reads only "
            f"version {PREPROCESSING_VERSION}"
        )
    recorded = origin.preprocessing_digest  # None for runs of earlier versions
    if found.info != origin.data or recorded not in (None, hashlib.sha256(content).hexdigest()):
        raise RecordError(
            f"{path}: the file has changed since run {run.record.run_id!r} was recorded; restore it, or repeat the run"
        )
    return found


def predict(
    trained: StoredRun | ExportedRun,
    source: Path | Table,
    catalog: Catalog,
    *,
    backend: str | None = None,
    device: str = "auto",
    on_bad_row: Literal["error", "skip"] | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    keep: Sequence[str] = (),
    timeout_s: float = 3600.0,
) -> Predicted:
    """Predict new data with the trained model of a run, or with an exported model.

    `source` is read in the same way as the run's training data. The preprocessing that was fitted to the training data
    is applied. Labels are optional; predictions for examples with labels are scored. By default, the run's `backend`
    and `device` are used. For an exported model, the default is the first backend that executes its format. By default,
    `on_bad_row`, `encoding` and `separator` have the same values as for the training data. The data columns listed in
    `keep` are added to the table.

    Raises `harness.UsageError` if the run cannot be used, `harness.DataError` if the data are invalid, and
    `harness.HarnessError` if the backend fails.
    """
    run = stored_run(trained)
    preprocessing = stored_preprocessing(run)
    model = model_job(trained, catalog, preprocessing.info, backend=backend, device=device)
    catalog = catalog.for_run(run.record.provenance.plugins)
    new = read_new(preprocessing, source, on_bad_row, keep, encoding, separator)
    check_kept(preprocessing.info, new)
    prepared = transformed(preprocessing, new.inputs, catalog)
    with tempfile.TemporaryDirectory(prefix="harness-predict-") as scratch:
        directory = Path(scratch)
        write_arrays(directory / INPUTS, prepared)
        answered = call_in_child(
            answer,
            PredictJob(model=model, inputs=str(directory / INPUTS)),
            timeout_s=timeout_s,
            environment=child_environment(model.spec),
            interpreter=interpreter(model.spec.env),
            directory=directory,
            limit_option="--timeout",
        )
        if isinstance(answered, Failure):
            raise HarnessError(f"backend {model.spec.backend} could not compute the predictions: {answered.message}")
        outputs = read_arrays(directory / ARRAYS)["outputs"]
    frame = table(preprocessing.info, outputs, new.rows, labels=new.labels, numbers=new.numbers, kept=new.kept)
    scores = new_scores(new, outputs, preprocessing.info, model.spec, catalog)
    return Predicted(
        frame, outputs, new.rows, new.positions, (*new.warnings, *(scores.warnings if scores else ())), scores
    )


def model_job(
    source: StoredRun | ExportedRun,
    catalog: Catalog,
    info: DataInfo,
    *,
    backend: str | None = None,
    device: str = "auto",
) -> ModelJob:
    """Return a job that opens the trained model of a run, or an exported model, for inference.

    By default, the run's backend is used. For an exported model, the default is the first backend that can execute its
    format. By default, `device` is the run's device. Raises `harness.UsageError` if the run's weights cannot be used,
    and `harness.CombinationError` if the backend has no network for the model or cannot execute the exported model.
    """
    run = stored_run(source)
    check_servable(run)
    record = run.record
    if backend is None and isinstance(source, ExportedRun):
        backend = _executing(source, catalog)
    name = record.spec.backend if backend is None else catalog.backend(backend).name
    catalog = catalog.for_run(record.provenance.plugins)
    spec = msgspec.structs.replace(
        record.spec,
        backend=name,
        device=record.spec.device if backend is None else device,
        devices=1,
        weights=served_weights(source, name, catalog, record.spec.env),
    )
    if device != "auto":
        spec = msgspec.structs.replace(spec, device=device)
    return ModelJob(spec=spec, plugins=catalog.refs_for(spec), info=info)


def _executing(source: ExportedRun, catalog: Catalog) -> str:
    """Return the first backend that can execute models exported in the format of `source`."""
    names = [name for name in catalog.backends if catalog.backend(name).executes == source.export.format]
    if not names:
        raise CombinationError(
            f"{source.folder} contains a model exported as {source.export.format}, which no backend can execute; pass "
            f"run {source.export.run} instead"
        )
    return names[0]


def read_new(
    preprocessing: Preprocessing,
    source: Path | Table,
    on_bad_row: Literal["error", "skip"] | None = None,
    keep: Sequence[str] = (),
    encoding: str | None = None,
    separator: str | None = None,
) -> NewData:
    """Return the raw inputs in `source`, which is read like the training data.

    Raises `harness.UsageError` if `encoding` or `separator` does not apply to the source.
    """
    name = source.source if isinstance(source, Table) else str(source)
    if separator is not None and _file_suffix(source) != ".csv":
        raise UsageError(f"{name}: only CSV files have a separator; remove --separator")
    if encoding is not None and _file_suffix(source) not in TEXT_FILES:
        raise UsageError(f"{name}: only text files have an encoding; remove --encoding")
    return reader_of(preprocessing, on_bad_row, encoding, separator).read(source, keep)


def _file_suffix(source: Path | Table) -> str:
    """Return the suffix of the file from which the rows are read, or an empty string."""
    if isinstance(source, Table):
        return ""
    files = [path for path in source.iterdir() if is_metadata(path)] if source.is_dir() else [source]
    return files[0].suffix.lower() if len(files) == 1 else ""


def reader_of(
    preprocessing: Preprocessing,
    on_bad_row: Literal["error", "skip"] | None = None,
    encoding: str | None = None,
    separator: str | None = None,
) -> Reader:
    """Return the reader for new data; see `harness.data.user_files.new_data.reader`.

    Raises `harness.UsageError` if the encoding is unknown or the separator is not a single
    character.
    """
    changed = {"on_bad_row": on_bad_row, "encoding": encoding, "separator": separator}
    options = preprocessing.dataset_options | {name: value for name, value in changed.items() if value is not None}
    info = preprocessing.info
    try:
        return reader(preprocessing.input_kind, info.objective, info.label_names, options, preprocessing.reading)
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from None


def transformed(
    preprocessing: Preprocessing, raw: Mapping[str, NDArray[Any]], catalog: Catalog
) -> dict[str, NDArray[Any]]:
    """Return the prepared inputs for the raw inputs of new data.

    Raises `harness.PluginError` if the task fails or returns inputs with unexpected names, shapes or dtypes.
    """
    task, info = catalog.task(preprocessing.task), preprocessing.info
    inputs = {name: read_only(array) for name, array in raw.items()}
    options = msgspec.convert(preprocessing.task_options, task.Options)
    try:
        prepared = task.transform(inputs, {}, preprocessing.fitted, info, options)
    except (HarnessError, MemoryError):
        raise
    except Exception as error:
        raise PluginError(
            f"the task {task.name!r} failed to prepare the data: {described_with_place(error)}"
        ) from error
    check_inputs("new", prepared, len(next(iter(inputs.values()))), info, task.name)
    return prepared


def split_of(inputs: Mapping[str, NDArray[Any]], info: DataInfo) -> Split:
    """Return a split of examples with unknown targets, which are set to zero."""
    count = len(next(iter(inputs.values())))
    regression = info.objective == "regression"
    targets = np.zeros((count, info.outputs), np.float32) if regression else np.zeros(count, np.int64)
    return Split(inputs=inputs, targets=targets)


def blank(info: DataInfo) -> dict[str, NDArray[Any]]:
    """Return the prepared inputs of one example that consists of zeros."""
    return {name: np.zeros((1, *spec.shape), spec.dtype) for name, spec in info.inputs.items()}


def answer(job: PredictJob, context: ChildContext) -> Answered:
    """Compute the outputs for the prepared inputs in a child process."""
    from harness.measure.inference import predict as outputs_of

    info = job.model.info
    with opened_model(job.model) as (prepared, session):
        split = split_of(read_arrays(Path(job.inputs)), info)
        outputs = outputs_of(session, split, job.model.spec.recipe.batch_size, info.outputs)
    write_arrays(context.directory / ARRAYS, {"outputs": outputs})
    return Answered(device=prepared.device.name)


@contextmanager
def opened_model(job: ModelJob) -> Iterator[tuple[Preparation, Session]]:
    """Open a session with a trained model in a child process. The prepared data contain only blank examples."""
    import os

    catalog = load_plugins(job.plugins)
    backend = catalog.backend(job.spec.backend)
    os.environ.update(backend.environment)
    device = choose_device(backend, job.spec)
    spec = msgspec.structs.replace(job.spec, device=device.name)
    split = split_of(blank(job.info), job.info)
    data = PreparedData(train=split, validation=split, test=split, info=job.info)
    prepared = preparation_of(spec, catalog, device, data, executable_model)
    assert job.spec.weights is not None
    with opened_session(prepared, trained_weights(prepared, job.spec.weights)) as session:
        yield prepared, session
