"""Roles of table columns, and conversion of their cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from harness.data.user_files.problems import Problems
from harness.data.user_files.splitting import NAMES
from harness.data.user_files.tables import Table
from harness.errors import DataError, UnknownNameError, UsageError

MISSING = frozenset(("", "na", "n/a", "nan", "null", "none"))
"""Values, in lower case, that count as missing in a numeric column."""


SLICE_LETTERS = 60
"""Number of characters to which strings in a slice column are truncated."""
LARGEST = 1e100
"""Largest accepted absolute value of a number. It keeps the sum of squares for standardization finite."""


class Columns:
    """Assignment of columns to roles: the user's choice, else a column with a usual name, else the only candidate.

    `guessed` lists the roles that were inferred. Raises `harness.UnknownNameError` for a column that does not exist.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.guessed: list[str] = []
        self._assigned: set[str] = set()

    def assign(self, name: str | None) -> str | None:
        """Assign the column that the user specified, if any. Raises `harness.UsageError` if it has another role."""
        if name is None:
            return None
        self.require(name)
        if name in self._assigned:
            raise UsageError(
                f"column {name!r} of {self.table.source} is specified for two roles; specify another column for one "
                "of them"
            )
        self._assigned.add(name)
        return name

    def require(self, name: str) -> None:
        """Raise `harness.UnknownNameError` if the column does not exist. The column is not assigned."""
        if name not in self.table.columns:
            raise UnknownNameError("column", name, self.table.columns, hint=f"(in {self.table.source})")

    def infer_by_name(
        self, role: str, names: Sequence[str], fits: Callable[[list[Any]], bool] = lambda cells: True
    ) -> str | None:
        """Assign the column whose name is in `names` (ignoring case) and whose cells fit, if there is exactly one."""
        candidates = [
            name for name in self.unassigned() if name.strip().lower() in names and fits(self.table.columns[name])
        ]
        return self._infer(role, candidates[0]) if len(candidates) == 1 else None

    def infer_only(self, role: str, fits: Callable[[list[Any]], bool] = lambda cells: True) -> str:
        """Assign the only unassigned column whose cells fit. Raises `harness.UsageError` if there is none or more than
        one."""
        candidates = [name for name in self.unassigned() if fits(self.table.columns[name])]
        if len(candidates) != 1:
            columns = ", ".join(self.table.columns)
            raise UsageError(
                f"{self.table.source}: cannot infer the {role.replace('_', ' ')}; specify "
                f"--{role.replace('_', '-')} (dataset.{role}); the columns are: {columns}"
            )
        return self._infer(role, candidates[0])

    def unassigned(self) -> list[str]:
        """Return the columns that have no role yet."""
        return [name for name in self.table.columns if name not in self._assigned]

    def infer_rest(self, role: str) -> list[str]:
        """Assign all columns that have no role yet."""
        names = self.unassigned()
        self._assigned.update(names)
        self.guessed.append(role)
        return names

    def _infer(self, role: str, name: str) -> str:
        self._assigned.add(name)
        self.guessed.append(role)
        return name


def is_missing(cell: Any) -> bool:
    """Return whether a cell is empty."""
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def holds_text(cells: list[Any]) -> bool:
    """Return whether most cells are strings that cannot be parsed as numbers."""
    known = [cell for cell in cells if not is_missing(cell)]
    texts = sum(isinstance(cell, str) and number(cell) is None for cell in known)
    return 2 * texts > len(known)


def holds_splits(cells: list[Any]) -> bool:
    """Return whether most cells are split names."""
    return 2 * sum(str(cell).strip().lower() in NAMES for cell in cells) > len(cells)


def number(cell: Any) -> float | None:
    """Return the cell as a number, NaN if it is missing, or None if it is not a number."""
    if isinstance(cell, bool):
        return None
    if isinstance(cell, int | float):
        try:
            return float(cell)
        except OverflowError:  # integers in JSON may be arbitrarily large
            return math.inf if cell > 0 else -math.inf
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        text = cell.strip()
        if text.lower() in MISSING:
            return math.nan
        if "_" in text:  # float() accepts 1_000, which is Python syntax
            return None
        try:
            return float(text)
        except ValueError:
            return None
    try:
        return float(cell)  # decimals from Parquet
    except (TypeError, ValueError):
        return None


def texts(table: Table, column: str, problems: Problems) -> list[str]:
    """Return the strings in a column. Rows whose cell is empty or not a string are added to `problems`."""
    cells = table.columns[column]
    for where, cell in zip(table.where, cells, strict=True):
        if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
            problems.add(where, f"the text in column {column!r} is empty")
        elif not isinstance(cell, str):
            problems.add(where, f"column {column!r} contains {_shown(cell)}, which is not text")
    return [cell if isinstance(cell, str) else "" for cell in cells]


def words(table: Table, column: str, what: str, problems: Problems) -> list[str]:
    """Return the labels, paths or groups in a column as strings.

    Cells from JSONL and Parquet files are typed. All cells in a column must have its most frequent type: string,
    integer or boolean. Rows with a missing value or another type are added to `problems`.
    """
    cells = [
        int(cell) if isinstance(cell, float) and cell.is_integer() else cell for cell in table.columns[column]
    ]  # Parquet files written by pandas store integers with missing values as floats
    kinds = [type(cell) for cell in cells if not is_missing(cell)]
    usual = max(dict.fromkeys(kinds), key=kinds.count, default=str)
    found = []
    for where, cell in zip(table.where, cells, strict=True):
        text = ""
        if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
            problems.add(where, f"the {what} in column {column!r} is missing")
        elif not isinstance(cell, str | int):
            problems.add(
                where, f"the {what} in column {column!r} is {_shown(cell)}, which is neither text nor an integer"
            )
        elif type(cell) is not usual:
            problems.add(
                where,
                f"mixed types: the {what} in column {column!r} is {_shown(cell)}, but most of the column is "
                f"{_type_name(usual)}",
            )
        else:
            text = str(cell).strip() if not isinstance(cell, bool) else str(cell).lower()
        found.append(text)
    return found


def splits(table: Table, column: str, problems: Problems) -> list[str]:
    """Return the split of each row. Rows with an unknown split are added to `problems`."""
    found = []
    for where, cell in zip(table.where, table.columns[column], strict=True):
        name = NAMES.get(str(cell).strip().lower())
        if name is None:
            problems.add(where, f"column {column!r} contains {_shown(cell)}; expected one of {', '.join(NAMES)}")
        found.append(name or "")
    return found


def numbers(table: Table, column: str, problems: Problems, *, target: bool = False) -> list[float]:
    """Return the numbers in a column. Rows whose value is not a finite number are added to `problems`.

    A missing value becomes NaN in a feature column and is added to `problems` in a target column.
    """
    found = []
    what = "target column" if target else "column"
    for where, cell in zip(table.where, table.columns[column], strict=True):
        value = number(cell)
        if value is None:
            mixed = "" if target else "mixed types: "
            problems.add(where, f"{mixed}{what} {column!r} contains {_shown(cell)}, which is not a number")
        elif math.isinf(value):
            problems.add(where, f"{what} {column!r} contains {_shown(cell)}, which is not finite")
        elif abs(value) > LARGEST:
            problems.add(
                where, f"{what} {column!r} contains {_shown(cell)}, which is larger than {LARGEST:g} in absolute value"
            )
        elif target and math.isnan(value):
            problems.add(where, f"{what} {column!r} has no value ({_shown(cell)})")
        found.append(math.nan if value is None else value)
    return found


def categories(table: Table, column: str, problems: Problems, *, declared: bool) -> list[str | None]:
    """Return the category in each row of a column, or None where it is missing.

    Unless the column is `declared` categorical, rows with numbers are added to `problems`, and `harness.DataError` is
    raised if nearly every row contains a different string.
    """
    found: list[str | None] = []
    for where, cell in zip(table.where, table.columns[column], strict=True):
        if is_missing(cell):
            found.append(None)
        elif not isinstance(cell, str | int | float) or (isinstance(cell, float) and not cell.is_integer()):
            problems.add(where, f"column {column!r} contains {_shown(cell)}, which is not a category")
            found.append(None)
        elif not declared and number(cell) is not None and not isinstance(cell, bool):
            problems.add(
                where,
                f"mixed types: column {column!r} contains the number {_shown(cell)}, but most of its cells are text",
            )
            found.append(None)
        else:
            found.append(str(int(cell)) if isinstance(cell, float) else str(cell).strip())
    distinct = len({cell for cell in found if cell is not None})
    if not declared and distinct > max(20, len(found) // 2):
        raise DataError(
            f"{table.source}: column {column!r} has {distinct} distinct texts in {len(found)} rows, too many for a "
            "categorical feature; select the features with --feature-columns (dataset.feature_columns)"
        )
    return found


def slice_values(table: Table, column: str, *, names: bool) -> list[float] | list[str]:
    """Return the values of a slice column as numbers if all cells are numbers and `names` is false, else as strings.

    A missing number becomes NaN, and a missing string becomes an empty string. Strings are joined into one line and
    truncated to `SLICE_LETTERS` characters.
    """
    cells = table.columns[column]
    values = [number(cell) for cell in cells]
    known = [value for value in values if value is not None]
    if len(known) == len(cells) and not names:
        return known
    return ["" if is_missing(cell) else _one_line(cell) for cell in cells]


def _one_line(cell: Any) -> str:
    text = " ".join((str(cell).lower() if isinstance(cell, bool) else str(cell)).split())
    return text if len(text) <= SLICE_LETTERS else f"{text[:SLICE_LETTERS]}..."


def is_category(table: Table, column: str) -> bool:
    """Return whether more cells contain text than numbers."""
    values = [number(cell) for cell in table.columns[column] if not is_missing(cell)]
    return sum(value is None for value in values) > len(values) / 2


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels, sorted numerically if all are integers and alphabetically otherwise."""
    names = sorted(set(labels))
    if all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=int)
    return tuple(names)


def _shown(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _type_name(kind: type) -> str:
    return {str: "text", int: "integers", bool: "true or false"}.get(kind, kind.__name__)
