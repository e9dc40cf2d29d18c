"""Conversion of the date and time columns of tables to numeric features, and of a time column to times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, time

from harness.data.user_files import dates
from harness.data.user_files.columns import shown
from harness.data.user_files.missing_codes import in_dates
from harness.data.user_files.notations import PLAIN, Notation
from harness.data.user_files.problems import Problems
from harness.data.user_files.tables import Table
from harness.errors import DataError


def date_values(
    table: Table, column: str, problems: Problems, form: str | None, notation: Notation
) -> list[datetime | time | None]:
    """Return the date or time in each cell of a column, or None for a missing value. Rows whose cell is neither missing
    nor a date are added to `problems`.
    """
    values = []
    for where, cell in zip(table.where, table.columns[column], strict=True):
        known = not notation.is_missing(cell)
        value = dates.parsed(cell, form, digits=True) if known else None
        if known and value is None:
            problems.add(
                where, f"column {column!r} contains {shown(cell)}, which is not a date in {form or 'ISO 8601'}"
            )
        values.append(value)
    return values


def date_parts(
    table: Table, column: str, values: Sequence[datetime | time | None], form: str | None
) -> tuple[dict[str, list[float]], list[str]]:
    """Return the numeric features derived from the dates in `values`, keyed by part name, such as ``month``, and a list
    of warnings. Raises `harness.DataError` if the column contains no dates.
    """
    if not any(values):
        raise DataError(
            f"{table.source}: no cell of column {column!r} is a date in the format {form or 'ISO 8601'}; specify the "
            "format in dataset.date_format, such as %d/%m/%Y"
        )
    return dates.parts(values), in_dates(column, table.columns[column], values)


def new_date_parts(
    column: str, values: Sequence[datetime | time | None], parts: Sequence[str], zones: Sequence[str] | None
) -> tuple[dict[str, list[float]], list[str]]:
    """Return the given `parts` of the dates in a column of new data, keyed by part name, and warnings.

    `zones` contains the time zones of the dates in the training data, as returned by `dates.zone`, or is None if they
    are unknown.
    """
    warnings = []
    other = [dates.zone(value) for value in values if isinstance(value, datetime) and zones is not None]
    other = [zone for zone in other if zone not in (zones or ())]
    if other:
        warnings.append(
            f"column {column!r}: the dates of {len(other):,} new row{'s' * (len(other) != 1)} have a time zone "
            f"({', '.join(dict.fromkeys(other))}) that does not occur in the training data ({', '.join(zones or ())}); "
            "dates are not converted to another time zone"
        )
    timed = 0 if "hour" in parts else sum(value is not None and bool(dates.hour(value)) for value in values)
    if timed:
        warnings.append(
            f"column {column!r}: the time of day in {timed:,} new row{'s' * (timed != 1)} is ignored, because the "
            "dates in the training data have none"
        )
    return {name: dates.named_part(values, name) for name in parts}, warnings


def moments(table: Table, column: str, problems: Problems, form: str | None) -> list[float]:
    """Return the time of each row in arbitrary units. Rows without a time are added to `problems`. Raises
    `harness.DataError` if the column mixes numbers, times with a time zone and times without one.
    """
    found = []
    kinds = set()
    for where, cell in zip(table.where, table.columns[column], strict=True):
        value = dates.parsed(cell, form)
        seconds = dates.moment(value)
        if seconds is not None:
            kinds.add("with a time zone" if getattr(value, "tzinfo", None) else "without a time zone")
        elif value is None:
            seconds = PLAIN.number(cell)
        if seconds is None or not math.isfinite(seconds):
            problems.add(
                where,
                f"time column {column!r} contains {shown(cell)}, which is neither a number nor a date in "
                f"{form or 'ISO 8601'}"
                + ("" if form else "; specify the format in dataset.date_format, such as %d/%m/%Y"),
            )
        elif value is None:
            kinds.add("given as numbers")
        found.append(math.nan if seconds is None else seconds)
    if len(kinds) > 1:
        raise DataError(
            f"{table.source}: the times in column {column!r} cannot be compared: some are "
            f"{' and some '.join(sorted(kinds))}; write all of them in the same form"
        )
    return found
