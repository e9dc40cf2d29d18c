"""Roles and types of the columns in the user's table, for ``harness data info``."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Literal

from msgspec import Struct

from harness.data.user_files.columns import INTERSECTION, is_missing
from harness.data.user_files.notations import PLAIN
from harness.data.user_files.options import TableOptions, UserOptions
from harness.data.user_files.tables import Table

ColumnType = Literal["number", "text", "true or false", "mixed", "empty"]


class ColumnInfo(Struct, frozen=True, kw_only=True):
    """One column of a table."""

    name: str
    roles: tuple[str, ...]
    """Roles of the column, such as ``target`` or ``categorical feature``, or an empty tuple if it is ignored."""
    type: ColumnType
    """Type of the cells, ignoring missing values. Text that can be parsed as a number is treated as a number."""
    missing: int
    """Number of missing cells."""
    distinct: int
    """Number of distinct values, excluding missing ones."""


def of_table(table: Table, options: UserOptions, categorical: Container[str]) -> tuple[ColumnInfo, ...]:
    """Return a description of each column. `options` must contain all column roles, and `categorical` the names of the
    feature columns that were read as categories.
    """
    found = []
    for name, cells in table.columns.items():
        roles = _roles(name, options, categorical)
        kind = _type(cells)
        as_numbers = "numeric feature" in roles or ("target" in roles and isinstance(options.target_column, tuple))
        if kind in ("text", "mixed") and as_numbers:  # numbers in another notation, such as 12 kg
            kind = "number"
        found.append(
            ColumnInfo(
                name=name,
                roles=tuple(roles),
                type=kind,
                missing=sum(_is_missing(cell) for cell in cells),
                distinct=len({str(cell).strip() for cell in cells if not _is_missing(cell)}),
            )
        )
    return tuple(found)


def _roles(name: str, options: UserOptions, categorical: Container[str]) -> list[str]:
    targets = options.target_column
    roles = ["target"] if name == targets or (isinstance(targets, tuple) and name in targets) else []
    roles += [
        role
        for role in ("text", "path", "split", "fold", "group", "time", "weight")
        if getattr(options, f"{role}_column", None) == name
    ]
    if isinstance(options, TableOptions) and name in options.feature_columns:
        dated = name in options.date_columns
        roles.append("date feature" if dated else "categorical feature" if name in categorical else "numeric feature")
    if any(name == each or name in each.split(INTERSECTION) for each in options.slice_columns):
        roles.append("slice")
    return roles


def _is_missing(cell: Any) -> bool:
    value = PLAIN.number(cell)
    return is_missing(cell) or (value is not None and value != value)  # NaN stands for a missing value


def _type(cells: list[Any]) -> ColumnType:
    kinds: set[ColumnType] = {
        "true or false" if isinstance(cell, bool) else "text" if PLAIN.number(cell) is None else "number"
        for cell in cells
        if not _is_missing(cell)
    }
    return "empty" if not kinds else "mixed" if len(kinds) > 1 else kinds.pop()
