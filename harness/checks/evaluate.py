"""A trained model under another backend: its saved weights, scored on the test split, against what the run predicted.

The child's main as well: ``python -m harness.checks.evaluate JOB DIRECTORY FD``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.parity.tolerances import tolerance
from harness.errors import HarnessError, UsageError
from harness.execute.child import run_child
from harness.execute.preparation import choose_device, explain, load_plugins, prepare_data, session_request
from harness.execute.runner import child_environment, explain_end
from harness.plugins.catalog import Catalog
from harness.records import IGNORED, DataInfo, Failure, PluginRef, RunSpec, Success
from harness.records.arrays import read_arrays
from harness.records.store import ARRAYS, WEIGHTS, StoredRun, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RESULT = "result.json"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    spec: RunSpec
    plugins: tuple[PluginRef, ...]
    weights: str
    """Path of the saved weights."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    dataset_digest: str = ""
    device: str = ""
    scores: dict[str, float | None] = {}
    failure: Failure | None = None


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What ``harness evaluate --format json`` prints."""

    run: str
    trained_by: str
    evaluated_by: str
    device: str
    trained_scores: dict[str, float | None]
    evaluated_scores: dict[str, float | None]
    error: float
    """Norm-wise relative difference of all test outputs."""
    examples: int
    same_class: int | None
    """Examples that both put into the same class, or each position that counts; None for regression."""
    agree: bool
    """Every class is the same; for regression, the outputs differ by rounding only."""


def evaluate(stored: StoredRun, backend: str, catalog: Catalog, *, device: str, timeout_s: float) -> Evaluation:
    """Score the run's weights under `backend`.

    Raises `harness.UsageError` for a run without saved weights, `harness.RecordError` for damaged files, and
    `harness.HarnessError` where the backend cannot do it or the data are not those of the run.
    """
    record = stored.record
    weights = stored.path / WEIGHTS
    if isinstance(record.outcome, Success) and not record.outcome.model.parameters:
        raise UsageError(
            f"run {record.run_id!r} has no weights that another backend could take: its model, {record.spec.model!r}, "
            "is fitted at once"
        )
    if not isinstance(record.outcome, Success) or not weights.is_file():
        raise UsageError(
            f"run {record.run_id!r} has no saved weights; train it again with `harness run ... --save-weights`"
        )
    family = catalog.model(record.spec.model)[0].name
    if catalog.network(family, catalog.backend(backend).name) is None:
        raise UsageError(f"no plugin brings model {family!r} to backend {backend!r}")
    spec = msgspec.structs.replace(record.spec, backend=backend, device=device)
    with tempfile.TemporaryDirectory(prefix="harness-evaluate-") as name:
        directory = Path(name)
        job = Job(spec=spec, plugins=catalog.refs_for(spec), weights=str(weights.resolve()))
        write_json(directory / "job.json", job)
        log = directory / "log.txt"
        ended = run_child(
            "harness.checks.evaluate",
            [str(directory / "job.json"), str(directory)],
            log=log,
            timeout_s=timeout_s,
            on_line=lambda line: None,
            environment=child_environment(spec),
        )
        if ended.status or ended.timed_out:
            raise HarnessError(f"{backend} could not evaluate the run: {explain_end(ended, timeout_s, log).message}")
        outcome = msgspec.json.decode((directory / _RESULT).read_bytes(), type=Outcome)
        if outcome.failure is not None:
            raise HarnessError(f"{backend} could not evaluate the run: {outcome.failure.message}")
        if outcome.dataset_digest != record.provenance.dataset_digest:
            raise HarnessError("the data are not those that the run was trained and tested on; were they updated?")
        outputs = read_arrays(directory / ARRAYS)["test_outputs"]
    return _compared(stored, record.outcome, backend, outcome, outputs)


def _compared(stored: StoredRun, trained: Success, backend: str, outcome: Outcome, outputs: NDArray[Any]) -> Evaluation:
    from harness.checks.parity.distance import relative

    record = stored.record
    arrays = read_arrays(stored.path / ARRAYS)
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
        device=outcome.device,
        trained_scores=trained.scores.test,
        evaluated_scores=outcome.scores,
        error=error,
        examples=len(outputs),
        same_class=same_class,
        agree=bool(agree),
    )


def _predict(job: Job) -> tuple[Outcome, NDArray[Any], DataInfo]:
    from harness.execute.weights import check, load
    from harness.measure.inference import predict
    from harness.measure.quality.scorer import scorer

    catalog = load_plugins(job.plugins)
    backend, task = catalog.backend(job.spec.backend), catalog.task(job.spec.task)
    os.environ.update(backend.environment)
    device = choose_device(backend, job.spec)
    data = prepare_data(catalog, job.spec)
    _, _, request = session_request(catalog, job.spec, data, device)
    weights = load(Path(job.weights))
    check(weights, request.parameters)
    session = backend.open(request)
    try:
        session.set_weights(weights)
        outputs = predict(session, data.test, job.spec.recipe.batch_size, data.info.outputs)
    finally:
        session.close()
    judge = scorer(data.info, task.metric, [catalog.metric(name) for name in task.metrics])
    scores = judge.score(data.test.targets, outputs)
    return Outcome(dataset_digest=data.digest, device=device.name, scores=scores), outputs, data.info


def main(job_path: str, directory: str, fd: int) -> None:
    os.set_inheritable(fd, False)
    job = msgspec.json.decode(Path(job_path).read_bytes(), type=Job)
    try:
        outcome, outputs, _ = _predict(job)
    except Exception as error:
        traceback.print_exc()
        kind, message = explain(error, None)
        outcome = Outcome(failure=Failure(kind=kind, message=message))
    else:
        import numpy as np

        np.savez(Path(directory) / ARRAYS, test_outputs=outputs)
    write_json(Path(directory) / _RESULT, outcome)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
