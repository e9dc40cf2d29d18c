"""Numbers, labels and dates that often denote a missing value, such as -999 or 1900-01-01."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.user_files.dates import zone
from harness.data.user_files.notations import PLAIN

FAR = 5.0
"""Minimum distance between an outlier and all other values, relative to the range of the other values."""
APART = 0.2
"""Minimum distance of a code, such as -9 or 0, from all other values, relative to the range of the other values."""
REPEATED = 3
"""Minimum number of equal outliers that may denote a missing value."""
FREQUENT = 3
"""Minimum frequency of a common code, relative to the median frequency of the other values."""
DOMINANT = 10
"""If the frequency of a common code is at least this multiple of the frequency of every other value, the distance
between the code and the other values is ignored."""
DISTINCT = 10
"""Minimum number of distinct values required to test a column for outliers."""
CODE = re.compile(r"-?9{2,}|-[19]")
"""Pattern that matches the numbers commonly used as codes."""
DATES = frozenset(
    ("0001-01-01", "1753-01-01", "1800-01-01", "1899-12-30", "1899-12-31", "1900-01-01", "1901-01-01", "1970-01-01")
) | frozenset(("1999-09-09", "2099-12-31", "2100-01-01", "2999-12-31", "3000-01-01", "9999-01-01", "9999-12-31"))
"""Dates commonly used as codes: the first and last dates that programs can represent, and dates that are easy to
type."""

Numbers = NDArray[np.float64]


def in_numbers(columns: Mapping[str, Numbers]) -> list[str]:
    """Return a warning about each column ``[N]`` in which a few values are far from the rest, or in which a common
    code is repeated."""
    found = []
    for name, values in columns.items():
        distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
        if len(distinct) < DISTINCT:
            continue
        for end, others in ((0, slice(1, None)), (-1, slice(None, -1))):
            rest, count, value = distinct[others], int(counts[end]), float(distinct[end])
            extent, gap = float(np.ptp(rest)), abs(value - float(rest[end]))
            if count >= REPEATED and gap > FAR * extent:
                found.append(
                    _as_missing(f"column {name!r}: {count:,} cells are {value:g}, far from all other values", value)
                )
            elif gap > 1000 * FAR * extent:
                found.append(
                    f"column {name!r}: the value {value:g} is so far from all other values that the others become "
                    "equal after standardization; correct or remove it"
                )
            elif count >= REPEATED and _is_code(value, rest) and _stands_out(value, count, counts[others], gap, extent):
                text = f"column {name!r}: {count:,} cells are {value:g}, which stands out from the other values"
                found.append(_as_missing(text, value))
    return found


def _as_missing(text: str, value: float) -> str:
    return f"{text}; if this value denotes a missing value, pass --set 'dataset.missing_values=[\"{value:g}\"]'"


def _is_code(value: float, rest: Numbers) -> bool:
    """Return whether a value is a number commonly used as a code. A value of 0 is a code only if all other values are
    positive. A negative value is a code only if no other value is negative.
    """
    if value == 0:
        return bool(rest[0] > 0)
    return CODE.fullmatch(f"{value:.12g}") is not None and (value > 0 or bool(rest[0] >= 0))


def _stands_out(value: float, count: int, others: NDArray[np.int64], gap: float, extent: float) -> bool:
    """Return whether a code is frequent, and far from the other values or much more frequent than each of them. A value
    of 0 may be frequent even if it is not a code."""
    frequent = count >= FREQUENT * float(np.median(others))
    return frequent and (gap >= APART * extent or (value != 0 and count >= DOMINANT * int(others.max())))


def in_labels(labels: Sequence[str]) -> list[str]:
    """Return a warning if a label is a number commonly used as a code, and no other label is such a number."""
    counts = Counter(labels)
    codes = [name for name in counts if CODE.fullmatch(name) and name != "-1"]
    others = [name for name in counts if name not in codes]
    numbers = [value for name in others if (value := PLAIN.number(name)) is not None]
    if not codes or len(others) < 2 or (numbers and len(numbers) < len(others)):
        return []
    if numbers and not all(abs(float(code)) > 3 * max(map(abs, numbers)) + 3 for code in codes):
        return []
    return [
        f"{counts[code]:,} labels are {code!r}, which often denotes a missing value, but are treated as a class; "
        "remove these rows if they have no label"
        for code in codes
    ]


def in_dates(name: str, cells: Sequence[Any], values: Sequence[datetime | time | None]) -> list[str]:
    """Return warnings about the dates in a column: dates commonly used as codes, and different time zones.

    `values` contains the date in each of the `cells`.
    """
    known = [value for value in values if isinstance(value, datetime)]
    written = {
        value.date().isoformat(): str(cell).strip()
        for cell, value in zip(cells, values, strict=True)
        if isinstance(value, datetime)
    }
    found = []
    counts = Counter(value.date().isoformat() for value in known)
    for code in sorted(DATES & counts.keys()):
        rest = [count for day, count in counts.items() if day != code]
        if counts[code] >= REPEATED and rest and counts[code] >= FREQUENT * float(np.median(rest)):
            found.append(
                f"column {name!r}: {counts[code]:,} dates are {code}, which often denotes a missing value; if it does, "
                f"pass --set 'dataset.missing_values=[\"{written[code]}\"]'"
            )
    zones = {value.utcoffset() for value in known}
    if len(zones) > 1:
        shown = ", ".join(sorted(set(map(zone, known)))[:4])
        found.append(
            f"column {name!r}: the dates have different time zones ({shown}), but their parts, such as the hour, were "
            "not converted to a common time zone; convert them to one time zone"
        )
    return found
