"""Checks that need the record, its raw samples and the runs beside it only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.checks.audit.finding import Finding
from harness.checks.parity.tolerances import tolerance
from harness.plugins.catalog import Catalog
from harness.records import RunRecord, Success
from harness.records.arrays import read_arrays
from harness.records.samples import inference_windows, train_windows
from harness.records.store import ARRAYS, StoredRun

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

CLOCK_SHARE, CLOCK_S = 0.01, 0.05
"""How far the clocks may be apart: the wall clock is set now and then, by small steps."""
ROUNDING = 1e-9
"""Relative difference that a figure may have from what its samples give: the same numbers in the same order."""


def on_record(run: StoredRun, others: Sequence[StoredRun], catalog: Catalog) -> Iterator[Finding]:
    """The findings on a successful run; `others` are the runs of its results directory."""
    record = run.record
    outcome = record.outcome
    assert isinstance(outcome, Success)
    arrays = read_arrays(run.path / ARRAYS) if (run.path / ARRAYS).exists() else None
    yield _timed_predictions(record, outcome)
    yield _weights(record, outcome)
    yield _clock(record, outcome)
    yield _speed(record, outcome, arrays)
    yield _latency(outcome, arrays)
    yield _scores(record, outcome, arrays, catalog)
    yield from _siblings(run, others)


def _timed_predictions(record: RunRecord, outcome: Success) -> Finding:
    """As MLPerf's TEST01: what was computed while the clock ran is what was scored."""
    check = "timed predictions are the scored ones"
    evidence = outcome.evidence
    if evidence is None:
        return Finding(check=check, passed=None, detail="the record is older than this evidence")
    allowed = tolerance("logits", record.spec.precision, outcome.model.parameters).value
    return Finding(
        check=check,
        passed=evidence.timed_examples > 0 and evidence.timed_error <= allowed,
        detail=f"{evidence.timed_examples} predictions differ by {evidence.timed_error:.1e} (allowed {allowed:.0e})",
    )


def _weights(record: RunRecord, outcome: Success) -> Finding:
    check = "training changed the weights, and these were evaluated"
    initial, final = record.provenance.initial_weights_digest, record.provenance.final_weights_digest
    evaluated = outcome.evidence.evaluated_weights_digest if outcome.evidence else None
    if not outcome.model.parameters:
        return Finding(check=check, passed=None, detail="the model has no canonical weights")
    if not (initial and final and evaluated):
        return Finding(check=check, passed=None, detail="the record lacks a digest")
    shown = f"initial {initial[:8]}, trained {final[:8]}, evaluated {evaluated[:8]}"
    return Finding(check=check, passed=initial != final == evaluated, detail=shown)


def _clock(record: RunRecord, outcome: Success) -> Finding:
    check = "the clock agrees with the wall"
    evidence = outcome.evidence
    if evidence is None:
        return Finding(check=check, passed=None, detail="the record is older than this evidence")
    allowed = CLOCK_S + CLOCK_SHARE * evidence.wall_s
    measured = sum(outcome.phases_s.values())
    agree = abs(evidence.clock_s - evidence.wall_s) <= allowed and measured <= record.wall_s + allowed
    detail = (
        f"{evidence.clock_s:.2f} s by the clock that times steps, {evidence.wall_s:.2f} s by the wall clock; "
        f"phases {measured:.2f} s of {record.wall_s:.2f} s that the parent saw"
    )
    return Finding(check=check, passed=agree, detail=detail)


def _speed(record: RunRecord, outcome: Success, arrays: Arrays | None) -> Finding:
    check = "throughputs follow from the windows"
    trained = None if arrays is None else train_windows(record, arrays)
    timed = None if arrays is None else inference_windows(record, arrays)
    if trained is None or timed is None:
        return Finding(check=check, passed=None, detail="the windows were not kept")
    import numpy as np

    wrong = []
    for name, told, windows in (
        ("training", outcome.speed.train_samples_per_s, trained),
        ("inference", outcome.speed.inference_samples_per_s, timed),
    ):
        found = float(np.median(windows.samples_per_s[windows.steady_from :]))
        if not _same(told, found):
            wrong.append(f"{name}: {told} in the record, {found} from the windows")
    counts = f"{len(trained.seconds)} windows of training, {len(timed.seconds)} of inference"
    return Finding(check=check, passed=not wrong, detail="; ".join(wrong) or counts)


def _latency(outcome: Success, arrays: Arrays | None) -> Finding:
    check = "percentiles follow from the latencies"
    if arrays is None or "latencies_s" not in arrays:
        return Finding(check=check, passed=None, detail="the latencies were not kept")
    from harness.measure.stats import percentile

    samples_ms = 1e3 * arrays["latencies_s"]
    told = {50: outcome.latency.p50_ms, 90: outcome.latency.p90_ms, 99: outcome.latency.p99_ms}
    wrong = [f"p{p}" for p, value in told.items() if not _same(value, percentile(samples_ms, p))]
    detail = f"{', '.join(wrong)} differ" if wrong else f"{len(samples_ms)} samples"
    return Finding(check=check, passed=not wrong, detail=detail)


def _scores(record: RunRecord, outcome: Success, arrays: Arrays | None, catalog: Catalog) -> Finding:
    check = "scores follow from the predictions"
    info = record.provenance.data
    if arrays is None or info is None or "test_outputs" not in arrays:
        return Finding(check=check, passed=None, detail="the predictions were not kept")
    from harness.measure.quality.scorer import scorer

    try:
        metrics = [catalog.metric(name) for name in outcome.scores.test]
        found = scorer(info, outcome.scores.primary, metrics).score(arrays["test_targets"], arrays["test_outputs"])
    except Exception as error:
        return Finding(check=check, passed=None, detail=f"the scores cannot be computed here: {error}")
    wrong = [
        f"{name} is {value}, the predictions give {found[name]}"
        for name, value in outcome.scores.test.items()
        if not _same(value, found[name], 1e-6)  # another version of a library may sum in another order
    ]
    return Finding(check=check, passed=not wrong, detail="; ".join(wrong) or f"{len(found)} scores")


def _siblings(run: StoredRun, others: Sequence[StoredRun]) -> Iterator[Finding]:
    """Seeds must differ in their weights and predictions, and repeats must not differ in their initial weights."""
    record = run.record
    alike = [
        other
        for other in others
        if other.record.run_id != record.run_id
        and isinstance(other.record.outcome, Success)
        and other.record.spec.group_key == record.spec.group_key
        and other.record.spec.split == record.spec.split
    ]
    seeds = [other for other in alike if other.record.spec.seed != record.spec.seed]
    repeats = [other for other in alike if other.record.spec.seed == record.spec.seed]
    yield _compared("seeds were really different", run, seeds, _differ, "no run of another seed is beside it")
    yield _compared("repeats began alike", run, repeats, _began_alike, "no repeat of it is beside it")


def _compared(
    check: str,
    run: StoredRun,
    others: Sequence[StoredRun],
    wrong: Callable[[RunRecord, RunRecord], str],
    none: str,
) -> Finding:
    if not others:
        return Finding(check=check, passed=None, detail=none)
    problems = [f"{text} {other.record.run_id}" for other in others if (text := wrong(run.record, other.record))]
    return Finding(check=check, passed=not problems, detail="; ".join(problems) or f"compared with {len(others)} runs")


def _differ(record: RunRecord, other: RunRecord) -> str:
    mine, its = record.provenance, other.provenance
    if None in (mine.final_weights_digest, its.final_weights_digest):
        return ""  # without canonical weights there is nothing that a seed draws
    random = mine.initial_weights_digest == its.initial_weights_digest and record.spec.pretrained is None
    if random:
        return "the same initial weights as"
    return "the same trained weights as" if mine.final_weights_digest == its.final_weights_digest else ""


def _began_alike(record: RunRecord, other: RunRecord) -> str:
    mine, its = record.provenance, other.provenance
    if mine.initial_weights_digest != its.initial_weights_digest:
        return "other initial weights than"
    return "other data than" if mine.dataset_digest != its.dataset_digest else ""


def _same(told: float | None, found: float | None, share: float = ROUNDING) -> bool:
    if told is None or found is None:
        return told is found
    return math.isclose(told, found, rel_tol=share, abs_tol=share)
