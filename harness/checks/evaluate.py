"""Evaluation of a run's saved weights with another backend. The test scores are compared with the run's scores."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.parity.tolerances import tolerance
from harness.errors import HarnessError, RecordError, UsageError
from harness.execute.child import ChildContext, call_in_child
from harness.execute.exporting import executable_model
from harness.execute.preparation import opened_session, prepare, saved_weights
from harness.execute.variables import child_environment
from harness.plan.weights import check_servable, served_weights
from harness.plugins.catalog import Catalog
from harness.plugins.environments import interpreter
from harness.records import IGNORED, Failure, PluginRef, RunSpec, Success, samples
from harness.records.arrays import read_arrays, write_arrays
from harness.records.recipe import for_inference
from harness.records.store import ARRAYS, WEIGHTS, StoredRun

if TYPE_CHECKING:
    from numpy.typing import NDArray


class EvaluationJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a child process that evaluates a run's weights."""

    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    weights: str
    """Path of the saved weights."""


class BackendScores(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the child process, which saves the test outputs in `ARRAYS`."""

    dataset_digest: str
    device: str
    scores: dict[str, float | None]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Result of an evaluation, as printed by ``harness evaluate --format json``."""

    run: str
    trained_by: str
    evaluated_by: str
    device: str
    trained_scores: dict[str, float | None]
    evaluated_scores: dict[str, float | None]
    error: float
    """Norm-wise relative difference between the test outputs of the two backends."""
    examples: int
    """Number of test examples."""
    same_class: int | None
    """Number of examples for which both backends predict the same class at every labeled position. None for regression.
    """
    agree: bool
    """True if all predicted classes are the same. For regression, True if the outputs differ only by rounding
    errors."""


def evaluate(stored: StoredRun, backend: str, catalog: Catalog, *, device: str, timeout_s: float) -> Evaluation:
    """Evaluate the run's saved weights with `backend`.

    Raises `harness.UsageError` if the run has no saved weights or no stored predictions, `harness.PluginError` if a
    plugin of the run is missing, and `harness.RecordError` if a file is damaged. Raises `harness.HarnessError` if the
    backend fails or if the data differ from the run's data.
    """
    record = stored.record
    weights = stored.path / WEIGHTS
    trained = check_servable(stored)
    if trained.scores.streamed:
        raise UsageError(samples.not_stored(record))
    spec = msgspec.structs.replace(
        record.spec,
        backend=catalog.backend(backend).name,
        device=device,
        recipe=for_inference(record.spec.recipe),
    )
    catalog = catalog.for_run(record.provenance.plugins)
    catalog.metrics_of(spec)
    if catalog.backend(backend).executes:
        spec = msgspec.structs.replace(spec, weights=served_weights(stored, backend, catalog, spec.env))
    elif catalog.network(family := catalog.model(spec.model)[0].name, backend) is None:
        raise UsageError(f"no plugin provides model {family!r} for backend {backend!r}{catalog.hint}")
    with tempfile.TemporaryDirectory(prefix="harness-evaluate-") as name:
        directory = Path(name)
        evaluated = call_in_child(
            predict_test_split,
            EvaluationJob(spec=spec, plugins=catalog.refs_for(spec), weights=str(weights.absolute())),
            timeout_s=timeout_s,
            environment=child_environment(spec),
            interpreter=interpreter(spec.env),
            directory=directory,
            limit_option="--timeout",
        )
        if isinstance(evaluated, Failure):
            raise HarnessError(f"{backend} could not evaluate the run: {evaluated.message}")
        if evaluated.dataset_digest != record.provenance.dataset_digest:
            raise HarnessError(
                f"the data differ from those of run {record.run_id!r}; restore the version of the data that this run "
                "used, or train again"
            )
        outputs = read_arrays(directory / ARRAYS)["test_outputs"]
    return _compared(stored, trained, backend, evaluated, outputs)


def _compared(
    stored: StoredRun, trained: Success, backend: str, evaluated: BackendScores, outputs: NDArray[Any]
) -> Evaluation:
    from harness.measure.distance import relative

    record = stored.record
    arrays = samples.stored(stored)
    if "test_outputs" not in arrays:
        raise RecordError(f"{stored.path / ARRAYS}: {samples.not_stored(record)}")
    before = arrays["test_outputs"]
    error = relative(outputs, before)
    same_class = None
    agree = error <= tolerance("logits", record.spec.precision, trained.model.parameters).value
    if record.provenance.data is not None and record.provenance.data.objective != "regression":
        same = outputs.argmax(axis=-1) == before.argmax(axis=-1)
        if same.ndim == 2:
            same = (same | (arrays["test_targets"] == IGNORED)).all(axis=1)
        same_class = int(same.sum())
        agree = same_class == len(outputs)
    return Evaluation(
        run=record.run_id,
        trained_by=record.spec.backend,
        evaluated_by=backend,
        device=evaluated.device,
        trained_scores=trained.scores.test,
        evaluated_scores=evaluated.scores,
        error=error,
        examples=len(outputs),
        same_class=same_class,
        agree=bool(agree),
    )


def predict_test_split(job: EvaluationJob, context: ChildContext) -> BackendScores:
    """Compute predictions for the test split with the saved weights, and score them."""
    from harness.measure.inference import predict
    from harness.measure.quality.scorer import scorer

    prepared = prepare(job.spec, job.plugins, executable_model)
    data, catalog = prepared.data, prepared.catalog
    with opened_session(prepared, saved_weights(Path(job.weights), prepared)) as session:
        outputs = predict(session, data.test, job.spec.recipe.batch_size, data.info.outputs)
    judge = scorer(data.info, catalog.primary_metric(job.spec).name, catalog.metrics_of(job.spec))
    write_arrays(context.directory / ARRAYS, {"test_outputs": outputs})
    scores = judge.score(data.test.targets, outputs)
    return BackendScores(dataset_digest=data.digest, device=prepared.spec.device, scores=scores)
