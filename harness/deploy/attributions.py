"""Attribution of a trained model's outputs to the inputs of test examples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from harness.deploy.explanations import Arrays, Attribution, Attributions
from harness.deploy.importance import run_data
from harness.deploy.predict import ModelJob, model_job, opened_model
from harness.deploy.predictions import names_of
from harness.errors import BadResultError, CombinationError, HarnessError, PluginError, UnknownNameError, UsageError
from harness.execute.child import ChildContext, call_in_child
from harness.execute.variables import child_environment
from harness.plan.weights import check_servable
from harness.plugins.catalog import Catalog
from harness.plugins.environments import interpreter, missing
from harness.records import IGNORED, DataInfo, Failure, RunSpec, samples
from harness.records.arrays import read_arrays, write_arrays
from harness.records.store import ARRAYS, StoredRun

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.interfaces import PreparedData, Session

INTEGRATED_GRADIENTS = "integrated-gradients"
MOST_POSITIONS = 30
"""Maximum number of positions attributed per example in token classification."""


class AttributionJob(msgspec.Struct, frozen=True, kw_only=True):
    """Job for a child process that computes attributions. The child process saves the arrays in `ARRAYS`."""

    model: ModelJob
    method: str
    examples: dict[str, int]
    """Position of each example in the test split, keyed by row number or path."""
    target: int | None
    """Index of the attributed class or regression target, or None for the predicted class."""
    steps: int


def attributions(
    run: StoredRun,
    catalog: Catalog,
    examples: Sequence[str],
    *,
    target: str | None = None,
    steps: int = 50,
    backend: str | None = None,
    device: str = "auto",
    timeout_s: float = 3600.0,
) -> tuple[Attributions, Arrays]:
    """Compute integrated gradients for examples of a run's test split. Return the attributions and their arrays.

    `examples` are values from the first column of the table written by ``harness predictions``. By default, the output
    of the predicted class is attributed. The network is evaluated in fp32 without compilation, or in fp64 if the run
    used fp64. Raises `harness.UsageError` if the run, an example or a class cannot be used. Raises
    `harness.CombinationError` if the backend does not compute integrated gradients or a package is missing. Raises
    `harness.HarnessError` if the data differ from the run's data or the backend fails.
    """
    check_servable(run)
    record = run.record
    info = record.provenance.data
    if info is None:
        raise UsageError(f"the record of run {record.run_id!r} does not describe its data; repeat the run")
    if catalog.task(record.spec.task).kind == "table":
        raise CombinationError(
            f"run {record.run_id!r} uses a table, but integrated gradients are not supported for tables; use "
            "--method permutation"
        )
    names = names_of(info)
    if target is not None and target not in names:
        raise UnknownNameError("class", target, names)
    positions = positions_of(run, examples)
    model = model_job(run, catalog, info, backend=backend, device=device)
    precision = "fp64" if model.spec.precision == "fp64" else "fp32"
    model = msgspec.structs.replace(model, spec=msgspec.structs.replace(model.spec, precision=precision, compile=False))
    check_backend(model.spec, catalog)
    with tempfile.TemporaryDirectory(prefix="harness-explain-") as scratch:
        found = call_in_child(
            compute,
            AttributionJob(
                model=model,
                method=INTEGRATED_GRADIENTS,
                examples=positions,
                target=None if target is None else names.index(target),
                steps=steps,
            ),
            timeout_s=timeout_s,
            environment=child_environment(model.spec),
            interpreter=interpreter(model.spec.env),
            directory=Path(scratch),
            limit_option="--timeout",
            raise_usage_errors=True,
        )
        if isinstance(found, Failure):
            raise HarnessError(f"computing the integrated gradients of run {record.run_id!r} failed: {found.message}")
        arrays = {name: np.array(array) for name, array in read_arrays(Path(scratch) / ARRAYS).items()}
    return msgspec.structs.replace(found, run=record.run_id), arrays


def positions_of(run: StoredRun, examples: Sequence[str]) -> dict[str, int]:
    """Return the position of each example in the test split, keyed by row number or path.

    Raises `harness.UsageError` if no example is given, an example does not exist, or the predictions were not saved.
    """
    if not examples:
        raise UsageError("integrated gradients require --examples, such as --examples 12,57; see `harness predictions`")
    arrays = samples.stored(run)
    if "test_outputs" not in arrays:
        raise UsageError(samples.not_stored(run.record))
    rows = arrays.get("test_rows", np.arange(1, len(arrays["test_outputs"]) + 1)).tolist()
    known = {str(row): position for position, row in enumerate(rows)}
    for name in examples:
        if name not in known:
            raise UnknownNameError(
                "test example", name, known, hint="(pass values of the first column of `harness predictions`)"
            )
    return {name: known[name] for name in dict.fromkeys(examples)}


def check_backend(spec: RunSpec, catalog: Catalog) -> None:
    """Raise `harness.CombinationError` if the backend of `spec` cannot compute integrated gradients."""
    backend = catalog.backend(spec.backend)
    if INTEGRATED_GRADIENTS not in backend.attributions:
        family = catalog.model(spec.model)[0].name
        others = [
            name
            for name in catalog.backends
            if INTEGRATED_GRADIENTS in catalog.backend(name).attributions and catalog.network(family, name) is not None
        ]
        advice = f"; use --backend {others[0]}" if others else ""
        raise CombinationError(f"backend {spec.backend!r} does not support integrated gradients{advice}")
    reason = missing({**backend.requires, **backend.attributions[INTEGRATED_GRADIENTS]}, spec.env)
    if reason is not None:
        raise CombinationError(f"backend {spec.backend!r} cannot compute integrated gradients: {reason}")


def compute(job: AttributionJob, context: ChildContext) -> Attributions:
    """Compute the attributions of all examples in a child process."""
    found: list[Attribution] = []
    arrays: Arrays = {}
    with opened_model(job.model) as (prepared, session):
        _, data = run_data(job.model, prepared.catalog)
        task = prepared.catalog.task(prepared.spec.task)
        for example, row in job.examples.items():
            inputs = {name: np.ascontiguousarray(array[row : row + 1]) for name, array in data.test.inputs.items()}
            baseline = _checked(task.name, inputs, task.baseline(inputs, data.info))
            tokens = task.tokens(inputs, data.fitted, data.info)
            names = [] if tokens is None else [*tokens[0]]
            pair = inputs, baseline
            for place in _places(session, inputs, data, row, job.target):
                one, values = _attributed(job, session, pair, place, data.info, names)
                number = len(found)
                found.append(msgspec.structs.replace(one, example=example, label=_label(data, row, place)))
                for name, array in values.items():
                    arrays[f"{number}/values/{name}"] = array
                    arrays[f"{number}/inputs/{name}"] = inputs[name][0].astype(np.float32)
    write_arrays(context.directory / ARRAYS, arrays)
    return Attributions(
        run="",
        method=job.method,
        steps=job.steps,
        backend=prepared.spec.backend,
        device=prepared.device.name,
        found=found,
    )


def _checked(task: str, inputs: Arrays, baseline: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return a baseline. Raise `harness.PluginError` if the baseline's arrays differ from the inputs in shape or
    dtype."""
    expected, found = (
        {name: (array.shape, array.dtype) for name, array in arrays.items()} for arrays in (inputs, baseline)
    )
    if expected != found:
        raise PluginError(f"the baseline of the task {task!r} has the arrays {found}; expected {expected}")
    return dict(baseline)


class _Place(msgspec.Struct, frozen=True):
    """An output to attribute."""

    position: int | None
    predicted: int
    target: int


def _outputs(session: Session, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the outputs of one example, ``[outputs]`` or ``[L, outputs]``."""
    with session.inference():
        outputs: NDArray[Any] = session.fetch(session.predict(inputs))[0]
    return outputs


def _places(
    session: Session, inputs: Mapping[str, NDArray[Any]], data: PreparedData, row: int, target: int | None
) -> Iterator[_Place]:
    """Yield the outputs to attribute for an example.

    For classification, yield the output of one class; for regression, yield the output of one target. For token
    classification, one output is attributed at each labeled position where the predicted or true class differs from the
    most frequent class of the training split, such as the tag ``O``.
    """
    outputs = _outputs(session, inputs)
    if data.info.objective != "token_classification":
        predicted = int(outputs.argmax()) if data.info.objective == "classification" else target or 0
        yield _Place(None, predicted, predicted if target is None else target)
        return
    labels, answers = data.test.targets[row], outputs.argmax(axis=-1)
    known = data.train.targets[data.train.targets != IGNORED]
    common = int(np.bincount(known, minlength=data.info.outputs).argmax())
    positions = np.flatnonzero((labels != IGNORED) & ((labels != common) | (answers != common)))
    for position in positions[:MOST_POSITIONS].tolist():
        predicted = int(answers[position])
        yield _Place(position, predicted, predicted if target is None else target)


def _attributed(
    job: AttributionJob,
    session: Session,
    pair: tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]],
    place: _Place,
    info: DataInfo,
    names: Sequence[str],
) -> tuple[Attribution, Arrays]:
    """Return the attribution of an output, and the attributed values of each input. The fields for the example and its
    label are left empty."""
    inputs, baseline = pair
    chosen = place.target if place.position is None else (place.position, place.target)
    found, deltas = session.attributions(job.method, inputs, baseline, np.array([chosen], np.int64), job.steps)
    for name, array in found.items():
        if array.shape != inputs[name].shape or not np.isfinite(array).all():
            raise BadResultError(f"the attributions of the input {name!r} have the wrong shape or are not finite")
    values = {name: np.asarray(array[0], np.float32) for name, array in found.items()}
    output, reference = (_outputs(session, each)[chosen] for each in pair)
    flat = next(iter(values.values())) if len(values) == 1 else np.zeros(0, np.float32)
    shown = names if flat.ndim == 1 and len(names) <= len(flat) else ()
    labels = names_of(info)
    return Attribution(
        example="",
        position=place.position,
        label="",
        predicted=labels[place.predicted],
        target=labels[place.target],
        output=float(output),
        baseline_output=float(reference),
        delta=float(deltas[0]),
        inputs=list(values),
        tokens=list(shown),
        scores=[float(value) for value in flat[: len(shown)]],
    ), values


def _label(data: PreparedData, row: int, place: _Place) -> str:
    names = names_of(data.info)
    if data.info.objective == "regression":
        return names[place.target]
    target = data.test.targets[row]
    return names[int(target if place.position is None else target[place.position])]
