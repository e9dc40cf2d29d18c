"""Statistics for the A/A check of simultaneous runs (`harness.checks.side_by_side`).

For each setting and metric, the runs in each lane are compared with the sequential runs, as in ``harness compare``. A
lane is a set of cores, with or without a GPU, on which one run is executed at a time. The familywise error rate across
all intervals is `harness.analysis.compare.judge.ALPHA`. The comparison is a test of equivalence (Schuirmann 1987): it
passes if the confidence interval is within the margin of the metric. A comparison with a wide interval therefore does
not pass, whereas a small change passes even if it is statistically significant.
"""

from __future__ import annotations

from harness.analysis.compare.judge import ALPHA, compare
from harness.analysis.compare.match import Match
from harness.analysis.metrics import BY_NAME
from harness.checks.side_by_side import Figure, Settings

MARGINS = {
    "train_samples_per_s": 0.05,
    "fit_samples_per_s": 0.05,
    "inference_samples_per_s": 0.05,
    "latency_p50_ms": 0.05,
    "latency_p99_ms": 0.25,
}
"""Margin of each metric. The confidence interval may not include larger relative changes."""


def figures(settings: Settings) -> list[Figure]:
    """Return the change in each metric for each setting and lane. Metrics without values are omitted."""
    compared = [
        (title, cores, BY_NAME[name], Match(alone, runs))
        for title, alone, beside in settings.values()
        for cores, runs in beside.items()
        for name in MARGINS
        if any(BY_NAME[name].value(run.record) is not None for run in (*alone, *runs))
    ]
    confidence = 1 - ALPHA / max(1, len(compared))
    found = []
    for setting, cores, metric, matched in compared:
        result = compare(matched, metric, confidence)
        paired = result.interleaved and result.low is not None
        found.append(
            Figure(
                setting=setting,
                cores=cores,
                metric=metric.name,
                unit=metric.unit,
                alone=result.base or 0.0,
                beside=result.new or 0.0,
                change=result.change or 0.0,
                low=result.low if paired else None,
                high=result.high if paired else None,
                margin=MARGINS[metric.name],
                evidence=result.evidence,
            )
        )
    return found
