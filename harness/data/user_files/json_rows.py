"""Rows of JSON files: one object per line, or an array of objects."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from harness.data.user_files.delimited import MAX_COLUMNS, Row, check_decoded
from harness.data.user_files.encodings import INCOMPLETE, is_encodable, is_utf8
from harness.data.user_files.problems import Problems, TooManyRowsError
from harness.data.user_files.spelling import lookalikes
from harness.errors import DataError

MAX_CELLS, CELLS_PER_CHARACTER = 50_000_000, 8
"""Number of cells below which every table is accepted. In larger tables, the number of cells per character of the file
is limited, because a small file with different keys in each row would become a huge table of missing values.
"""


class RepeatedKeyError(ValueError):
    """An object that contains a key more than once."""


def read_json(
    source: str, text: str, problems: Problems, most_rows: int | None = None
) -> tuple[list[str], list[Row], list[str]]:
    """Return the column names, the rows and a list of warnings. Rows that cannot be read are added to `problems`.

    ``NaN`` and ``Infinity`` are accepted although they are not part of JSON, because Python writes them. Raises
    `harness.DataError` if a key contains half of a surrogate pair, or if the rows have different keys, so that nearly
    all cells of the table would be missing. Raises `TooManyRowsError` if there are more than `most_rows` rows, good or
    bad.
    """
    rows: list[Row] = []
    undecoded: list[str] = []
    items = _array(text)
    found = _lines(source, text) if items is None else items
    if most_rows is not None and len(found) > most_rows:
        raise TooManyRowsError(source, most_rows)
    for where, item in found:
        if items is None and not is_utf8(item):
            problems.add(where, "the row contains bytes that are not UTF-8")
            undecoded.append(where)
            continue
        try:
            value = parsed(item) if items is None else item
            if isinstance(value, RepeatedKeyError):
                raise value
        except RepeatedKeyError as error:
            problems.add(where, str(error))
        except (ValueError, RecursionError) as error:
            problems.add(where, f"invalid JSON ({error})")
        else:
            if isinstance(value, dict):
                rows.append((where, value))
            else:
                problems.add(where, 'expected a JSON object, such as {"text": "...", "label": "..."}')
    check_decoded(source, undecoded, problems)
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    if most_rows is not None and len(names) > MAX_COLUMNS:
        raise TooManyRowsError(source, MAX_COLUMNS, "columns")
    if broken := next((name for name in names if not is_encodable(name)), None):
        raise DataError(f"{source}: the key {broken!r} contains {INCOMPLETE}; rename the key")
    if len(rows) * len(names) > max(MAX_CELLS, CELLS_PER_CHARACTER * len(text)):
        raise DataError(
            f"{source}: the {len(rows):,} rows have {len(names):,} different keys, and most rows contain few of them; "
            "use the same keys in all rows"
        )
    partial = [(name, sum(name not in row for _, row in rows)) for name in names]
    return names, rows, [*_absent(partial, len(rows)), *lookalikes(names, "column name")]


def parsed(text: str) -> Any:
    """Decode JSON text, which may contain the numbers ``NaN`` and ``Infinity``. Raises ValueError for repeated keys."""
    try:
        value = msgspec.json.decode(text)
        message = ""
    except msgspec.DecodeError as error:
        value, message = None, str(error)
    if not message and not (isinstance(value, dict) and text.count(":") > len(value)):
        return value  # an object with at most one key has no repeated keys
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError:
        raise ValueError(message) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = marked(pairs)
    if isinstance(row, RepeatedKeyError):
        raise row
    return row


def marked(pairs: list[tuple[str, Any]]) -> dict[str, Any] | RepeatedKeyError:
    """Return a JSON object as a dictionary, or an exception that names a repeated key. Use as ``object_pairs_hook``."""
    row = dict(pairs)
    if len(row) == len(pairs):
        return row
    counts = Counter(name for name, _ in pairs)
    return RepeatedKeyError(
        f"the object contains the key {next(name for name, count in counts.items() if count > 1)!r} more than once"
    )


def _array(text: str) -> list[tuple[str, Any]] | None:
    """Return the position and value of each item if the file is a JSON array, and None otherwise."""
    if not text.lstrip().startswith("["):
        return None
    try:
        items = json.loads(text, object_pairs_hook=marked)
    except (ValueError, RecursionError):
        return None
    return [(f"row {number}", item) for number, item in enumerate(items, start=1)]


def _lines(source: str, text: str) -> Sequence[tuple[str, Any]]:
    """Return the position and text of each non-empty line."""
    lines = re.split("\r\n|\r|\n", text)  # str.splitlines() would also split at U+2028
    found = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if found and found[0][1].strip() in ("{", "["):
        raise DataError(
            f"{source}: line {found[0][0]} contains only {found[0][1].strip()!r}, so a row spans several lines; "
            "write each object on one line, or all objects as one JSON array"
        )
    return [(f"row {row} (line {line})", content) for row, (line, content) in enumerate(found, start=1)]


def _absent(partial: list[tuple[str, int]], rows: int) -> list[str]:
    """Return a warning about keys that are missing in some rows."""
    found = [(name, count) for name, count in partial if count]
    if not found:
        return []
    shown = ", ".join(f"{name!r} in {count:,}" for name, count in found[:5])
    more = f" and {len(found) - 5} more keys" if len(found) > 5 else ""
    return [f"some keys are missing in some of the {rows:,} rows; the values are treated as missing: {shown}{more}"]
