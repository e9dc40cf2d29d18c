"""A warning about quoted cells whose lines may be separate rows, joined by a stray quote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.data.user_files.notations import PLAIN

REPEATED = 2
"""Number of other rows in which a value must occur to be considered typical of its column."""
SHOWN = 3


def swallowed_rows(
    lines: Sequence[str], spans: Sequence[tuple[int, int]], rows: Sequence[Sequence[str]], separator: str
) -> list[str]:
    """Return a warning about quoted cells whose lines look like separate rows.

    `spans` contains the range of line indices of each row whose individual lines have the same number of cells as the
    header. `rows` contains the cells of the rows that consist of one line. The lines of a row look like separate rows
    if each line contains a value that is typical of its column: a number in a column of numbers, or a value that occurs
    in at least `REPEATED` of the `rows`. Cells that contain the quotes are ignored. Lines of ordinary text rarely
    contain values that are typical of a column.
    """
    if not spans or not rows:
        return []
    columns = list(zip(*rows, strict=True))
    typical = [_typical(cells) for cells in columns]
    numeric = [
        any(map(str.strip, cells)) and all(_is_number(cell) for cell in cells if cell.strip()) for cells in columns
    ]

    def fits(column: int, cell: str) -> bool:
        cell = cell.strip().strip('"')
        if column >= len(columns):  # the separator at the end of each row is ignored
            return False
        return cell in typical[column] or (numeric[column] and _is_number(cell))

    found = []
    for first, last in spans:
        inside = [
            part for part in _inside([line.rstrip("\r\n").split(separator) for line in lines[first:last]]) if part
        ]
        if inside and all(any(fits(*each) for each in part) for part in inside):
            found.append(f"{first + 1} to {last}")
    if not found:
        return []
    shown = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    many = len(found) > 1
    return [
        f"{len(found):,} {'rows contain quoted cells' if many else 'row contains a quoted cell'} whose lines look like "
        f"separate rows (lines {shown}); if they are separate rows, remove the quotes that join them"
    ]


def _inside(lines: Sequence[Sequence[str]]) -> list[list[tuple[int, str]]]:
    """Return the cells of each line that are within the quotes, and the column of each cell.

    On the first line, the cells after the opening quote are returned, and on the last line, the cells before the
    closing quote.
    """
    first, *middle, last = [list(enumerate(cells)) for cells in lines]
    opened = max((column for column, cell in first if _is_odd(cell)), default=0)
    closed = min((column for column, cell in last if _is_odd(cell)), default=len(last))
    return [first[opened + 1 :], *middle, last[:closed]]


def _is_odd(cell: str) -> bool:
    return cell.count('"') % 2 == 1


def _typical(cells: Sequence[str]) -> set[str]:
    return {value for value, count in Counter(cell.strip() for cell in cells).items() if value and count >= REPEATED}


def _is_number(cell: str) -> bool:
    return PLAIN.number(cell) is not None and not PLAIN.is_missing(cell)
