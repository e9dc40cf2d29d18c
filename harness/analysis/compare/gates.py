"""Bounds on the change in a metric, such as ``--fail-on train_samples_per_s:-5%``.

A bound is checked separately for each setting. A bound is violated if the entire confidence interval for the change is
beyond the bound. The comparison also fails if a bound cannot be checked for some of the runs, unless
`GateResult.excusable` is true and the user allows missing results.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from harness.analysis.compare.judge import Compared, Comparison, dataset_and_options, other_definition
from harness.analysis.compare.match import Match
from harness.analysis.metrics import RunMetric, available, success
from harness.errors import UnknownNameError, UsageError

_BOUND = re.compile(r"[+-](\d+\.?\d*|\.\d+)(e[+-]?\d+)?%?", re.ASCII | re.IGNORECASE)

MAX_NAMED = 5
"""Maximum number of seeds or splits listed in a message."""


class Gate(Struct, frozen=True, kw_only=True):
    """A bound on the change in one metric."""

    text: str
    """The bound as written by the user."""
    metric: str
    bound: float
    """Bound on the change. A negative value is a lower bound, and a positive value is an upper bound. If `relative` is
    True, the bound is a fraction of the base."""
    relative: bool


class GateResult(Struct, frozen=True, kw_only=True):
    """Result of checking one bound for one setting."""

    gate: Gate
    name: str
    """Name of the setting. Empty if the result applies to the whole comparison."""
    state: Literal["holds", "broken", "not checked"]
    reason: str = ""
    """Change and confidence interval if the bound is violated. Otherwise, the reason the bound could not be
    checked."""
    excusable: bool = False
    """True if the bound could not be checked because results are missing. ``--allow-missing`` permits such results."""
    partly: bool = False
    """True if the runs that have the required data satisfy the bound, but other runs lack this data."""


def parse(texts: Iterable[str]) -> list[Gate]:
    """Parse bounds written as ``METRIC:-5%``, ``METRIC:+10%`` or ``METRIC:-0.01``.

    Raises `harness.UsageError` for any other string.
    """
    gates = []
    for text in texts:
        metric, colon, bound = text.rpartition(":")
        relative = bound.endswith("%")
        value = float(bound.removesuffix("%")) if _BOUND.fullmatch(bound) else math.nan
        value = value / 100 if relative else value
        if not (metric and colon and math.isfinite(value) and value):
            raise UsageError(
                f"invalid bound {text!r}; write METRIC:-5% (relative) or METRIC:-0.01 (absolute), with + instead "
                "of - if lower values are better; the sign is required"
            )
        gates.append(Gate(text=text, metric=metric, bound=value, relative=relative))
    return gates


def check(
    gates: Sequence[Gate],
    matches: Sequence[Match],
    compared: Sequence[Compared],
    *,
    unmatched: Sequence[str] = (),
    failed: Sequence[str] = (),
    price_per_hour: float | None = None,
) -> list[GateResult]:
    """Check every bound for every setting and return the results.

    `compared` contains the comparisons of `matches`, in the same order. `unmatched` contains the names of the settings
    that occur only in BASE or only in NEW, and `failed` contains the ids of the failed runs in NEW. `price_per_hour` is
    the price that was used to compute `compared`.
    """
    known = [
        available([run.record for run in (*matched.base, *matched.new)], {}, price_per_hour) for matched in matches
    ]
    names = {name for metrics in known for name in metrics}
    results = []
    for gate in gates:
        if gate.metric not in names:
            reason = str(UnknownNameError("metric", gate.metric, names))
            results.append(GateResult(gate=gate, name="", state="not checked", reason=reason))
            continue
        results += [
            _of_setting(gate, matched, pair, metrics.get(gate.metric))
            for matched, pair, metrics in zip(matches, compared, known, strict=True)
        ]
        results += [
            GateResult(
                gate=gate, name=name, state="not checked", reason="only one of BASE and NEW has runs", excusable=True
            )
            for name in unmatched
        ]
        if failed:
            reason = f"runs of NEW failed: {', '.join(failed)}"
            results.append(GateResult(gate=gate, name="", state="not checked", reason=reason))
    return results


def not_held(results: Sequence[GateResult], *, allow_missing: bool) -> list[GateResult]:
    """Return the results that make the comparison fail.

    The comparison fails if the state of any result is not ``holds``. With `allow_missing`, an excusable result is
    ignored if the same bound was checked for at least one setting, even if some runs of this setting lack the required
    data.
    """
    checked = {result.gate.text for result in results if result.state != "not checked" or result.partly}
    return [
        result
        for result in results
        if result.state != "holds" and not (allow_missing and result.excusable and result.gate.text in checked)
    ]


def bound_on(gate: Gate, comparison: Comparison) -> float | None:
    """Return the bound, converted to the unit in which the comparison expresses the change.

    Relative bounds are converted to absolute ones, and vice versa, using the mean of the base, which is treated as
    exact. Return None if this mean is zero. For metrics that are compared as ratios, also return None if the mean is
    negative.
    """
    if gate.relative == comparison.relative:
        return gate.bound
    base = comparison.base
    if base is None or not math.isfinite(base) or base == 0 or (comparison.relative and base < 0):
        return None
    return gate.bound * abs(base) if gate.relative else gate.bound / base


def _of_setting(gate: Gate, matched: Match, pair: Compared, metric: RunMetric | None) -> GateResult:
    def result(
        state: Literal["holds", "broken", "not checked"],
        reason: str = "",
        *,
        excusable: bool = False,
        partly: bool = False,
    ) -> GateResult:
        return GateResult(gate=gate, name=pair.name, state=state, reason=reason, excusable=excusable, partly=partly)

    comparison = next((one for one in pair.comparisons if one.metric == gate.metric), None)
    if metric is None:
        return result("not checked", f"the runs have no value for {gate.metric}", excusable=True)
    missing = _missing(metric, matched)
    if comparison is None:
        excusable = not (metric.is_cost and _quality_only(matched))
        return result("not checked", missing or "the runs cannot be compared", excusable=excusable)
    if wrong := other_definition(metric, matched) or _other_data(matched) or _without_ratio(metric, matched):
        return result("not checked", wrong)
    bound = bound_on(gate, comparison)
    if bound is None:
        kind = "relative" if gate.relative else "absolute"
        reason = f"the mean of the base is {comparison.base:.4g}, so the {kind} bound cannot be computed"
        return result("not checked", reason)
    if comparison.relative and bound <= -1:
        return result("not checked", f"a decrease of {-bound:.0%} is not possible, so the bound cannot be violated")
    if _is_beyond_limit(metric, comparison, bound, matched):
        return result("not checked", f"{gate.metric} cannot change by {bound:+.4g}, so the bound cannot be violated")
    if comparison.low is None or comparison.high is None:
        reason = " and ".join(filter(None, [f"there is no confidence interval: {comparison.evidence}", missing]))
        return result("not checked", reason, excusable=not (metric.is_cost and _quality_only(matched)))
    if not (math.isfinite(comparison.low) and math.isfinite(comparison.high)):
        return result("not checked", "the confidence interval is not finite")
    if comparison.high < bound if bound < 0 else comparison.low > bound:
        return result("broken", described(comparison, bound))
    missing = " and ".join(filter(None, [missing, _absent(matched)]))
    if not missing:
        return result("holds")
    excusable = not (metric.is_cost and _quality_only(matched))
    return result("not checked", missing, excusable=excusable, partly=True)


def described(comparison: Comparison, bound: float) -> str:
    """Return the change, its interval and the bound as text."""
    change, low, high = (
        shown(value, comparison.relative) for value in (comparison.change, comparison.low, comparison.high)
    )
    return f"{change}, {low} to {high} (bound {shown(bound, comparison.relative)}, {comparison.evidence})"


def shown(value: float | None, relative: bool) -> str:
    """Return a change as text, including its sign. Return a dash if there is no change to show."""
    if value is None:
        return "–"
    return f"{100 * value:+.2f}%" if relative else f"{value:+.4g}"


def _missing(metric: RunMetric, matched: Match) -> str:
    """Return a message if some runs have no value for the metric, and an empty string otherwise."""
    if metric.never_compared:
        return f"{metric.name} is never compared, because {metric.never_compared}"
    parts = []
    for side, runs in (("BASE", matched.base), ("NEW", matched.new)):
        without = sum(metric.value(run.record) is None for run in runs)
        if without:
            reason = " (quality only)" if metric.is_cost and any(run.record.quality_only for run in runs) else ""
            parts.append(f"{without} of {len(runs)} runs of {side} have no value for {metric.name}{reason}")
    return " and ".join(parts) + (metric.advice if parts else "")


def _quality_only(matched: Match) -> bool:
    """Return True if any run on either side measured only quality."""
    return any(run.record.quality_only for run in (*matched.base, *matched.new))


def _absent(matched: Match) -> str:
    """Return a message if BASE has seeds or splits that NEW lacks, and an empty string otherwise."""
    draws = [
        {(spec.split, spec.seed): spec.split_title for spec in (run.record.spec for run in side)}
        for side in (matched.base, matched.new)
    ]
    absent = sorted(draws[0].keys() - draws[1].keys(), key=lambda draw: (str(draw[0]), draw[1]))
    if not absent:
        return ""
    titles = [draws[0][draw] for draw in absent]
    named = [
        f"seed {seed}" + (f" of {title}" if title else "") for title, (_, seed) in zip(titles, absent, strict=True)
    ]
    shown = ", ".join(named[:MAX_NAMED]) + (f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else "")
    return f"BASE has runs with {shown}, but NEW does not"


def _other_data(matched: Match) -> str:
    """Return a message if the runs used different data, and an empty string otherwise.

    The digests of the data also depend on the options of the task, which may be among the settings being compared.
    """
    records = [run.record for run in (*matched.base, *matched.new)]
    digests: dict[int | None, set[str | None]] = {}
    for record in records:
        digests.setdefault(record.spec.split, set()).add(record.provenance.dataset_digest)
    if all(len(equal) == 1 for equal in digests.values()):
        return ""
    datasets = {msgspec.json.encode(dataset_and_options(record.spec), order="sorted") for record in records}
    options = {msgspec.json.encode((r.spec.task, r.spec.task_options), order="sorted") for r in records}
    return "the runs used different data" if len(datasets) > 1 or len(options) == 1 else ""


def _without_ratio(metric: RunMetric, matched: Match) -> str:
    """Return a message if values were excluded because they are not positive and the metric is compared as a ratio."""
    if not metric.relative:
        return ""
    parts = []
    for side, runs in (("BASE", matched.base), ("NEW", matched.new)):
        values = [value for run in runs if (value := metric.value(run.record)) is not None]
        without = sum(value <= 0 for value in values)
        if without and (side == "NEW" or without < len(values)):  # a base of zero is reported by `bound_on`
            parts.append(f"{metric.name} is not positive in {without} of {len(runs)} runs of {side}")
    return " and ".join(parts)


def _is_beyond_limit(metric: RunMetric, comparison: Comparison, bound: float, matched: Match) -> bool:
    """Return True if no possible value of the score would violate the bound."""
    info = success(matched.base[0].record).scores.metrics.get(metric.score)
    if info is None or comparison.base is None or (bound < 0) != info.higher_is_better:
        return False
    limit = info.bounds[0 if bound < 0 else 1]
    return limit is not None and abs(bound) >= abs(comparison.base - limit)
