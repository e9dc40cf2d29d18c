"""Detection of files without a header, whose first row would be mistaken for the column names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from harness.data.user_files.notations import PLAIN

SAMPLE = 1000
"""Maximum number of rows that are examined."""


def header_warnings(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return a warning if the column names seem to be the first row of a file without a header.

    A warning is returned if the name of each numeric column is a number, and if the name of each text column with
    repeated values also occurs as a value in the same column. There is no warning if the names are increasing numbers,
    such as years, because such names are common.
    """
    known, numbers = [], []
    for name, cells in columns.items():
        texts = [str(cell).strip() for cell in cells[:SAMPLE]]
        if texts and all(map(_is_number, texts)):
            if not _is_number(name):
                return []
            numbers.append(name)
        elif 2 * len(set(texts)) <= len(texts):
            if name.strip() not in texts:
                return []
            known.append(name)
    if known:
        return [_message(f"its cell {known[0]!r} also occurs in other rows")]
    steps = [float(other) - float(one) for one, other in pairwise(numbers)]
    usual = bool(steps) and min(steps) > 0 and (len(steps) > 1 or steps == [1.0])
    return [_message(f"it contains {numbers[0]!r} above a column of numbers")] if numbers and not usual else []


def _message(why: str) -> str:
    return (
        f"the first line was read as the header, but seems to be a row of data ({why}); if so, add a line with column "
        "names"
    )


def _is_number(cell: Any) -> bool:
    value = PLAIN.number(cell)
    return value is not None and value == value
