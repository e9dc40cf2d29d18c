"""From run records to the comparison table: one row over its seeds and splits, quality beside cost, failures included.

A row is a task, dataset, model, backend, device and precision, and whatever else differs: settings, the machine, the
versions of the packages. Repeats of one seed are averaged first; then the seeds give a mean and its 95% interval. Where
a row has several of its dataset's published splits, a split's seeds are averaged too, and the splits give the interval.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from harness.analysis.differences import IDENTITY, differences
from harness.analysis.grouping import group_runs, representative, rival_key
from harness.analysis.table import COLUMNS, Cell, Row, Table, one_line
from harness.checks.parity.marks import marks
from harness.checks.parity.verdict import ParityVerdict
from harness.interfaces import Metric
from harness.measure import stats
from harness.measure.quality.builtin import METRICS
from harness.measure.quality.metrics import unit_of
from harness.records import Energy, Failure, Roofline, RunRecord, Success

__all__ = ["Table", "build_table"]

_MIB = 2**20
_FLAGGED = {
    "quality": "code",
    "train_samples_per_s": "train_throughput",
    "inference_samples_per_s": "inference_throughput",
}
_COST = {
    "train_cost_per_million": "train_samples_per_s",
    "inference_cost_per_million": "inference_samples_per_s",
}
_MEASURED = tuple(
    c.name for c in COLUMNS if c.kind == "number" and not c.name.endswith("_ratio") and c.name not in _COST
)


def build_table(
    records: Sequence[RunRecord],
    verdicts: Sequence[ParityVerdict] = (),
    *,
    all_ratios: bool = False,
    price_per_hour: float | None = None,
    metrics: Iterable[Metric] = (),
) -> Table:
    """The table of these runs. Each run counts in exactly one row.

    Each row is marked by the parity `verdicts` that are bound to what it ran, else by those that its runs remember;
    there is no ratio between rows that are marked as differing, unless `all_ratios` asks for it. With `price_per_hour`
    of the machine, rows tell what a million samples cost, in the same currency. `metrics` are those of plugins.

    Rows appear in the order of their first run. Ratios are to the first backend, in that order, among the rows that
    share everything but the backend and its packages; a ratio's half-width follows from those of its two means as
    if they were independent.
    """
    known = {metric.name: metric for metric in (*METRICS, *metrics)}
    groups = group_runs(records)
    measured = _means(groups)
    options = [
        ", ".join(filter(None, [_splits(group), text]))
        for group, text in zip(groups, differences([representative(group) for group in groups]), strict=True)
    ]
    rivals: dict[tuple[str, ...], list[int]] = {}
    for index, group in enumerate(groups):
        rivals.setdefault(rival_key(group[0]), []).append(index)
    rows = []
    for indices in rivals.values():
        found = marks([representative(groups[index]) for index in indices], verdicts)
        for index, mark in zip(indices, found, strict=True):
            cells = _identity(groups[index], options[index], known) | measured[index] | {"parity": Cell(str(mark))}
            comparable = all_ratios or mark.state != "differs" or index == indices[0]
            for ratio, speed in (
                ("train_ratio", "train_samples_per_s"),
                ("inference_ratio", "inference_samples_per_s"),
            ):
                base = measured[indices[0]][speed]
                cells[ratio] = _ratio(measured[index][speed], base, index == indices[0]) if comparable else Cell(None)
            for cost, speed in _COST.items():
                cells[cost] = _cost(measured[index][speed], price_per_hour)
            flags = _changed_code(groups[index]) | _flags(groups[index])
            for name, metric in _FLAGGED.items():
                cells[name] = dataclasses.replace(cells[name], flagged=metric in flags)
            cells["flags"] = Cell("; ".join(f"{metric}: {text}" for metric, text in flags.items()))
            run_ids = tuple(record.run_id for record in groups[index])
            rows.append(Row({column.name: cells[column.name] for column in COLUMNS}, run_ids))
    return Table(COLUMNS, tuple(rows))


def _means(groups: list[list[RunRecord]]) -> list[dict[str, Cell]]:
    drawn = map(_drawn, groups)
    return [{name: _mean([row[name] for row in rows]) for name in _MEASURED} for rows in drawn]


def _drawn(group: list[RunRecord]) -> list[dict[str, float | None]]:
    """What the interval is taken over: the means of each split where there are several, else those of each seed."""
    splits: dict[int, dict[int, list[dict[str, float | None]]]] = {}
    for record in group:
        if isinstance(record.outcome, Success):
            seeds = splits.setdefault(_split(record), {})
            seeds.setdefault(record.spec.seed, []).append(_figures(record.outcome, record.roofline))
    by_seed = [[_average(repeats) for repeats in seeds.values()] for seeds in splits.values()]
    return [_average(rows) for rows in by_seed] if len(by_seed) > 1 else [row for rows in by_seed for row in rows]


def _average(rows: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Over those that know a figure."""
    known = {name: [value for row in rows if (value := row.get(name)) is not None] for name in _MEASURED}
    return {name: stats.average(values) if values else None for name, values in known.items()}


def _split(record: RunRecord) -> int:
    return -1 if record.spec.split is None else record.spec.split


def _mean(values: list[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    if not known:
        return Cell(None)
    mean = stats.mean(known)
    return Cell(mean.value, mean.ci95)


def _figures(outcome: Success, roofline: Roofline | None) -> dict[str, float | None]:
    scores, speed, latency, memory = outcome.scores, outcome.speed, outcome.latency, outcome.memory
    device = memory.device
    figures = {
        "quality": scores.test.get(scores.primary),
        "reference": (scores.reference or {}).get(scores.primary),
        "train_samples_per_s": speed.train_samples_per_s,
        "inference_samples_per_s": speed.inference_samples_per_s,
        "mfu_percent": 100 * (speed.train_flops_per_s or math.nan) / roofline.matrix_flops_per_s if roofline else None,
        "time_to_target_s": outcome.time_to_target.train_s if outcome.time_to_target else None,
        "p50_ms": latency.p50_ms,
        "p90_ms": latency.p90_ms,
        "p99_ms": latency.p99_ms,
        "host_peak_mib": memory.host_peak_bytes / _MIB,
        "device_peak_mib": _mib(device.allocator_peak_bytes) if device else None,
        "reserved_peak_mib": _mib(device.reserved_peak_bytes) if device else None,
        "driver_peak_mib": _mib(device.driver_peak_bytes) if device else None,
    }
    figures |= _energy(outcome.energy)
    figures |= {name: scores.test.get(name) for name in ("f1_macro", "r2") if name != scores.primary}
    return {name: value if value is not None and math.isfinite(value) else None for name, value in figures.items()}


def _energy(energy: Energy) -> dict[str, float | None]:
    return {
        f"{part}_{name}_j": getattr(use, f"{part}_j_per_sample") if use else None
        for name, use in (("cpu", energy.cpu), ("gpu", energy.gpu))
        for part in ("train", "inference")
    }


def _flags(group: list[RunRecord]) -> dict[str, str]:
    """Metric -> its kinds of flags, and in how many of the runs."""
    done = [record.outcome for record in group if isinstance(record.outcome, Success)]
    counts: dict[str, Counter[str]] = {}
    for outcome in done:
        for metric, kind in dict.fromkeys((flag.metric, flag.kind) for flag in outcome.flags):
            counts.setdefault(metric, Counter())[kind] += 1
    return {
        metric: ", ".join(
            kind.replace("_", " ") + (f" ({n} of {len(done)} runs)" if len(done) > 1 else "")
            for kind, n in kinds.items()
        )
        for metric, kinds in counts.items()
    }


def _changed_code(group: list[RunRecord]) -> dict[str, str]:
    """``code`` -> the plugins whose code was not the same for all successful runs; empty where there are none."""
    digests: dict[str, set[str]] = {}
    for record in group:
        if isinstance(record.outcome, Success):
            for plugin in record.provenance.plugins:
                digests.setdefault(plugin.name, set()).update(filter(None, [plugin.code_digest]))
    changed = [f"{len(known)} versions of plugin {name}" for name, known in digests.items() if len(known) > 1]
    return {"code": f"the runs were made by {', '.join(changed)}"} if changed else {}


def _mib(size: int | None) -> float | None:
    return None if size is None else size / _MIB


def _splits(group: list[RunRecord]) -> str:
    """``20 splits``, ``split 3``, or nothing where the dataset has no numbered ones."""
    splits = sorted({_split(record) for record in group} - {-1})
    return f"{len(splits)} splits" if len(splits) > 1 else "".join(f"split {number}" for number in splits)


def _identity(group: list[RunRecord], options: str, metrics: Mapping[str, Metric]) -> dict[str, Cell]:
    spec = group[0].spec
    done = [record for record in group if isinstance(record.outcome, Success)]
    metric, unit, better = _metric(done, metrics)
    return {name: Cell(getattr(spec, name)) for name in IDENTITY} | {
        "options": Cell(options),
        "batch_size": Cell(spec.recipe.batch_size),
        "seeds": Cell(len({record.spec.seed for record in done})),
        "runs": Cell(len(group)),
        "metric": Cell(metric),
        "metric_unit": Cell(unit),
        "metric_better": Cell(better),
        "status": Cell(_status(group)),
        "failures": Cell("; ".join(_explain(record) for record in group if isinstance(record.outcome, Failure))),
    }


def _metric(done: list[RunRecord], metrics: Mapping[str, Metric]) -> tuple[str, str, str]:
    """Name of the primary metric, its unit where it is the target's own, and which of its values are better."""
    for record in done:
        if isinstance(record.outcome, Success):
            name = record.outcome.scores.primary
            metric = metrics.get(name)
            if metric is None:
                return name, "", ""
            return name, unit_of(metric, record.provenance.data), "higher" if metric.higher_is_better else "lower"
    return "", "", ""


def _status(group: list[RunRecord]) -> str:
    kinds = Counter(record.outcome.kind for record in group if isinstance(record.outcome, Failure))
    if not kinds:
        return "ok"
    counted = ", ".join(kind if n == 1 else f"{n} {kind}" for kind, n in sorted(kinds.items()))
    failed = sum(kinds.values())
    return f"failed: {counted}" if failed == len(group) else f"{len(group) - failed}/{len(group)} ok, {counted}"


def _explain(record: RunRecord) -> str:
    assert isinstance(record.outcome, Failure)
    split = "" if record.spec.split is None else f"split {record.spec.split}, "
    return f"{split}seed {record.spec.seed}: {record.outcome.kind}: {one_line(record.outcome.message)}"


def _cost(samples_per_s: Cell, price_per_hour: float | None) -> Cell:
    """Of a million samples; its half-width has the throughput's share."""
    rate = samples_per_s.value
    if price_per_hour is None or not isinstance(rate, float) or not rate:
        return Cell(None)
    cost = price_per_hour / 3600 / rate * 1e6
    return Cell(cost, None if samples_per_s.ci95 is None else cost * samples_per_s.ci95 / rate)


def _ratio(mean: Cell, base: Cell, is_base: bool) -> Cell:
    if not isinstance(mean.value, float) or not isinstance(base.value, float) or not mean.value or not base.value:
        return Cell(None)
    if is_base:
        return Cell(1.0)
    ratio = mean.value / base.value
    if mean.ci95 is None or base.ci95 is None:
        return Cell(ratio)
    return Cell(ratio, ratio * math.hypot(mean.ci95 / mean.value, base.ci95 / base.value))
