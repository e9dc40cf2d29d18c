"""Checks that repeat parts of a run in a child process.

They recompute the run's data, its initial weights and the predictions of its saved weights, and test whether the
backend caches results.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.checks.audit.finding import Finding
from harness.checks.parity.tolerances import tolerance
from harness.errors import HarnessError
from harness.execute.child import ChildContext, call_in_child
from harness.execute.preparation import fit_at_once, opened_session, prepare, starting_weights
from harness.execute.runner import child_environment
from harness.interfaces import PreparedData, Session
from harness.plugins.catalog import Catalog
from harness.records import PluginRef, RunRecord, Success
from harness.records.arrays import read_arrays
from harness.records.store import ARRAYS, WEIGHTS, StoredRun

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHECKS = (
    "the data match the record",
    "the initial weights follow from the seed",
    "the saved weights reproduce the predictions",
    "no results are cached between batches",
)
FASTER = 1.1
"""Maximum ratio of the time for fresh batches to the time for a repeated batch, as in MLPerf's TEST04."""
PAIRS, WINDOW_S, BATCHES = 12, 0.1, 64
"""Number of timed windows of each kind, approximate duration of a window in seconds, and maximum number of batches in a
window. Windows with fresh batches and windows with a repeated batch alternate."""


class ReplayJob(msgspec.Struct, frozen=True, kw_only=True):
    """The job of a child process that repeats parts of a run."""

    record: RunRecord
    plugins: tuple[PluginRef, ...]
    run: str
    """Path of the run's directory."""


def replay(run: StoredRun, catalog: Catalog, timeout_s: float) -> list[Finding]:
    """Return a finding for each of `CHECKS`. If the child could not perform a check, its finding gives the reason."""
    findings: list[Finding] = []
    try:
        spec = run.record.spec
        failure = call_in_child(
            make_checks,
            ReplayJob(record=run.record, plugins=catalog.refs_for(spec), run=str(run.path.absolute())),
            timeout_s=timeout_s,
            environment=child_environment(spec),
            event_type=Finding,
            on_event=findings.append,
            limit_option="--timeout",
        )
        reason = failure.message if failure else "the child process sent no result"
    except HarnessError as error:
        reason = str(error)
    missing = CHECKS[len(findings) :]
    return [*findings, *(Finding(check=check, passed=None, detail=reason) for check in missing)]


def make_checks(job: ReplayJob, context: ChildContext) -> None:
    """Send the findings in the order of `CHECKS`, each as soon as it is known."""
    for finding in _checks(job):
        context.send(finding)


def _checks(job: ReplayJob) -> Iterator[Finding]:
    """Yield the findings in the order of `CHECKS`."""
    from harness.records.arrays import digest

    record = job.record
    prepared = prepare(record.spec, job.plugins)
    actual, recorded = prepared.data.digest, record.provenance.dataset_digest or ""
    yield Finding(check=CHECKS[0], passed=actual == recorded, detail=_digests(actual, recorded))
    weights, _ = starting_weights(prepared)
    if weights:
        actual, recorded = digest(weights), record.provenance.initial_weights_digest or ""
        yield Finding(check=CHECKS[1], passed=actual == recorded, detail=_digests(actual, recorded))
    else:
        yield Finding(check=CHECKS[1], passed=None, detail="the model has no canonical weights")
    with opened_session(prepared, weights) as session:
        fit_at_once(session, prepared)
        yield _saved(Path(job.run), record, session, prepared.data)
        yield _no_cache(session, prepared.data, record.spec.recipe.batch_size)


def _digests(actual: str, recorded: str) -> str:
    return f"the SHA-256 is {actual[:8]} here and {recorded[:8]} in the record"


def _saved(folder: Path, record: RunRecord, session: Session, data: PreparedData) -> Finding:
    """Compare the saved predictions with new ones from the saved weights, which remain set in the session."""
    from harness.checks.parity.distance import relative
    from harness.execute.weights import load
    from harness.measure.inference import predict
    from harness.records.arrays import digest

    if not (folder / WEIGHTS).is_file():
        return Finding(check=CHECKS[2], passed=None, detail="no weights were saved (harness run --save-weights)")
    if not (folder / ARRAYS).is_file():
        return Finding(check=CHECKS[2], passed=None, detail="the predictions were not saved")
    weights = load(folder / WEIGHTS)
    if digest(weights) != record.provenance.final_weights_digest:
        return Finding(check=CHECKS[2], passed=False, detail="the saved weights are not the trained ones")
    session.set_weights(weights)
    outputs = predict(session, data.test, record.spec.recipe.batch_size, data.info.outputs)
    assert isinstance(record.outcome, Success)
    error = relative(outputs, read_arrays(folder / ARRAYS)["test_outputs"])
    allowed = tolerance("logits", record.spec.precision, record.outcome.model.parameters).value
    detail = f"{len(outputs)} predictions differ by {error:.1e} (allowed {allowed:.0e})"
    return Finding(check=CHECKS[2], passed=bool(error <= allowed), detail=detail)


def _no_cache(session: Session, data: PreparedData, batch_size: int) -> Finding:
    """Compare the time for one repeated batch with the time for new batches drawn from the training split."""
    import numpy as np

    from harness.measure.steady import median_interval

    size = min(batch_size, len(data.test))
    rng = np.random.default_rng(0)

    def draw() -> dict[str, NDArray[Any]]:
        index = np.sort(rng.integers(0, len(data.train), size))
        return {name: np.ascontiguousarray(array[index]) for name, array in data.train.inputs.items()}

    def seconds(batches: list[dict[str, NDArray[Any]]]) -> float:
        start = time.perf_counter()
        for batch in batches:
            session.fetch(session.predict(batch))
        return time.perf_counter() - start

    one = draw()
    seconds([one] * 3)
    count = max(1, min(BATCHES, round(WINDOW_S / max(seconds([one]), 1e-6))))
    ratios = []
    for pair in range(PAIRS):
        fresh = [draw() for _ in range(count)]
        times: dict[str, float] = {}
        kinds = [("repeated", [one] * count), ("fresh", fresh)]
        for kind, batches in kinds if pair % 2 else reversed(kinds):
            times[kind] = seconds(batches)
        ratios.append(times["fresh"] / times["repeated"])
    interval = median_interval(np.array(ratios))
    assert interval is not None
    detail = (
        f"a repeated batch is {float(np.median(ratios)):.2f} times as fast as fresh batches, 95% confidence interval "
        f"{interval[0]:.2f} to {interval[1]:.2f} (allowed {FASTER:g})"
    )
    return Finding(check=CHECKS[3], passed=interval[0] <= FASTER, detail=detail)
