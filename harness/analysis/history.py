"""The history of a spec, with one point for each software state. Each point is compared with the previous one.

A history contains the runs of one spec on one machine, including all seeds and splits. A software state is the commit
of the harness checkout together with the package versions. All runs with the same state form one point, even if these
runs are not consecutive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from harness.analysis.compare.judge import ALPHA, Comparison, compare
from harness.analysis.compare.match import Match
from harness.analysis.differences import IDENTITY, changes, machine_of, software_of
from harness.analysis.grouping import overlap, without_split_digests
from harness.analysis.metrics import RunMetric, available, comparable
from harness.errors import UnknownNameError, UsageError
from harness.measure import stats
from harness.plugins.catalog import Catalog
from harness.records import RunRecord, Success
from harness.records.store import StoredRun

DEFAULT_METRICS = ("quality", "train_samples_per_s", "fit_samples_per_s", "inference_samples_per_s")
"""Metrics that are shown by default. Each run has only one of ``train_samples_per_s`` and
``fit_samples_per_s``."""


class Figure(Struct, frozen=True, kw_only=True):
    """One metric at one point in a history."""

    metric: str
    unit: str
    """Unit of `value`, or an empty string for fractions."""
    value: float | None
    ci95: float | None
    """Half-width of the 95% confidence interval for the mean over runs. None for a single run."""
    since: Comparison | None
    """Comparison with the previous point. None for the first point."""


class Point(Struct, frozen=True, kw_only=True):
    """A point in a history, which summarizes all runs with the same commit and package versions."""

    first_at: str
    """Start time of the first run (UTC, ISO 8601)."""
    commit: str
    runs: int
    failed: int
    changed: list[tuple[str, str, str]]
    """Tuples ``(name, before, now)`` for the commit, the package versions, the seeds and the splits that differ from
    the previous point. Seeds and splits are those of the successful runs."""
    figures: list[Figure]


class History(Struct, frozen=True, kw_only=True):
    """All points of one spec on one machine."""

    name: str
    machine: str
    points: list[Point]


def histories(
    runs: Sequence[StoredRun], catalog: Catalog, metrics: Sequence[str] = (), *, price_per_hour: float | None = None
) -> list[History]:
    """Return the histories of these runs, ordered by the start time of their first run.

    If `metrics` is empty, all metrics in `DEFAULT_METRICS` for which the runs have values are included.
    `price_per_hour` is the hourly price of the machine, which is used to compute the costs per million samples. Raises
    `harness.UsageError` if a metric has no value in any run, and `harness.UnknownNameError` if a metric does not exist.
    """
    groups: dict[tuple[str, ...], dict[tuple[str, ...], list[StoredRun]]] = {}
    runs = sorted(runs, key=lambda run: run.record.started_at)
    records = without_split_digests([run.record for run in runs])
    for run in [StoredRun(run.path, record) for run, record in zip(runs, records, strict=True)]:
        key = (run.record.spec.group_key, *machine_of(run.record).values())
        state = tuple(f"{name} {version}" for name, version in sorted(_state(run.record).items()))
        groups.setdefault(key, {}).setdefault(state, []).append(run)
    known = [
        comparable([[run.record for run in _done_of(states)]], catalog, price_per_hour) for states in groups.values()
    ]
    _check_names(metrics, known, [_done_of(states) for states in groups.values()])
    shown = [[names[name] for name in metrics or DEFAULT_METRICS if name in names] for names in known]
    pairs = sum((len(states) - 1) * len(names) for states, names in zip(groups.values(), shown, strict=True))
    confidence = 1 - ALPHA / max(1, pairs)
    return [_history(states, names, confidence) for states, names in zip(groups.values(), shown, strict=True)]


def _history(
    states: dict[tuple[str, ...], list[StoredRun]], metrics: Sequence[RunMetric], confidence: float
) -> History:
    points: list[Point] = []
    before: list[StoredRun] | None = None
    for runs in states.values():
        done = _done(runs)
        points.append(
            Point(
                first_at=runs[0].record.started_at,
                commit=runs[0].record.environment.git_commit or "not known",
                runs=len(runs),
                failed=len(runs) - len(done),
                changed=[] if before is None else changes(_described(before, before), _described(runs, done or before)),
                figures=[_figure(metric, before, done, confidence) for metric in metrics],
            )
        )
        before = done or before
    first = next(iter(states.values()))[0].record
    machine = machine_of(first)
    return History(
        name=" · ".join(getattr(first.spec, name) for name in IDENTITY),
        machine=f"{machine['cpu']}, {machine['cores']} cores"
        + (f", {machine['gpu']}" if machine["gpu"] != "none" else ""),
        points=points,
    )


def _figure(metric: RunMetric, before: list[StoredRun] | None, done: list[StoredRun], confidence: float) -> Figure:
    known = [(run.record.spec, value) for run in done if (value := metric.value(run.record)) is not None]
    values = [value for _, value in known]
    shared = overlap([run.record for run in done]) if metric.group == "score" else 0.0
    if metric.group == "score":  # average the repeats of each seed, or the runs of each fold or random split
        drawn: dict[tuple[int | None, int], list[float]] = {}
        for spec, value in known:
            drawn.setdefault((spec.split, 0 if shared else spec.seed), []).append(value)
        values = [stats.average(repeats) for repeats in drawn.values()]
    mean = stats.mean(values, shared) if values else None
    since = compare(Match(before, done), metric, confidence, by_example=False) if before and done else None
    level, ci95 = (mean.value, mean.ci95) if mean else (None, None)
    return Figure(metric=metric.name, unit=metric.unit, value=level, ci95=ci95, since=since)


def _check_names(
    names: Sequence[str], known: Sequence[Mapping[str, RunMetric]], done: Sequence[Sequence[StoredRun]]
) -> None:
    """Raise an error if a requested metric has no value in any history, unless every run failed."""
    shown = {name for metrics in known for name in metrics}
    possible = {name: metric for runs in done for name, metric in available([run.record for run in runs], {}).items()}
    for name in names:
        if name in shown or not shown:
            continue
        if name not in possible:
            raise UnknownNameError("metric", name, shown)
        metric = possible[name]
        raise UsageError(
            f"{name} has no history, because "
            + (metric.never_compared or f"none of the runs has a value for it{metric.advice}")
        )


def _state(record: RunRecord) -> dict[str, str]:
    return software_of(record) | {"commit": record.environment.git_commit or "none"}


def _described(runs: Sequence[StoredRun], done: Sequence[StoredRun]) -> dict[str, str]:
    """Return the software state of `runs`, and the seeds and splits of `done`."""
    seeds, splits = (
        sorted({value for run in done if (value := getattr(run.record.spec, name)) is not None})
        for name in ("seed", "split")
    )
    drawn = {name: ",".join(map(str, values)) for name, values in (("seeds", seeds), ("splits", splits)) if values}
    return drawn | _state(runs[0].record)


def _done_of(states: dict[tuple[str, ...], list[StoredRun]]) -> list[StoredRun]:
    return [run for runs in states.values() for run in _done(runs)]


def _done(runs: Sequence[StoredRun]) -> list[StoredRun]:
    return [run for run in runs if isinstance(run.record.outcome, Success)]
