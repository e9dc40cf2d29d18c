"""The comparison table, in which each row shows the quality and the cost of one setting.

Runs are in the same row if they have the same task, dataset, model, backend, device, precision, other settings, machine
and package versions. Repeats of a seed are averaged first. The mean and its 95% confidence interval are then computed
over seeds. If a row covers several splits of its dataset, values are first averaged over the seeds of each split. The
mean and the interval are then computed over splits. For folds and random splits, the interval of a score is corrected
for the overlap of the training splits (`harness.measure.stats.mean`). Failed runs are counted and listed.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from harness.analysis.differences import IDENTITY, differences
from harness.analysis.flags import RowFlag, row_flags
from harness.analysis.formatting import one_line
from harness.analysis.grouping import group_runs, one_device_key, overlap, representative, rival_key
from harness.analysis.metrics import (
    INFERENCE_THROUGHPUT,
    METRICS,
    QUALITY,
    REFERENCE,
    TRAIN_THROUGHPUT,
    RunMetric,
    at_price,
    available,
    meaning,
    rates,
    score,
    success,
)
from harness.analysis.table import Cell, Column, Row, Table
from harness.checks.parity.marks import marks
from harness.checks.parity.verdict import ParityVerdict
from harness.errors import UnknownNameError
from harness.interfaces import Metric
from harness.measure import stats
from harness.measure.quality.builtin import METRICS as QUALITY_METRICS
from harness.measure.quality.metrics import averaged_over, info_of
from harness.records import Failure, RunRecord, Success, Trial
from harness.records.record import MAX_MESSAGE

__all__ = ["COLUMNS", "RATIOS", "Table", "build_table"]

RATIOS = {metric.ratio_column.name: metric for metric in (TRAIN_THROUGHPUT, INFERENCE_THROUGHPUT)}
"""Metrics for which ratios are shown, keyed by the name of the ratio column."""
EFFICIENCY = Column("scaling_efficiency", "scaling", "", "number", "higher")
"""Training throughput relative to a single device, divided by the number of devices."""
_BUILTIN = {metric.name: score(metric.name, info_of(metric, None)) for metric in QUALITY_METRICS if metric.in_tables}
_IN_TABLE = tuple(metric for metric in METRICS if metric.in_table)


def _columns(secondary: Iterable[RunMetric], speeds: Iterable[RunMetric] = ()) -> tuple[Column, ...]:
    """Return the columns of the table.

    `secondary` contains the metrics that have separate columns, in addition to the quality column. `speeds` contains
    the throughput in task-specific units, such as tokens per second. These columns follow the throughput in samples per
    second.
    """
    position = _IN_TABLE.index(INFERENCE_THROUGHPUT) + 1
    costs = (*_IN_TABLE[:position], *speeds, *_IN_TABLE[position:])
    return (
        *(Column(name, name, "", "text") for name in (*IDENTITY, "options")),
        Column("batch_size", "batch", "", "count"),
        Column("seeds", "seeds", "", "count"),
        Column("runs", "runs", "", "count"),
        *(Column(name, name.replace("_", " "), "", "text") for name in _METRIC),
        *(metric.column for metric in (QUALITY, REFERENCE, *secondary, *costs)),
        *(metric.ratio_column for metric in RATIOS.values()),
        EFFICIENCY,
        *(Column(name, name, "", "text") for name in ("parity", "status", "flags", "failures")),
    )


_METRIC = ("metric", "metric_title", "metric_unit", "metric_better")
COLUMNS = _columns(_BUILTIN.values())
"""Columns of every table. A table also has a column for each score that a plugin declares with ``in_tables``."""


def build_table(
    records: Sequence[RunRecord],
    verdicts: Sequence[ParityVerdict] = (),
    *,
    all_ratios: bool = False,
    price_per_hour: float | None = None,
    metrics: Iterable[Metric] = (),
    shown: Iterable[str] = (),
) -> Table:
    """Return the comparison table for these runs. Each run belongs to exactly one row.

    In each row, the parity column shows the `verdicts` that apply to the computation in this row. If there are no
    verdicts, the column shows the parity results in the row's records. Ratios are omitted for rows that failed the
    parity check, unless `all_ratios` is True. If the hourly price of the machine is given as `price_per_hour`, the cost
    columns contain the cost per million samples, in the same currency. `metrics` contains the metrics from plugins, and
    is needed only for older records. `shown` contains the names of metrics to show in additional columns. Unless
    `shown` contains the name of the primary metric, its column is empty, because the quality column contains its
    values. Raises `harness.UnknownNameError` if no run has one of these metrics.

    Rows appear in the order of their first runs. Ratios compare rows that differ only in the backend, its packages and
    the named environment, and are relative to the first of these rows. If both rows have the same splits, seeds and
    repeats, the half-width of a ratio is computed over pairs of runs. Otherwise, the two means are assumed to be
    independent, and the half-width of the ratio is computed from the half-widths of the means.
    """
    known, shown = {metric.name: metric for metric in (*QUALITY_METRICS, *metrics)}, tuple(shown)
    groups = group_runs(records)
    speeds = rates(record for record in records if isinstance(record.outcome, Success))
    secondary = [*_secondary(records, known), *_requested(shown, records, known, price_per_hour)]
    columns = _columns(secondary, speeds)
    averaged = (QUALITY, REFERENCE, *secondary, *speeds, *(m for m in at_price(price_per_hour) if m.in_table))
    measured = _means(groups, averaged, shown)
    options = [
        ", ".join(filter(None, [_splits(group), _weights(group), text]))
        for group, text in zip(groups, differences([representative(group) for group in groups]), strict=True)
    ]
    one_device = {
        one_device_key(representative(group)): index for index, group in enumerate(groups) if group[0].spec.devices == 1
    }
    rivals: dict[tuple[str, ...], list[int]] = {}
    for index, group in enumerate(groups):
        rivals.setdefault(rival_key(group[0]), []).append(index)
    rows = []
    for indices in rivals.values():
        parity = marks([representative(groups[index]) for index in indices], verdicts)
        for index, mark in zip(indices, parity, strict=True):
            cells = _identity(groups[index], options[index], known) | measured[index] | {"parity": Cell(str(mark))}
            comparable = all_ratios or mark.state != "differs" or index == indices[0]
            for ratio, metric in RATIOS.items():
                mean, base = (measured[row][metric.name] for row in (index, indices[0]))
                spread = _paired_spread(groups[index], groups[indices[0]], metric)
                cells[ratio] = _ratio(mean, base, spread, index == indices[0]) if comparable else Cell(None)
            base_index = one_device.get(one_device_key(representative(groups[index])))
            cells[EFFICIENCY.name] = _efficiency(index, base_index, groups, measured)
            flags = _flags(groups[index], cells, averaged, known, shown)
            for flag in flags:
                if not flag.columns and flag.name in cells:
                    cells[flag.name] = Cell(None)
                for column in cells.keys() & flag.columns:  # skip metrics that have no column
                    cells[column] = dataclasses.replace(cells[column], flagged=cells[column].value is not None)
            cells["flags"] = Cell("; ".join(f"{flag.name}: {flag.text}" for flag in flags))
            run_ids = tuple(record.run_id for record in groups[index])
            rows.append(Row({column.name: cells[column.name] for column in columns}, run_ids))
    return Table(columns, tuple(rows))


def _secondary(records: Iterable[RunRecord], metrics: Mapping[str, Metric]) -> list[RunMetric]:
    """Return the scores that have a separate column. Built-in scores come first."""
    done = [record for record in records if isinstance(record.outcome, Success)]
    declared = dict.fromkeys(
        name for record in done for name, info in success(record).scores.metrics.items() if info.in_tables
    )
    declared |= dict.fromkeys(name for name, metric in metrics.items() if metric.in_tables)
    taken = {column.name for column in COLUMNS}
    named = {name: [r for r in done if name in success(r).scores.test] for name in declared if name not in taken}
    shown = {name: score(name, meaning(name, having, metrics)) for name, having in named.items() if having}
    return list((_BUILTIN | shown).values())


def _requested(
    names: Iterable[str], records: Iterable[RunRecord], metrics: Mapping[str, Metric], price_per_hour: float | None
) -> list[RunMetric]:
    """Return the metrics with these names that do not have a column yet. Raises `harness.UnknownNameError` if no run
    has a metric with one of the names."""
    done = [record for record in records if isinstance(record.outcome, Success)]
    known = available(done, metrics, price_per_hour)
    taken = {column.name for column in _columns(_secondary(done, metrics), rates(done))}
    wanted = [name for name in dict.fromkeys(names) if name not in taken]
    for name in wanted:
        if name not in known:
            raise UnknownNameError("metric", name, known)
    return [known[name] for name in wanted]


def _means(
    groups: list[list[RunRecord]], metrics: Sequence[RunMetric], shown: Collection[str]
) -> list[dict[str, Cell]]:
    means = []
    for group in groups:
        rows, shared = _drawn(group, metrics, shown), overlap(group)
        means.append(
            {
                metric.name: _mean(
                    [row[metric.name] for row in rows],
                    whole=metric.is_count,
                    overlap=shared if metric.group == "score" else 0.0,
                )
                for metric in metrics
            }
        )
    return means


def _drawn(
    group: list[RunRecord], metrics: Sequence[RunMetric], shown: Collection[str]
) -> list[dict[str, float | None]]:
    """Return the values to average: one set per split if there are several splits, otherwise one set per seed."""
    splits: dict[int, dict[int, list[dict[str, float | None]]]] = {}
    for record in group:
        if isinstance(record.outcome, Success):
            seeds = splits.setdefault(_split(record), {})
            seeds.setdefault(record.spec.seed, []).append(_values(record, metrics, shown))
    by_seed = [[_average(repeats) for repeats in seeds.values()] for seeds in splits.values()]
    return [_average(rows) for rows in by_seed] if len(by_seed) > 1 else [row for rows in by_seed for row in rows]


def _average(rows: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each column over the rows that have a value in it."""
    known = {name: [value for row in rows if (value := row[name]) is not None] for name in rows[0]}
    return {name: stats.average(values) if values else None for name, values in known.items()}


def _split(record: RunRecord) -> int:
    return -1 if record.spec.split is None else record.spec.split


def _mean(values: list[float | None], *, whole: bool, overlap: float) -> Cell:
    """Return the mean of the known values. If `whole` is true and all values are equal, the mean is an integer."""
    known = [value for value in values if value is not None]
    if not known:
        return Cell(None)
    mean = stats.mean(known, overlap)
    if whole and len(set(known)) == 1 and mean.value.is_integer():
        return Cell(int(mean.value))
    return Cell(mean.value, mean.ci95)


def _values(record: RunRecord, metrics: Iterable[RunMetric], shown: Collection[str]) -> dict[str, float | None]:
    """Return the values of a successful run by column. Unless `shown` contains the name of the primary metric, its
    value is None, because the quality column contains it."""
    primary = success(record).scores.primary
    return {
        metric.name: None if metric.name == primary and primary not in shown else metric.value(record)
        for metric in metrics
    }


def _flags(
    group: list[RunRecord],
    cells: Mapping[str, Cell],
    averaged: Sequence[RunMetric],
    metrics: Mapping[str, Metric],
    requested: Collection[str],
) -> list[RowFlag]:
    """Return the flags of a row, including a note if the quality is an average over targets with different units."""
    done = [record for record in group if isinstance(record.outcome, Success)]
    if not done:
        return []
    shown = {name: value for name, cell in cells.items() if isinstance(value := cell.value, float)}
    flags = list(row_flags(done, shown, [_values(record, averaged, requested) for record in done]))
    primary = success(done[0]).scores.primary
    note = averaged_over(metrics[primary], done[0].provenance.data) if primary in metrics else ""
    return [*flags, RowFlag(("quality", "reference"), primary, note)] if note else flags


def _splits(group: list[RunRecord]) -> str:
    """Return a string such as ``20 splits``, ``3 of 5 folds`` or ``split 3``. The string is empty if the splits are not
    numbered.
    """
    splits = {record.spec.split for record in group if record.spec.split is not None}
    if len(splits) < 2:
        return group[0].spec.split_title
    spec = group[0].spec
    few = f" of {spec.split_count}" if spec.split_count is not None and len(splits) < spec.split_count else ""
    return f"{len(splits)}{few} {spec.split_kind}s"


def _weights(group: list[RunRecord]) -> str:
    """Return a string such as ``weights of RUN``. The string is empty if the runs in the row trained the model."""
    used = dict.fromkeys(record.spec.weights for record in group if record.spec.weights is not None)
    names = [weights.run for weights in used]
    return f"weights of {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "") if names else ""


def _identity(group: list[RunRecord], options: str, metrics: Mapping[str, Metric]) -> dict[str, Cell]:
    spec = group[0].spec
    done = [record for record in group if isinstance(record.outcome, Success)]
    counted = _without_completed(group)
    return {name: Cell(getattr(spec, name)) for name in IDENTITY} | {
        "options": Cell(options),
        "batch_size": Cell(spec.recipe.batch_size),
        "seeds": Cell(len({record.spec.seed for record in done})),
        "runs": Cell(len(counted)),
        **dict(zip(_METRIC, map(Cell, _metric(done, metrics)), strict=True)),
        "status": Cell(_status(counted)),
        "failures": Cell("; ".join(_explain(record) for record in counted if isinstance(record.outcome, Failure))),
    }


def _without_completed(group: list[RunRecord]) -> list[RunRecord]:
    """Return the runs of a row, except for interrupted runs that were later executed successfully."""
    completed: dict[str, str] = {}
    for record in group:
        if isinstance(record.outcome, Success):
            key = record.request_key or record.key
            completed[key] = max(record.started_at, completed.get(key, ""))
    return [
        record
        for record in group
        if not isinstance(record.outcome, Failure)
        or record.outcome.kind != "interrupted"
        or record.started_at > completed.get(record.request_key or record.key, "")
    ]


def _metric(done: list[RunRecord], metrics: Mapping[str, Metric]) -> tuple[str, str, str, str]:
    """Return the name, the title, the unit and the direction of the primary metric.

    The direction is ``higher`` or ``lower``, or an empty string if the direction is not known.
    """
    if not done:
        return "", "", "", ""
    name = success(done[0]).scores.primary
    column = score(name, meaning(name, done, metrics)).column
    return name, column.title, column.unit, column.better


def _status(group: list[RunRecord]) -> str:
    trials = Counter(record.outcome.state for record in group if isinstance(record.outcome, Trial))
    if trials:  # Trials are in their own results directory, without complete runs.
        return ", ".join(["trial", *trials])
    kinds = Counter(record.outcome.kind for record in group if isinstance(record.outcome, Failure))
    if not kinds:
        return "ok"
    counted = ", ".join(kind if n == 1 else f"{n} {kind}" for kind, n in sorted(kinds.items()))
    failed = sum(kinds.values())
    return f"failed: {counted}" if failed == len(group) else f"{len(group) - failed}/{len(group)} ok, {counted}"


def _explain(record: RunRecord) -> str:
    assert isinstance(record.outcome, Failure)
    split = f"{record.spec.split_title}, " if record.spec.split_title else ""
    return f"{split}seed {record.spec.seed}: {record.outcome.kind}: {one_line(record.outcome.message, MAX_MESSAGE)}"


def _paired_spread(group: list[RunRecord], base: list[RunRecord], metric: RunMetric) -> float | None:
    """Return the relative half-width of the confidence interval for a ratio of two means, computed over pairs of runs.
    Return None if the runs are not paired.

    Runs are paired if both groups have the same splits, seeds and numbers of repeats. The half-width is t(0.975, n - 1)
    s / sqrt(n), where s is the standard deviation of x / mean(x) - y / mean(y) over the n pairs. This formula follows
    from the delta method for ratios of means (Cochran 1977, Sampling Techniques, section 6.4).
    """
    ours, theirs = (_by_run(records, metric) for records in (group, base))
    if ours.keys() != theirs.keys() or len(ours) < 2:
        return None
    means = [stats.average(list(values.values())) for values in (ours, theirs)]
    return stats.mean([ours[key] / means[0] - theirs[key] / means[1] for key in ours]).ci95 if all(means) else None


def _by_run(group: list[RunRecord], metric: RunMetric) -> dict[tuple[int, int, int], float]:
    """Return the values of the runs by split, seed and repeat number. Repeats are numbered in chronological order."""
    repeats: Counter[tuple[int, int]] = Counter()
    values = {}
    for record in sorted(group, key=lambda record: record.started_at):
        value = metric.value(record)
        if value is not None:
            draw = (_split(record), record.spec.seed)
            repeats[draw] += 1
            values[*draw, repeats[draw]] = value
    return values


def _efficiency(
    index: int, base: int | None, groups: Sequence[list[RunRecord]], measured: Sequence[Mapping[str, Cell]]
) -> Cell:
    """Return the scaling efficiency of a row with several devices. `base` is the index of the corresponding row with
    one device. If `base` is None, return an empty cell."""
    devices, name = groups[index][0].spec.devices, TRAIN_THROUGHPUT.name
    if devices == 1 or base is None:
        return Cell(None)
    spread = _paired_spread(groups[index], groups[base], TRAIN_THROUGHPUT)
    ratio = _ratio(measured[index][name], measured[base][name], spread, is_base=False)
    if not isinstance(ratio.value, float):
        return ratio
    return Cell(ratio.value / devices, None if ratio.ci95 is None else ratio.ci95 / devices)


def _ratio(mean: Cell, base: Cell, paired_spread: float | None, is_base: bool) -> Cell:
    if not isinstance(mean.value, float) or not isinstance(base.value, float) or not mean.value or not base.value:
        return Cell(None)
    if is_base:
        return Cell(1.0)
    ratio = mean.value / base.value
    if paired_spread is not None:
        return Cell(ratio, ratio * paired_spread)
    if mean.ci95 is None or base.ci95 is None:
        return Cell(ratio)
    return Cell(ratio, ratio * math.hypot(mean.ci95 / mean.value, base.ci95 / base.value))
