"""Rates of a classifier by group of test examples, and the largest gaps between the groups.

The rates are computed from the counts in `harness.records.SliceScore`:

- accuracy: fraction of the examples that are classified correctly,
- selection rate: fraction of the examples for which the class is predicted,
- true positive rate: fraction of the examples of the class for which the class is predicted,
- false positive rate: fraction of the examples of other classes for which the class is predicted.

The largest gap between groups is reported as a difference (maximum minus minimum) and as a ratio (minimum divided by
maximum). The gap in the selection rate measures demographic parity, and the gap in the true positive rate measures
equal opportunity. The larger of the gaps in the true and false positive rates measures equalized odds (Hardt, Price and
Srebro 2016, arXiv:1610.02413).

The interval of a rate is the exact Clopper-Pearson interval. If each group's interval contains the group's true rate,
the largest true rate is between the largest lower limit and the largest upper limit of these intervals. The smallest
true rate is between the smallest lower limit and the smallest upper limit. The interval of a gap is computed from these
four limits, with a Bonferroni correction for the number of groups and classes. The interval of a difference contains 0,
and the interval of a ratio contains 1, unless the rates of two groups differ significantly. Bootstrap intervals do not
have this property, because the largest of several noisy rates is biased upward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from msgspec import Struct

from harness.errors import UnknownNameError, UsageError
from harness.measure.quality.intervals import MIN_EXAMPLES, TAIL, proportion
from harness.records import Failure, RunRecord, Scores, SliceScore, Success

SMALL = 100
"""Groups with fewer test examples than this are marked as small. In such a group, the interval of a rate of 50% is
wider than 20 percentage points."""
RATES = ("accuracy", "selection_rate", "true_positive_rate", "false_positive_rate")
ODDS = "equalized_odds"
"""Name of the gap for equalized odds: the gap in the true positive rate or the gap in the false positive rate,
whichever is larger."""

Interval = tuple[float, float]
Counts = dict[str, tuple[int, int]]
"""Numerator and denominator of each rate, as numbers of examples, keyed by the name of the rate."""


class Rate(Struct, frozen=True, kw_only=True):
    """A fraction of the examples in a group."""

    count: int
    """Numerator of the fraction, such as the number of correct predictions for the accuracy."""
    examples: int
    """Denominator of the fraction, such as the number of examples of the class for the true positive rate."""
    value: float | None
    """`count` divided by `examples`, or None if there are no examples."""
    interval: Interval | None
    """95% interval, or None if there are fewer examples than the minimum."""


class GroupRates(Struct, frozen=True, kw_only=True):
    """Rates of one class in one group of test examples."""

    group: str
    """Name of the group column, or the joined names of intersected columns."""
    value: str
    """Value of the group column that all examples of the group share."""
    label: str
    """Name of the class for which the rates are computed."""
    examples: int
    """Number of test examples."""
    small: bool
    """True if there are fewer than `SMALL` examples."""
    accuracy: Rate
    """Fraction of correct predictions, which is the same for all classes."""
    selection_rate: Rate
    true_positive_rate: Rate
    false_positive_rate: Rate


class Gap(Struct, frozen=True, kw_only=True):
    """Largest gap in a rate between the groups of one column, as a difference and as a ratio."""

    group: str
    rate: str
    """One of `RATES`, or `ODDS`."""
    label: str
    """Name of the class. The string is empty for the accuracy, which is the same for all classes."""
    difference: float | None
    """Largest rate minus smallest rate. None if fewer than two groups have enough examples."""
    difference_interval: Interval | None
    ratio: float | None
    """Smallest rate divided by largest rate. None if all rates are 0 or fewer than two groups have enough examples."""
    ratio_interval: Interval | None
    highest: str
    """Value of the group with the largest rate."""
    lowest: str
    """Value of the group with the smallest rate."""
    left_out: list[str]
    """Values of the groups that are ignored because they have fewer than the minimum number of examples for this
    rate."""


class Groups(Struct, frozen=True, kw_only=True):
    """Rates by group and the largest gaps between groups, as printed by ``harness groups --format json``."""

    run: str
    classes: list[str]
    """Classes for which rates are computed. By default, this is the second class if there are two, and all classes
    otherwise."""
    min_examples: int
    """Minimum number of examples needed to compute an interval, and to include a group in a gap."""
    rates: list[GroupRates]
    gaps: list[Gap]


def groups(record: RunRecord, classes: Sequence[str] = (), min_examples: int = MIN_EXAMPLES) -> Groups:
    """Return the rates of a run by group.

    By default, rates are computed for the second class if there are two, and for all classes otherwise. Raises
    `harness.UsageError` if the run has no groups or no class counts, and `harness.UnknownNameError` if a class does not
    exist.
    """
    if min_examples < 1:
        raise UsageError(f"min_examples must be at least 1, got {min_examples}")
    outcome = record.outcome
    if not isinstance(outcome, Success):
        reason = f"failed: {outcome.message}" if isinstance(outcome, Failure) else "is a trial of harness tune"
        raise UsageError(f"run {record.run_id!r} has no rates by group, because it {reason}")
    scores = outcome.scores
    if scores.streamed:
        raise UsageError(
            f"run {record.run_id!r} has no rates by group, because its metrics were computed batch by batch; repeat "
            "the run with --set protocol.save_outputs=true"
        )
    if not scores.confusion:
        raise UsageError(f"run {record.run_id!r} has no rates by group, because it is not a classification run")
    if not scores.slices:
        raise UsageError(
            f"run {record.run_id!r} has no groups; select columns of your own data with --slice-columns, or use a "
            "dataset with groups"
        )
    found = _with_counts(scores)
    if not found:
        raise UsageError(
            f"run {record.run_id!r} was recorded before the predictions were counted by group; repeat it with --rerun"
        )
    names = class_names(scores)
    for name in classes:
        if name not in names:
            raise UnknownNameError("class", name, names)
    return _of_slices(record.run_id, found, names, [*dict.fromkeys(classes)] or default_classes(names), min_examples)


def summary(record: RunRecord) -> Groups | None:
    """Return an excerpt of the rates of a run by group, or None if the run has no such rates.

    If there are more than two classes, the excerpt contains the rates of the first class only. The accuracy is the same
    for all classes. Each gap is included only for the class with the largest difference.
    """
    if not isinstance(record.outcome, Success) or not (found := _with_counts(record.outcome.scores)):
        return None
    names = class_names(record.outcome.scores)
    return _of_slices(record.run_id, found, names, default_classes(names), MIN_EXAMPLES, excerpt=True)


def class_names(scores: Scores) -> list[str]:
    """Return the names of the classes in the order of their indices. Classes without names are numbered."""
    known = [one.label for one in scores.per_class]
    return known + [str(number) for number in range(len(known), len(scores.confusion))]


def default_classes(names: Sequence[str]) -> list[str]:
    """Return the second class if there are two, and all classes otherwise."""
    return [names[1]] if len(names) == 2 else list(names)


def _with_counts(scores: Scores) -> list[SliceScore]:
    return [one for one in scores.slices if len(one.class_support) == len(scores.confusion) > 0]


def _of_slices(
    run: str,
    slices: Sequence[SliceScore],
    names: Sequence[str],
    classes: Sequence[str],
    least: int,
    *,
    excerpt: bool = False,
) -> Groups:
    rates: list[GroupRates] = []
    gaps: list[Gap] = []
    places = {name: number for number, name in enumerate(names)}
    for group, members in groupby(slices, key=lambda one: one.group):
        parts = list(members)
        counts = {name: {one.value: _counts(one, places[name]) for one in parts} for name in classes}
        for one in parts:
            shown = classes[:1] if excerpt else classes
            rates += [_rates(one, name, counts[name][one.value], least) for name in shown]
        gaps += _gaps(group, counts, least, excerpt=excerpt)
    return Groups(run=run, classes=list(classes), min_examples=least, rates=rates, gaps=gaps)


def _counts(one: SliceScore, place: int) -> Counts:
    """Return the counts of a slice for one class. `place` is the index of the class."""
    support, predicted, correct = (
        counts[place] for counts in (one.class_support, one.class_predicted, one.class_correct)
    )
    return {
        "accuracy": (sum(one.class_correct), one.support),
        "selection_rate": (predicted, one.support),
        "true_positive_rate": (correct, support),
        "false_positive_rate": (predicted - correct, one.support - support),
    }


def _rates(one: SliceScore, label: str, counts: Counts, least: int) -> GroupRates:
    accuracy, selection, true_positive, false_positive = (_rate(*counts[name], least) for name in RATES)
    return GroupRates(
        group=one.group,
        value=one.value,
        label=label,
        examples=one.support,
        small=one.support < SMALL,
        accuracy=accuracy,
        selection_rate=selection,
        true_positive_rate=true_positive,
        false_positive_rate=false_positive,
    )


def _rate(count: int, examples: int, least: int) -> Rate:
    value = count / examples if examples else None
    interval = None if value is None or examples < least else proportion(value, examples)
    return Rate(count=count, examples=examples, value=value, interval=interval)


def _gaps(group: str, by_class: Mapping[str, Mapping[str, Counts]], least: int, *, excerpt: bool) -> Iterator[Gap]:
    """Yield the gaps between the groups of one column, first in the accuracy and then in the other rates of each class.

    In an excerpt, each gap is computed only for the class with the largest difference.
    """
    yield _gap(group, "", ["accuracy"], next(iter(by_class.values())), 1, least)
    kinds = [*([name] for name in RATES[1:]), list(RATES[2:])]
    if not excerpt:
        for label, parts in by_class.items():
            for names in kinds:
                yield _gap(group, label, names, parts, len(by_class), least)
        return
    for names in kinds:
        differences = {label: _difference(parts, names, least) for label, parts in by_class.items()}
        label = max(differences, key=differences.__getitem__)
        yield _gap(group, label, names, by_class[label], len(by_class), least)


def _difference(parts: Mapping[str, Counts], names: Sequence[str], least: int) -> float:
    """Return the largest difference in the rates `names` between groups, or -1 if a gap is not defined."""
    found = [
        [count / examples for counts in parts.values() for count, examples in [counts[name]] if examples >= least]
        for name in names
    ]
    return max(max(values) - min(values) for values in found) if all(len(values) > 1 for values in found) else -1.0


def _gap(group: str, label: str, names: Sequence[str], parts: Mapping[str, Counts], classes: int, least: int) -> Gap:
    """Return the gap in a rate, or the largest gap in several rates, between the groups in `parts`.

    `classes` is the number of classes for which gaps in these rates are computed. `least` must be at least 1.
    """
    used = {
        name: {value: counts[name] for value, counts in parts.items() if counts[name][1] >= least} for name in names
    }
    left_out = [value for value, counts in parts.items() if any(counts[name][1] < least for name in names)]
    tail = TAIL / max(1, classes * sum(map(len, used.values())))
    gaps = [gap for rates in used.values() if (gap := _extremes(rates, tail))]
    rate = names[0] if len(names) == 1 else ODDS
    if len(gaps) < len(names):
        return Gap(
            group=group,
            rate=rate,
            label=label,
            difference=None,
            difference_interval=None,
            ratio=None,
            ratio_interval=None,
            highest="",
            lowest="",
            left_out=left_out,
        )
    widest = max(gaps, key=lambda gap: gap.difference)
    ratios = [gap.ratio for gap in gaps if gap.ratio is not None]
    return Gap(
        group=group,
        rate=rate,
        label=label,
        difference=widest.difference,
        difference_interval=(max(gap.differences[0] for gap in gaps), max(gap.differences[1] for gap in gaps)),
        ratio=min(ratios, default=None),
        ratio_interval=(min(gap.ratios[0] for gap in gaps), min(gap.ratios[1] for gap in gaps)) if ratios else None,
        highest=widest.highest,
        lowest=widest.lowest,
        left_out=left_out,
    )


class _Extremes(Struct, frozen=True):
    difference: float
    differences: Interval
    ratio: float | None
    """None if all rates are 0. In this case, the interval of the ratio contains all possible values."""
    ratios: Interval
    highest: str
    lowest: str


def _extremes(rates: Mapping[str, tuple[int, int]], tail: float) -> _Extremes | None:
    """Return the gap between the largest and the smallest of the rates of several groups.

    `rates` contains the count and the number of examples of each group. `tail` is the probability on each side of a
    rate's interval. Return None if there are fewer than two groups.
    """
    if len(rates) < 2:
        return None
    values = {value: count / examples for value, (count, examples) in rates.items()}
    bounds = [proportion(values[value], examples, tail) for value, (_, examples) in rates.items()]
    lowest, highest = min(values, key=lambda value: values[value]), max(values, key=lambda value: values[value])
    least, most = values[lowest], values[highest]
    least_low, least_high = min(low for low, _ in bounds), min(high for _, high in bounds)
    most_low, most_high = max(low for low, _ in bounds), max(high for _, high in bounds)
    return _Extremes(
        most - least,
        (max(0.0, most_low - least_high), most_high - least_low),
        least / most if most else None,
        (least_low / most_high, min(1.0, least_high / most_low) if most_low else 1.0),
        highest,
        lowest,
    )
