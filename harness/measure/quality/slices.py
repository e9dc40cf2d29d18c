"""Slices of a split.

A slice is a subset of examples that share a value, such as the speaker, and is scored separately.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.names import in_order
from harness.data.user_files.columns import INTERSECTION

MAX_VALUES = 30
"""Maximum number of slices per group. If a group has more distinct values, numeric values are binned, and rare values
of other types are merged."""
OTHERS = "all others"
MISSING = "missing"


class Slice(NamedTuple):
    group: str
    value: str
    members: NDArray[np.bool_]
    """Boolean mask ``[N]`` of the examples in the slice."""


def slices(groups: Mapping[str, NDArray[Any]]) -> Iterator[Slice]:
    """Yield the slices of each group, ordered by value.

    `groups` maps group names to values ``[N]``. Each example belongs to exactly one slice per group.

    A numeric group with more than `MAX_VALUES` distinct values is binned at its quartiles. In other groups with more
    than `MAX_VALUES` values, each of the `MAX_VALUES` - 1 most frequent values forms a separate slice, and all
    remaining values share the slice `OTHERS`. NaN and empty strings form the slice `MISSING`. If a value is equal to
    `OTHERS` or `MISSING`, ``(merged)`` or ``(empty)`` is appended to the label of the slice of merged or missing
    values, so that the labels of a group are distinct.
    """
    for group, values in groups.items():
        known = ~np.isnan(values) if values.dtype.kind == "f" else values.astype(str) != ""
        labels = []
        for value, members in _parts(values[known]):
            among_all = np.zeros(len(values), bool)
            among_all[known] = members
            yield Slice(group, value, among_all)
            labels.append(value)
        if not known.all():
            yield Slice(group, _unused(MISSING, "(empty)", labels), ~known)


def with_intersections(groups: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return a copy of `groups` that also contains the intersections in `names`, such as ``sex*region``.

    For each example, the value of an intersection consists of the labels of the example's slices, separated by commas.
    Because labels may contain commas, they are quoted if different combinations would otherwise have the same value. A
    name in `names` is ignored if it is the name of a group, or if one of the groups of the intersection does not exist.
    """
    found = dict(groups)
    for name in names:
        parts = name.split(INTERSECTION)
        if name not in groups and all(part in groups for part in parts):
            combinations = list(zip(*(_labels(part, groups[part]) for part in parts), strict=True))
            texts = [", ".join(each) for each in combinations]
            if len(set(texts)) < len(set(combinations)):
                texts = [", ".join(map(repr, each)) for each in combinations]
            found[name] = np.array(texts, str)
    return found


def _labels(group: str, values: NDArray[Any]) -> list[str]:
    """Return the slice label of each example."""
    labels = np.empty(len(values), object)
    for _, label, members in slices({group: values}):
        labels[members] = label
    return list(labels)


def _parts(values: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the label and mask of each slice of `values`.

    `values` must not contain missing values.
    """
    comparable = values if values.dtype.kind in "iuf" else values.astype(str)
    distinct, places, counts = np.unique(comparable, return_inverse=True, return_counts=True)
    if len(distinct) <= MAX_VALUES:
        texts = _texts(distinct)
        numbers = {text: number for number, text in enumerate(texts)}
        ordered = texts if distinct.dtype.kind in "iuf" else in_order(texts)
        yield from ((text, places == numbers[text]) for text in ordered)
    elif distinct.dtype.kind in "iuf":
        yield from _quarters(comparable)
    else:
        kept = np.argsort(-counts, kind="stable")[: MAX_VALUES - 1]
        numbers = {str(distinct[number]): number for number in kept.tolist()}
        yield from ((text, places == numbers[text]) for text in in_order(numbers))
        yield _unused(OTHERS, "(merged)", numbers), ~np.isin(places, kept)


def _unused(label: str, suffix: str, used: Container[str]) -> str:
    """Append `suffix` to `label` until the result differs from all labels in `used`, and return the result."""
    while label in used:
        label = f"{label} {suffix}"
    return label


def _quarters(numbers: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield up to four slices of roughly equal size. Each slice is labeled with its minimum and maximum."""
    edges = np.unique(np.quantile(numbers, (0.25, 0.5, 0.75), method="inverted_cdf"))
    quarter = np.searchsorted(edges, numbers, side="left")
    parts = [quarter == number for number in np.unique(quarter)]
    bounds = np.unique([bound for members in parts for bound in (numbers[members].min(), numbers[members].max())])
    text = dict(zip(bounds.tolist(), _texts(bounds), strict=True))
    for members in parts:
        low, high = text[numbers[members].min().item()], text[numbers[members].max().item()]
        yield low if low == high else f"{low} to {high}", members


def _texts(values: NDArray[Any]) -> list[str]:
    """Return a distinct label for each distinct value.

    Floats are formatted with the smallest number of digits that makes all labels distinct. However, at least four
    digits and all digits of the integer part are shown.
    """
    if values.dtype.kind != "f":
        return [str(value) for value in values]
    finite = values[np.isfinite(values)]
    if (finite == finite.round()).all() and (np.abs(finite) < 1e15).all():
        return [f"{value:.0f}" for value in values]
    digits = max((len(f"{abs(value):.0f}") for value in finite if abs(value) < 1e15), default=4)
    for precision in range(max(4, digits), 17):
        texts = [f"{value:.{precision}g}" for value in values]
        if len(set(texts)) == len(texts):
            return texts
    return [repr(value) for value in values.tolist()]
