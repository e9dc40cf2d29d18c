"""Comparison of two sets of runs, with a verdict for each metric: better, worse or inconclusive.

If one command makes m comparisons, each interval has a confidence level of 1 - `ALPHA` / m (Bonferroni correction). The
familywise error rate is therefore at most `ALPHA`. The verdict is inconclusive if the interval includes zero.

Speed, latency and energy depend on the state of the machine, which changes over time. For these metrics, the error rate
is controlled only if the runs of the two sets were interleaved (see `harness.analysis.compare.order.pairs`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from harness.analysis.compare.by_example import draw_of, of_one_run
from harness.analysis.compare.effects import (
    MIN_RUNS,
    Effect,
    Estimate,
    of_pairs,
    of_samples,
    of_sessions,
    of_turns,
)
from harness.analysis.compare.match import Match
from harness.analysis.compare.order import pairs
from harness.analysis.grouping import overlap
from harness.analysis.metrics import METRICS, RunMetric, available, comparable, success
from harness.errors import UnknownNameError, UsageError
from harness.records import RunRecord, RunSpec
from harness.records.store import StoredRun

if TYPE_CHECKING:
    from harness.plugins.catalog import Catalog

ALPHA = 0.01
ComparisonVerdict = Literal["better", "worse", "differs", "inconclusive"]


class Comparison(Struct, frozen=True, kw_only=True):
    """Change in one metric between two matched sets of runs.

    Changes in quality are absolute differences. Changes in other metrics are relative to the base: 0.05 is an increase
    of 5%.
    """

    metric: str
    higher_is_better: bool | None
    """True if higher values are better, or None if the direction is not known."""
    relative: bool
    base: float | None
    """Mean of the metric in the BASE runs from which the change was computed. The geometric mean is used for metrics
    that are compared as ratios, and the arithmetic mean for all others."""
    new: float | None
    change: float | None
    """Difference between `new` and `base`, or their ratio minus 1 for metrics that are compared as ratios."""
    low: float | None
    high: float | None
    """Endpoints of the confidence interval for the change. None if there are too few runs."""
    detectable: float | None
    """Smallest change that would be detected with a probability of 0.95. None if there are too few runs."""
    verdict: ComparisonVerdict
    """``inconclusive`` if the interval includes 0, or if there are too few runs for an interval. ``differs`` if the
    interval does not include 0 and it is not known whether higher values are better."""
    evidence: str
    """Number of runs, pairs or examples used to compute the interval. If there is no interval, the reason for its
    absence."""
    unit: str = ""
    """Unit of `base` and `new`, or an empty string for fractions."""
    interleaved: bool = True
    """False if the metric depends on the state of the machine and the runs of BASE and NEW were not interleaved. If
    False, the interval is wider, but its confidence level is not guaranteed, because the state of the machine may have
    changed between the runs of BASE and NEW."""
    all_runs: bool = True
    """False if `base`, `new` and `change` were computed from only some of the runs, which `evidence` describes. For
    example, seeds that only one side has are ignored if there are enough pairs of runs with equal seeds."""


class Compared(Struct, frozen=True, kw_only=True):
    """All comparisons for one pair of matching sets of runs."""

    name: str
    differences: list[tuple[str, str, str]]
    """Tuples ``(name, base, new)``, one for each setting, package or machine property that differs."""
    comparisons: list[Comparison]


def compare(matched: Match, metric: RunMetric, confidence: float, *, by_example: bool = True) -> Comparison:
    """Return the change in one metric between the two sets of runs.

    If there are too few seeds for an interval and `by_example` is True, quality is compared over the test examples of
    one seed.
    """
    sides = [_values(side, metric) for side in (matched.base, matched.new)]
    estimate = _estimate(matched, metric, sides, confidence, by_example)
    effect = estimate.effect
    means = [_mean(side, metric.relative) for side in estimate.used or [list(side.values()) for side in sides]]
    if effect is None:
        change = None if None in means else _change(means[0], means[1], metric.relative)
        ends: tuple[float | None, ...] = (None, None, None)
    else:
        change, *ends_ = (_shown(x, metric.relative) for x in (effect.value, effect.low, effect.high))
        ends = (*ends_, _shown(effect.detectable, metric.relative))
    return Comparison(
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        relative=metric.relative,
        base=means[0],
        new=means[1],
        change=change,
        low=ends[0],
        high=ends[1],
        detectable=ends[2],
        verdict=_verdict(effect, metric.higher_is_better),
        evidence=estimate.evidence,
        unit=metric.unit,
        interleaved=estimate.interleaved,
        all_runs=estimate.all_runs,
    )


def _estimate(
    matched: Match, metric: RunMetric, sides: Sequence[dict[Any, float]], confidence: float, by_example: bool
) -> Estimate:
    if differs := other_definition(metric, matched):
        return Estimate(None, differs)
    if metric.relative:
        return _of_costs(matched, metric, confidence)
    return _of_scores(matched, metric, sides, confidence, by_example)


def other_definition(metric: RunMetric, matched: Match) -> str:
    """Return a message if the records disagree on the direction or the unit of a score, and an empty string
    otherwise."""
    known = [success(run.record).scores.metrics.get(metric.score) for run in (*matched.base, *matched.new)]
    if len({(info.higher_is_better, info.unit) for info in known if info is not None}) < 2:
        return ""
    return f"the runs disagree on the direction or the unit of {metric.name}"


def _of_costs(matched: Match, metric: RunMetric, confidence: float) -> Estimate:
    """Compare the logarithms of a cost between the two sets of runs."""
    base, new = (
        [(run, value) for run in side if (value := metric.value(run.record) or 0.0) > 0]
        for side in (matched.base, matched.new)
    )
    values = {id(run): value for run, value in (*base, *new)}
    paired = pairs([run for run, _ in base], [run for run, _ in new])
    known = sum(metric.value(run.record) is not None for run in (*matched.base, *matched.new))
    if len(paired) >= MIN_RUNS:
        used = [values[id(before)] for before, _ in paired], [values[id(after)] for _, after in paired]
        differences = [math.log(after) - math.log(before) for before, after in zip(*used, strict=True)]
        effect = of_turns(differences, confidence)
        return Estimate(effect, f"{len(paired)} pairs of runs", used, all_runs=known == 2 * len(paired))
    used = [value for _, value in base], [value for _, value in new]
    if min(map(len, used)) < MIN_RUNS:
        return Estimate(None, _too_few(used, "run"))
    befores, afters = ([math.log(value) for value in side] for side in used)
    counted, all_runs = f"{len(base)} and {len(new)} runs", known == len(base) + len(new)
    if metric.group == "memory":  # memory does not depend on the state of the machine
        return Estimate(of_samples(befores, afters, confidence), counted, used, all_runs)
    return Estimate(of_sessions(befores, afters, confidence), counted, used, all_runs, interleaved=False)


def _of_scores(
    matched: Match, metric: RunMetric, sides: Sequence[dict[Any, float]], confidence: float, by_example: bool
) -> Estimate:
    by_draw: Sequence[dict[Any, float]] = [_averaged(side) for side in sides]
    overlaps = [overlap([run.record for run in side]) for side in (matched.base, matched.new)]
    specs = [side[0].record.spec for side in (matched.base, matched.new)]
    resampled = next((spec for spec in specs if spec.split_count is not None), None)
    same_splits = resampled is None or _splitting(matched.base) == _splitting(matched.new)
    one_split = same_splits and len({split for side in by_draw for split, _ in side}) == 1
    all_runs = True
    if resampled is not None and not one_split:
        by_draw, all_runs = _by_split(by_draw, paired=same_splits)
    common = by_draw[0].keys() & by_draw[1].keys()
    enough = len(common) >= MIN_RUNS or min(map(len, by_draw)) >= MIN_RUNS
    unit = "seed" if one_split else (resampled or specs[0]).split_kind
    if enough or not by_example or not same_splits:
        found = _of_draws(by_draw, confidence, unit=unit, resolution=_resolution(matched), overlaps=overlaps)
        return found._replace(all_runs=found.all_runs and all_runs)
    return of_one_run(matched, metric, confidence, unit)


def _splitting(side: Sequence[StoredRun]) -> tuple[str, dict[str, Any]]:
    """Return the settings that determine which examples are in each fold or random split."""
    neutral = ("validation_share", "weight_column", "slice_columns")
    dataset, options = dataset_and_options(side[0].record.spec)
    return dataset, {name: value for name, value in options.items() if name not in neutral}


def dataset_and_options(spec: RunSpec) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of the dataset, without the split number.

    The name of the user's own data is replaced by an empty string, because the options already identify the data by a
    digest.
    """
    return "" if spec.source is not None else spec.dataset, spec.options_of_all_splits


def _by_split(by_draw: Sequence[dict[Any, float]], *, paired: bool) -> tuple[list[dict[Any, float]], bool]:
    """Return the mean over the seeds for each split, and True if all runs were used. If both sides have runs with the
    same seeds in at least `MIN_RUNS` splits, only these runs are used.

    If `paired` is false, the splits of the two sides contain different examples and have different keys. The interval
    is computed over the splits, because runs on one split with different seeds use the same examples.
    """
    common = by_draw[0].keys() & by_draw[1].keys()
    seeds_paired = paired and len({split for split, _ in common}) >= MIN_RUNS
    means = []
    for number, side in enumerate(by_draw):
        splits: dict[Any, list[float]] = {}
        for (split, seed), value in side.items():
            if not seeds_paired or (split, seed) in common:
                splits.setdefault((0 if paired else number, split), []).append(value)
        means.append({key: math.fsum(values) / len(values) for key, values in splits.items()})
    return means, not seeds_paired or all(side.keys() == common for side in by_draw)


def _of_draws(
    sides: Sequence[dict[Any, float]],
    confidence: float,
    *,
    unit: str,
    resolution: float,
    overlaps: Sequence[float],
) -> Estimate:
    common = [draw for draw in sides[0] if draw in sides[1]]
    if len(common) >= MIN_RUNS:
        used = [sides[0][draw] for draw in common], [sides[1][draw] for draw in common]
        effect = of_pairs([new - base for base, new in zip(*used, strict=True)], confidence, resolution, max(overlaps))
        all_runs = all(len(side) == len(common) for side in sides)
        return Estimate(effect, f"{len(common)} pairs of {unit}s", used, all_runs)
    base, new = (list(side.values()) for side in sides)
    if min(len(base), len(new)) < MIN_RUNS:
        return Estimate(None, _too_few((base, new), unit), (base, new))
    effect = of_samples(base, new, confidence, resolution, overlaps)
    return Estimate(effect, f"{len(base)} and {len(new)} {unit}s", (base, new))


_MORE = {unit: f"harness run --{unit} 0,1,2" for unit in ("seed", "split")} | {
    "run": f"harness run --repeat {MIN_RUNS}"
}
"""Commands that execute more seeds, splits or repeats, keyed by ``seed``, ``split`` and ``run``."""


def _too_few(sides: Sequence[Sequence[float]], unit: str) -> str:
    base, new = map(len, sides)
    counts = f"{base} {unit}{'s' * (base != 1)} on each side" if base == new else f"{base} and {new} {unit}s"
    advice = f" ({_MORE[unit]})" if unit in _MORE else ""
    return f"{counts}; at least {MIN_RUNS} are required{' on each side' * (base != new)}{advice}"


def _values(side: Sequence[StoredRun], metric: RunMetric) -> dict[tuple[int | None, int, int], float]:
    """Return the value of each run, keyed by split, seed and repeat number. Repeat numbers start at 1."""
    values: dict[tuple[int | None, int, int], float] = {}
    for run in sorted(side, key=lambda run: run.record.started_at):
        value, repeat = metric.value(run.record), 1
        if value is None:
            continue
        draw = draw_of(run.record)
        while (*draw, repeat) in values:
            repeat += 1
        values[(*draw, repeat)] = float(value)
    return values


def _averaged(values: dict[tuple[int | None, int, int], float]) -> dict[tuple[int | None, int], float]:
    """Return the mean over the repeats for each split and seed."""
    draws: dict[tuple[int | None, int], list[float]] = {}
    for (split, seed, _), value in values.items():
        draws.setdefault((split, seed), []).append(value)
    return {draw: math.fsum(repeats) / len(repeats) for draw, repeats in draws.items()}


def _resolution(matched: Match) -> float:
    """Return the amount by which a single example can change the score. Return 0 if the score is not a fraction of the
    examples."""
    info = matched.base[0].record.provenance.data
    if info is None or info.objective != "classification":
        return 0.0
    return 1 / max(1, success(matched.base[0].record).examples.get("test", 1))


def _mean(values: Sequence[float], relative: bool) -> float | None:
    if not values:
        return None
    if relative and min(values) > 0:
        return math.exp(math.fsum(map(math.log, values)) / len(values))
    return math.fsum(values) / len(values)


def _change(base: float | None, new: float | None, relative: bool) -> float | None:
    if base is None or new is None:
        return None
    return (new / base - 1 if base else None) if relative else new - base


def _shown(value: float, relative: bool) -> float:
    return math.expm1(value) if relative else value


def _verdict(effect: Effect | None, higher_is_better: bool | None) -> ComparisonVerdict:
    if effect is None or effect.low <= 0 <= effect.high:
        return "inconclusive"
    if higher_is_better is None:
        return "differs"
    return "better" if (effect.low > 0) == higher_is_better else "worse"


def _quality_only(sides: Sequence[Sequence[Sequence[RunRecord]]]) -> str:
    """Return the number of quality-only runs as text in parentheses, or an empty string if there are none."""
    count = sum(record.quality_only for pair in sides for side in pair for record in side)
    return f" ({count} of them are quality-only)" if count else ""


def compare_all(
    matches: Sequence[Match],
    catalog: Catalog,
    metrics: Sequence[str] = (),
    additional: Sequence[str] = (),
    *,
    price_per_hour: float | None = None,
    warn: Callable[[str], None] | None = None,
) -> list[Compared]:
    """Compare the two sets of runs in each match, for each of `metrics`.

    If `metrics` is empty, the primary metric and all costs with ``compared="by default"`` are compared. Metrics in
    `additional` are included if they can be compared. `price_per_hour` is the hourly price of the machine, from which
    the costs per million samples are computed.

    If some of `metrics` cannot be compared in any match but others can, `warn` is called with the reason. Raises
    `harness.UsageError` if `warn` is None or if none of `metrics` can be compared. Raises `harness.UnknownNameError` if
    a metric does not exist.
    """
    sides = [[[run.record for run in side] for side in (matched.base, matched.new)] for matched in matches]
    known = [comparable(records, catalog, price_per_hour) for records in sides]
    names = dict.fromkeys(itertools.chain.from_iterable(known))
    possible = {
        name: metric for base, new in sides for name, metric in available([*base, *new], {}, price_per_hour).items()
    }
    for name in metrics:
        if name in names:
            continue
        if name not in possible:
            raise UnknownNameError("metric", name, names)
        problem = f"the runs cannot be compared by {name}, because " + (
            possible[name].never_compared
            or f"the runs of BASE or NEW have no value for this metric{_quality_only(sides)}{possible[name].advice}"
        )
        if warn is None or not names.keys() & set(metrics):
            raise UsageError(problem)
        warn(problem)
    defaults = [metric.name for metric in METRICS if metric.compared == "by default"]
    chosen = []
    for matched, metrics_of in zip(matches, known, strict=True):
        primaries = [success(side[0].record).scores.primary for side in (matched.base, matched.new)]
        wanted = (*(metrics or (*primaries, *defaults)), *additional)
        chosen.append([metrics_of[name] for name in dict.fromkeys(wanted) if name in metrics_of])
    confidence = 1 - ALPHA / max(1, sum(map(len, chosen)))
    return [
        Compared(
            name=matched.name,
            differences=matched.differences,
            comparisons=[compare(matched, metric, confidence) for metric in compared_by],
        )
        for matched, compared_by in zip(matches, chosen, strict=True)
    ]
