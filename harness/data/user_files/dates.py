"""Dates and times in tables."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

ISO = re.compile(r"\d{4}-\d\d(-\d\d)?([T ]\d\d:?\d\d(:?\d\d([.,]\d+)?)?\s*(Z|[+-]\d\d:?(\d\d)?)?)?")
CLOCK = re.compile(r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?")
MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec|january|february|march|april|june|july|august|september"
MONTHS = f"({MONTHS}|october|november|december)"
OTHER = (
    re.compile(r"\d{1,2}([./-])\d{1,2}\1(\d{4}|\d{2})(,?[T ].*)?"),
    re.compile(r"\d{4}([./-])\d{1,2}\1\d{1,2}([T ].*)?"),
    re.compile(rf"(\w+,? )?\d{{1,2}}\.?[ -]{MONTHS}\.?([ -]\d{{2,4}})?(,? .*)?", re.IGNORECASE),
    re.compile(rf"(\w+,? )?{MONTHS}\.?[ -]\d{{1,4}}(st|nd|rd|th)?(,? ?\d{{4}})?(,? .*)?", re.IGNORECASE),
    re.compile(r"\d{1,2}(:[0-5]\d){1,2} ?[ap]\.?m\.?", re.IGNORECASE),
    re.compile(r"\d{4}-W\d\d(-\d)?|\d{8}T\d{4,6}Z?|\d{4}[- ]?Q[1-4]"),
)
"""Patterns for common date and time notations other than ISO 8601, and for weeks and quarters."""
GUESSES = (
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y/%m/%d",
    "%d %b %Y",
    "%b %d, %Y",
    "%d-%b-%Y",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d.%m.%y",
    "%d-%m-%y",
    "%m-%d-%y",
    "%d-%b-%y",
    "%d %B %Y",
    "%d. %B %Y",
    "%B %d, %Y",
    "%b %Y",
    "%B %Y",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M %p",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
)
"""Date formats that are tried only to determine whether the rows are in chronological order, and to suggest a format.
"""
NAMES = ("date", "time", "timestamp", "year", "datetime")
"""Common names of time columns, in lower case."""
MOVED = 10
"""An approximate order is recognized only if randomly ordered rows would have at least this many timestamps out of
order.
"""
DISORDER = 0.2
"""Rows are considered approximately ordered if the number of timestamps out of order is at most this fraction of the
number expected in a random order.
"""
PARTS = ("year", "month", "day", "weekday", "hour")


def parsed(cell: Any, form: str | None, *, digits: bool = False) -> datetime | time | None:
    """Return the date or time of day in a cell, or None if the cell contains neither. `form` is a ``strptime`` format
    accepted in addition to ISO 8601.

    If `digits` is true, numbers such as 20210304 are treated as dates.
    """
    if isinstance(cell, datetime | time):
        return cell
    if isinstance(cell, date):
        return datetime(cell.year, cell.month, cell.day)
    text = str(cell).strip()
    if form is not None and isinstance(cell, str | int):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            pass
    if digits and re.fullmatch(r"(19|20)\d{6}(\.0)?", text):
        text = f"{text[:4]}-{text[4:6]}-{text[6:8]}"
    elif not isinstance(cell, str):
        return None
    try:
        if ISO.fullmatch(text):
            return datetime.fromisoformat(f"{text}-01" if len(text) == len("2021-03") else text.replace(" Z", "Z"))
        return time.fromisoformat(text.zfill(5) if len(text) < 5 else _padded(text)) if CLOCK.fullmatch(text) else None
    except ValueError:
        return None


def _padded(text: str) -> str:
    return f"0{text}" if text[1] == ":" else text


def looks_dated(cell: Any, form: str | None = None) -> bool:
    """Return whether a cell contains a date or time in a common notation."""
    if isinstance(cell, date | time):
        return True
    if not isinstance(cell, str) or len(cell) > 40 or not any(map(str.isdigit, cell)):
        return False
    text = cell.strip()
    return parsed(text, form) is not None or any(pattern.fullmatch(text) for pattern in OTHER)


def fitting(cells: Sequence[Any]) -> list[str]:
    """Return the common formats, other than ISO 8601, that can parse all cells."""
    return [form for form in GUESSES if all(isinstance(parsed(cell, form), datetime) for cell in cells)]


def moment(value: datetime | time | None) -> float | None:
    """Return a date as seconds since 1970, or None for a time of day.

    A date without a time zone is assumed to be in UTC.
    """
    if not isinstance(value, datetime):
        return None
    zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (zoned - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)


def zone(value: datetime) -> str:
    """Return the offset of a date from UTC, such as ``+0200``, or ``none`` for a date without a time zone."""
    return value.strftime("%z") or "none"


def parts(values: Sequence[datetime | time | None]) -> dict[str, list[float]]:
    """Return the year, month, day, weekday (0 is Monday) and hour of each value, or NaN for None.

    The hour includes minutes and seconds as a fraction. The hour is omitted if it is 0 in all values. For times of day,
    only the hour is returned.
    """
    dated = any(isinstance(value, datetime) for value in values)
    timed = any(value is not None and hour(value) for value in values)
    names = [*(PARTS[:4] if dated else ()), *(PARTS[4:] if timed or not dated else ())]
    return {name: named_part(values, name) for name in names}


def named_part(values: Sequence[datetime | time | None], name: str) -> list[float]:
    """Return one part of each value: ``year``, ``month``, ``day``, ``weekday`` or ``hour``. The result for None is
    NaN.
    """
    return [_part(value, name) for value in values]


def _part(value: datetime | time | None, name: str) -> float:
    if value is None:
        return math.nan
    if name == "hour":
        return hour(value)
    if not isinstance(value, datetime):
        return math.nan
    return float(value.weekday() if name == "weekday" else getattr(value, name))


def hour(value: datetime | time) -> float:
    """Return the hour of a date or time, including minutes and seconds as a fraction."""
    return value.hour + value.minute / 60 + (value.second + value.microsecond / 1e6) / 3600


def order(cells: Sequence[Any], numbers: Sequence[float | None]) -> str:
    """Return a description of the order of the times in the cells, or an empty string if it seems to be random.

    The description is ``in chronological order`` if the cells contain at least three distinct times in ascending or
    descending order, and ``largely in chronological order`` if the number of timestamps out of order is at most a fifth
    of the number expected in a random order. For example, a few rows may have been moved, or the file may contain
    several time series, one after the other. `numbers` contains the numeric value of each cell that is a number. At
    most 5,000 evenly spaced cells are compared.
    """
    step = len(cells) // 5000 + 1
    cells, numbers = cells[::step], numbers[::step]
    known = [number for number in numbers if number is not None and not math.isnan(number)]
    if len(known) == len(cells):
        return _order(known)
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    if len(texts) == len(cells) and all(re.fullmatch(r"\d{4}[- ]?[QW]\d\d?(-\d)?", text) for text in texts):
        return _order(texts)
    for form in (None, *GUESSES):
        if parsed(cells[0], form) is None:
            continue
        moments = [moment(parsed(cell, form)) for cell in cells]
        found = [value for value in moments if value is not None]
        if len(found) == len(cells) and (ordered := _order(found)):
            return ordered
    return ""


def _order(values: Sequence[Any]) -> str:
    pairs = list(pairwise(values))
    wrong = min(sum(a > b for a, b in pairs), sum(a < b for a, b in pairs))
    counts = Counter(values)
    if len(counts) < 3:
        return ""
    expected = len(pairs) * (1 - sum((count / len(values)) ** 2 for count in counts.values())) / 2
    if not wrong:
        return "in chronological order"
    return "largely in chronological order" if expected >= MOVED and wrong <= DISORDER * expected else ""


def are_epochs(cells: Sequence[Any]) -> bool:
    """Return whether all cells are integers that could be Unix timestamps between 2001 and 2033, in seconds or
    milliseconds.
    """
    texts = [str(cell).strip().removesuffix(".0") for cell in cells]
    return len(set(texts)) > 2 and all(re.fullmatch(r"1\d{9}(\d{3})?", text) for text in texts)


def are_digits(cells: Sequence[Any]) -> bool:
    """Return True if all cells are numbers such as 20210304 and contain at least three different dates."""
    if not all(re.fullmatch(r"(19|20)\d{6}(\.0)?", str(cell).strip()) for cell in cells[:20]):
        return False
    found = Counter(str(cell).strip() for cell in cells)
    dated = len(found) >= 3 and all(re.fullmatch(r"(19|20)\d{6}(\.0)?", text) for text in found)
    return dated and all(parsed(text, None, digits=True) is not None for text in found)
