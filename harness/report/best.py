"""Selection of the best values in a column."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.analysis.table import Cell, Column, Row


def best(rows: Sequence[Row], column: Column) -> frozenset[int]:
    """Return the indices of the rows with the best value in a column, including values that do not differ significantly
    from it.

    A value ties with the best value if both are displayed identically, or if the 95% confidence interval for the
    difference includes zero. The interval for the difference is computed from the intervals of the two values, under
    the assumption that the values are independent. Only rows with the same dataset are compared. The result is empty if
    fewer than two rows have a value, if the rows have different primary metrics, or if the column does not specify
    whether higher or lower values are better.
    """
    if column.kind != "number":
        return frozenset()
    alike: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        alike.setdefault(row.text("dataset"), []).append(index)
    return frozenset(index for part in alike.values() for index in _best(rows, part, column))


def _best(rows: Sequence[Row], part: Sequence[int], column: Column) -> frozenset[int]:
    cells = {index: rows[index].cells[column.name] for index in part}
    figures = {index: cell.value for index, cell in cells.items() if isinstance(cell.value, float)}
    better = _direction([rows[index] for index in figures], column)
    if len(figures) < 2 or not better:
        return frozenset()
    first = (max if better == "higher" else min)(figures, key=lambda index: figures[index])
    return frozenset(index for index in figures if index == first or _tie(cells[index], cells[first]))


def _direction(rows: Sequence[Row], column: Column) -> str:
    if column.name != "quality":
        return column.better
    judged = {(row.text("metric"), row.text("metric_better"), row.text("dataset")) for row in rows}
    return next(iter(judged))[1] if len(judged) == 1 else ""


def _tie(one: Cell, other: Cell) -> bool:
    assert isinstance(one.value, float)
    assert isinstance(other.value, float)
    if one.shown == other.shown:
        return True
    if one.ci95 is None or other.ci95 is None:
        return False
    return abs(one.value - other.value) <= math.hypot(one.ci95, other.ci95)
