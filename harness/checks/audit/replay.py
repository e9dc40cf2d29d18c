"""Checks that run parts of a run again, in a child: its data, its initial weights, its saved weights, and whether its
backend remembers what it was asked before.
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
    "the data are those of the record",
    "the initial weights follow from the seed",
    "the saved weights give the predictions",
    "nothing is remembered from batch to batch",
)
FASTER = 1.1
"""How much faster a repeated batch may be than fresh ones: the bound of MLPerf's TEST04."""
PAIRS, WINDOW_S, BATCHES = 12, 0.1, 64
"""Windows of either kind, which take turns; about so long; and as many fresh batches at most in one."""


class ReplayJob(msgspec.Struct, frozen=True, kw_only=True):
    record: RunRecord
    plugins: tuple[PluginRef, ...]
    run: str
    """The run's directory."""


def replay(run: StoredRun, catalog: Catalog, timeout_s: float) -> list[Finding]:
    """Return all of `CHECKS`; those that the child could not make say why."""
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
        )
        why = failure.message if failure else "no result arrived"
    except HarnessError as error:
        why = str(error)
    missing = CHECKS[len(findings) :]
    return [*findings, *(Finding(check=check, passed=None, detail=why) for check in missing)]


def make_checks(job: ReplayJob, context: ChildContext) -> None:
    """Send the findings in the order of `CHECKS`, each once it is known."""
    for finding in _checks(job):
        context.send(finding)


def _checks(job: ReplayJob) -> Iterator[Finding]:
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
        yield _remembered(session, prepared.data, record.spec.recipe.batch_size)


def _digests(actual: str, recorded: str) -> str:
    return f"SHA-256 {actual[:8]}; the record has {recorded[:8]}"


def _saved(folder: Path, record: RunRecord, session: Session, data: PreparedData) -> Finding:
    """Leaves the saved weights in the session, where there are any."""
    from harness.checks.parity.distance import relative
    from harness.execute.weights import load
    from harness.measure.inference import predict
    from harness.records.arrays import digest

    if not (folder / WEIGHTS).is_file():
        return Finding(check=CHECKS[2], passed=None, detail="none were saved (harness run --save-weights)")
    if not (folder / ARRAYS).is_file():
        return Finding(check=CHECKS[2], passed=None, detail="the predictions were not kept")
    weights = load(folder / WEIGHTS)
    if digest(weights) != record.provenance.final_weights_digest:
        return Finding(check=CHECKS[2], passed=False, detail="the saved weights are not those that were trained")
    session.set_weights(weights)
    outputs = predict(session, data.test, record.spec.recipe.batch_size, data.info.outputs)
    assert isinstance(record.outcome, Success)
    error = relative(outputs, read_arrays(folder / ARRAYS)["test_outputs"])
    allowed = tolerance("logits", record.spec.precision, record.outcome.model.parameters).value
    detail = f"{len(outputs)} predictions differ by {error:.1e} (allowed {allowed:.0e})"
    return Finding(check=CHECKS[2], passed=bool(error <= allowed), detail=detail)


def _remembered(session: Session, data: PreparedData, batch_size: int) -> Finding:
    """One batch over and over against batches that never came before, drawn from the training split."""
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
    ends = median_interval(np.array(ratios))
    assert ends is not None
    detail = (
        f"a repeated batch is {float(np.median(ratios)):.2f} times as fast as fresh ones, 95% interval "
        f"{ends[0]:.2f} to {ends[1]:.2f} (allowed {FASTER:g})"
    )
    return Finding(check=CHECKS[3], passed=ends[0] <= FASTER, detail=detail)
