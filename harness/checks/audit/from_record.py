"""Checks that need only the record, its raw samples and the other runs in its results directory."""

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

_NO_EVIDENCE = "the record is from a version of harness that did not collect this evidence"

CLOCK_FRACTION, CLOCK_S = 0.01, 0.05
"""Allowed difference between the two clocks: a fraction of the duration plus a number of seconds. The operating system
adjusts the wall clock in small steps, for example when it synchronizes with an NTP server."""
ROUNDING = 1e-9
"""Allowed relative difference between a recorded figure and the same figure recomputed from the same samples in the
same order."""


def on_record(run: StoredRun, others: Sequence[StoredRun], catalog: Catalog) -> Iterator[Finding]:
    """Yield the findings for a successful run. `others` are the runs in its results directory."""
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
    """Check that the predictions from the timed phase are the ones that were scored, as in MLPerf's TEST01."""
    check = "timed predictions match the scored ones"
    evidence = outcome.evidence
    if evidence is None:
        return Finding(check=check, passed=None, detail=_NO_EVIDENCE)
    allowed = tolerance("logits", record.spec.precision, outcome.model.parameters).value
    return Finding(
        check=check,
        passed=evidence.timed_examples > 0 and evidence.timed_error <= allowed,
        detail=f"{evidence.timed_examples} predictions differ by {evidence.timed_error:.1e} (allowed {allowed:.0e})",
    )


def _weights(record: RunRecord, outcome: Success) -> Finding:
    check = "training changed the weights, and the trained weights were evaluated"
    initial, final = record.provenance.initial_weights_digest, record.provenance.final_weights_digest
    evaluated = outcome.evidence.evaluated_weights_digest if outcome.evidence else None
    if not outcome.model.parameters:
        return Finding(check=check, passed=None, detail="the model has no canonical weights")
    if not (initial and final and evaluated):
        return Finding(check=check, passed=None, detail="a digest is missing from the record")
    shown = f"initial {initial[:8]}, trained {final[:8]}, evaluated {evaluated[:8]}"
    return Finding(check=check, passed=initial != final == evaluated, detail=shown)


def _clock(record: RunRecord, outcome: Success) -> Finding:
    check = "the step timer agrees with wall-clock time"
    evidence = outcome.evidence
    if evidence is None:
        return Finding(check=check, passed=None, detail=_NO_EVIDENCE)
    allowed = CLOCK_S + CLOCK_FRACTION * evidence.wall_s
    measured = sum(outcome.phases_s.values())
    agree = abs(evidence.clock_s - evidence.wall_s) <= allowed and measured <= record.wall_s + allowed
    detail = (
        f"{evidence.clock_s:.2f} s by the step timer, {evidence.wall_s:.2f} s by the wall clock; the phases took "
        f"{measured:.2f} s of the {record.wall_s:.2f} s that the parent process measured"
    )
    return Finding(check=check, passed=agree, detail=detail)


def _speed(record: RunRecord, outcome: Success, arrays: Arrays | None) -> Finding:
    check = "throughputs follow from the windows"
    trained = None if arrays is None else train_windows(record, arrays)
    timed = None if arrays is None else inference_windows(record, arrays)
    if trained is None or timed is None:
        return Finding(check=check, passed=None, detail="the timed windows were not saved")
    import numpy as np

    wrong = []
    for name, recorded, windows in (
        ("training", outcome.speed.train_samples_per_s, trained),
        ("inference", outcome.speed.inference_samples_per_s, timed),
    ):
        computed = float(np.median(windows.samples_per_s[windows.steady_from :]))
        if not _same(recorded, computed):
            wrong.append(f"{name}: {recorded} in the record, {computed} from the windows")
    counts = f"{len(trained.seconds)} training windows, {len(timed.seconds)} inference windows"
    return Finding(check=check, passed=not wrong, detail="; ".join(wrong) or counts)


def _latency(outcome: Success, arrays: Arrays | None) -> Finding:
    check = "percentiles follow from the latencies"
    if arrays is None or "latencies_s" not in arrays:
        return Finding(check=check, passed=None, detail="the latencies were not saved")
    from harness.measure.stats import percentile

    samples_ms = 1e3 * arrays["latencies_s"]
    recorded = {50: outcome.latency.p50_ms, 90: outcome.latency.p90_ms, 99: outcome.latency.p99_ms}
    wrong = [f"p{p}" for p, value in recorded.items() if not _same(value, percentile(samples_ms, p))]
    detail = f"{', '.join(wrong)} differ" if wrong else f"{len(samples_ms)} samples"
    return Finding(check=check, passed=not wrong, detail=detail)


def _scores(record: RunRecord, outcome: Success, arrays: Arrays | None, catalog: Catalog) -> Finding:
    check = "scores follow from the predictions"
    info = record.provenance.data
    if arrays is None or info is None or "test_outputs" not in arrays:
        return Finding(check=check, passed=None, detail="the predictions were not saved")
    from harness.measure.quality.scorer import scorer

    try:
        metrics = [catalog.metric(name) for name in outcome.scores.test]
        computed = scorer(info, outcome.scores.primary, metrics).score(arrays["test_targets"], arrays["test_outputs"])
    except Exception as error:
        return Finding(check=check, passed=None, detail=f"the scores cannot be computed here: {error}")
    wrong = [
        f"{name} is {value} in the record, {computed[name]} from the predictions"
        for name, value in outcome.scores.test.items()
        if not _same(value, computed[name], 1e-6)  # another library version may sum in a different order
    ]
    return Finding(check=check, passed=not wrong, detail="; ".join(wrong) or f"{len(computed)} scores")


def _siblings(run: StoredRun, others: Sequence[StoredRun]) -> Iterator[Finding]:
    """Check that different seeds lead to different weights, and that repeats start from the same weights and data."""
    record = run.record
    comparable = [
        other
        for other in others
        if other.record.run_id != record.run_id
        and isinstance(other.record.outcome, Success)
        and other.record.spec.group_key == record.spec.group_key
        and other.record.spec.split == record.spec.split
    ]
    seeds = [other for other in comparable if other.record.spec.seed != record.spec.seed]
    repeats = [other for other in comparable if other.record.spec.seed == record.spec.seed]
    no_seed = "the results directory has no run with another seed"
    no_repeat = "the results directory has no repeat of this run"
    yield _compared("distinct seeds gave distinct runs", run, seeds, _seed_problem, no_seed)
    yield _compared("repeats started from the same weights and data", run, repeats, _repeat_problem, no_repeat)


def _compared(
    check: str,
    run: StoredRun,
    others: Sequence[StoredRun],
    problem: Callable[[RunRecord, RunRecord], str],
    none: str,
) -> Finding:
    """Compare a run with each of `others`. `none` is the reason reported if `others` is empty."""
    if not others:
        return Finding(check=check, passed=None, detail=none)
    problems = [f"{text} {other.record.run_id}" for other in others if (text := problem(run.record, other.record))]
    return Finding(check=check, passed=not problems, detail="; ".join(problems) or f"compared with {len(others)} runs")


def _seed_problem(record: RunRecord, other: RunRecord) -> str:
    """Return a phrase naming the weights that two runs with distinct seeds wrongly share; empty if they share none."""
    mine, theirs = record.provenance, other.provenance
    if None in (mine.final_weights_digest, theirs.final_weights_digest):
        return ""  # A model without canonical weights does not depend on the seed.
    if mine.initial_weights_digest == theirs.initial_weights_digest and record.spec.pretrained is None:
        return "the initial weights are the same as in"
    return "the trained weights are the same as in" if mine.final_weights_digest == theirs.final_weights_digest else ""


def _repeat_problem(record: RunRecord, other: RunRecord) -> str:
    """Return a description of how the starting points of two repeats differ; empty if they are the same."""
    mine, theirs = record.provenance, other.provenance
    if mine.initial_weights_digest != theirs.initial_weights_digest:
        return "the initial weights differ from those of"
    return "the data differ from those of" if mine.dataset_digest != theirs.dataset_digest else ""


def _same(recorded: float | None, computed: float | None, tolerance: float = ROUNDING) -> bool:
    """Return True if two figures are equal up to rounding, or if both are missing."""
    if recorded is None or computed is None:
        return recorded is computed
    return math.isclose(recorded, computed, rel_tol=tolerance, abs_tol=tolerance)
