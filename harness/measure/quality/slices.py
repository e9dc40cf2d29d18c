"""Parts of a split that share a value of a group, such as a speaker, so that each can be scored by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_VALUES = 30
"""A group with more values is not scored value by value: numbers go into quarters, of names the most frequent stay."""
OTHERS = "all others"
MISSING = "missing"


class Slice(NamedTuple):
    group: str
    value: str
    members: NDArray[np.bool_]
    """``[N]``: which examples belong to it."""


def slices(groups: Mapping[str, NDArray[Any]]) -> Iterator[Slice]:
    """Of each group (name -> ``[N]``) its values, in order; every example is in one slice of each group.

    A group of numbers with more than `MAX_VALUES` distinct ones is cut at its quartiles; of other groups the
    `MAX_VALUES` - 1 most frequent values are slices, and the rest together one. NaN and an empty text are a value.
    """
    for group, values in groups.items():
        known = ~np.isnan(values) if values.dtype.kind == "f" else values.astype(str) != ""
        for value, members in _parts(values[known]):
            among_all = np.zeros(len(values), bool)
            among_all[known] = members
            yield Slice(group, value, among_all)
        if not known.all():
            yield Slice(group, MISSING, ~known)


def _parts(values: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Values and which of `values`, all known, are in them."""
    comparable = values if values.dtype.kind in "iuf" else values.astype(str)
    distinct, places, counts = np.unique(comparable, return_inverse=True, return_counts=True)
    if len(distinct) <= MAX_VALUES:
        yield from ((text, places == number) for number, text in enumerate(_texts(distinct)))
    elif distinct.dtype.kind in "iuf":
        yield from _quarters(comparable)
    else:
        kept = np.sort(np.argsort(-counts, kind="stable")[: MAX_VALUES - 1])
        yield from ((str(distinct[number]), places == number) for number in kept)
        yield OTHERS, ~np.isin(places, kept)


def _quarters(numbers: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Up to four parts of about one size, each with its lowest and highest number."""
    edges = np.unique(np.quantile(numbers, (0.25, 0.5, 0.75), method="inverted_cdf"))
    quarter = np.searchsorted(edges, numbers, side="left")
    parts = [quarter == number for number in np.unique(quarter)]
    bounds = np.unique([bound for members in parts for bound in (numbers[members].min(), numbers[members].max())])
    text = dict(zip(bounds.tolist(), _texts(bounds), strict=True))
    for members in parts:
        low, high = text[numbers[members].min().item()], text[numbers[members].max().item()]
        yield low if low == high else f"{low} to {high}", members


def _texts(values: NDArray[Any]) -> list[str]:
    """Of different values different texts: numbers with as few digits as tell them apart, but four or more and all
    before the point."""
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
