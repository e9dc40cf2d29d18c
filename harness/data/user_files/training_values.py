"""Values that occur in a training split, and warnings about other values in new or held-out rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.names import in_order
from harness.data.user_files.notations import PLAIN

if TYPE_CHECKING:
    from harness.interfaces import RawData

CATEGORIES, COMPLETE = "known_categories", "complete"
"""Keys of `harness.PreparedData.reading` that `training_values` adds."""


def training_values(raw: RawData, reading: Mapping[str, Any]) -> dict[str, Any]:
    """Return `reading` with a description of the values in the training split, as JSON values.

    For a table, ``known_categories`` contains the categories of each categorical column, with null for a missing value.
    ``complete`` lists the columns of numbers and dates that have a value in every training row.
    """
    if "categories" not in reading:
        return dict(reading)
    inputs = raw.train.inputs
    known = {
        name: [*([None] if None in found else []), *in_order(found - {None})]
        for number, name in enumerate(reading["categories"])
        for found in [set(inputs["categories"][:, number].tolist())]
    }
    features = inputs["features"]
    gaps = {name: bool(np.isnan(features[:, number]).any()) for number, name in enumerate(raw.feature_names)}
    complete = [name for name in reading["numbers"] if not gaps.get(name, True)]
    complete += [
        name
        for name, parts in reading["dates"].items()
        if parts and not any(gaps[f"{name} ({part})"] for part in parts)
    ]
    return {**reading, CATEGORIES: known, COMPLETE: complete}


def spellings(names: Iterable[str | None]) -> dict[float | str, list[str]]:
    """Return the spellings of each number, and of ``true`` and ``false``, among the names of categories or classes."""
    found: dict[float | str, list[str]] = {}
    for name in names:
        if name is not None:
            number = PLAIN.number(name)
            found.setdefault(name.lower() if number is None else number, []).append(name)
    return found


def spelled_as(cell: Any, known: Mapping[float | str, Sequence[str]]) -> str | None:
    """Return the spelling of a number or boolean in `known` (see `spellings`), or None unless there is exactly one
    spelling."""
    if not isinstance(cell, int | float):
        return None
    names = known.get(str(cell).lower() if isinstance(cell, bool) else cell, ())
    return names[0] if len(names) == 1 else None


def unknown_categories(column: str, cells: Sequence[str | None], known: Collection[str | None], rows: str) -> list[str]:
    """Return a warning if `cells` contain categories that are not in `known`. `rows` is the singular noun for the rows
    in messages, such as ``test row``."""
    unknown = [cell for cell in cells if cell not in known]
    if not unknown:
        return []
    values = list(dict.fromkeys("missing" if cell is None else repr(cell) for cell in unknown))
    shown = ", ".join(values[:3]) + (f" and {len(values) - 3} more" if len(values) > 3 else "")
    return [
        f"column {column!r}: the categories of {len(unknown):,} {rows}{'s' * (len(unknown) != 1)} do not occur in the "
        f"training split ({shown}); they are encoded as all zeros"
    ]


def new_values(
    reading: Mapping[str, Any], numbers: Mapping[str, Sequence[float]], categories: Mapping[str, Sequence[str | None]]
) -> list[str]:
    """Return warnings about categories and missing numbers in new rows that do not occur in the training split.

    `numbers` maps the columns of numbers and dates to their values, with NaN for a missing value. There are no warnings
    if `reading` was written by a version without `training_values`.
    """
    warnings = []
    for name, cells in categories.items():
        if name in reading.get(CATEGORIES, {}):
            warnings += unknown_categories(name, cells, set(reading[CATEGORIES][name]), "new row")
    for name in reading.get(COMPLETE, ()):
        count = int(np.isnan(numbers[name]).sum())
        if count:
            rows = "new row has" if count == 1 else "new rows have"
            warnings.append(f"column {name!r}: {count:,} {rows} no value, but all training rows have one")
    return warnings
