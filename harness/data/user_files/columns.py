"""Which column of a table is what, and what its cells mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from harness.data.user_files.problems import Problems
from harness.data.user_files.splitting import NAMES
from harness.data.user_files.tables import Table
from harness.errors import DataError, UnknownNameError, UsageError

MISSING = frozenset(("", "na", "n/a", "nan", "null", "none"))
"""What a cell of a column of numbers may say, in lower case, where there is no number."""


SLICE_LETTERS = 60
"""Of a longer text in a column to score by, what is left names the slice: a document is no name."""
LARGEST = 1e100
"""Up to it, the squares of a whole column have a finite sum, which standardization needs."""


class Columns:
    """Settles which column plays which part: as the user says, else as it is called, else the only one that is left.

    `guessed` is what was not said. Raises `harness.UnknownNameError` for a column that there is not.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.guessed: list[str] = []
        self._taken: set[str] = set()

    def said(self, name: str | None) -> str | None:
        """A column that the user names, checked and taken."""
        if name is None:
            return None
        self.check(name)
        if name in self._taken:
            raise UsageError(f"column {name!r} of {self.table.source} cannot play two parts")
        self._taken.add(name)
        return name

    def check(self, name: str) -> None:
        """A column that the user names must be there; it is not taken by that."""
        if name not in self.table.columns:
            raise UnknownNameError("column", name, self.table.columns, hint=f"(of {self.table.source})")

    def called(
        self, part: str, names: Sequence[str], fits: Callable[[list[Any]], bool] = lambda cells: True
    ) -> str | None:
        """The one column that is called as is usual for the part, in any case, and whose cells fit."""
        found = [name for name in self.left() if name.strip().lower() in names and fits(self.table.columns[name])]
        return self._guess(part, found[0]) if len(found) == 1 else None

    def only(self, part: str, fits: Callable[[list[Any]], bool] = lambda cells: True) -> str:
        """The one column that is left and whose cells fit. Raises `harness.UsageError`, listing the columns."""
        found = [name for name in self.left() if fits(self.table.columns[name])]
        if len(found) != 1:
            columns = ", ".join(self.table.columns)
            raise UsageError(
                f"{self.table.source}: cannot tell which column is the {part.replace('_', ' ')}: give "
                f"--{part.replace('_', '-')} (dataset.{part}); columns: {columns}"
            )
        return self._guess(part, found[0])

    def left(self) -> list[str]:
        """The columns without a part so far."""
        return [name for name in self.table.columns if name not in self._taken]

    def rest(self, part: str) -> list[str]:
        """All that are left."""
        found = self.left()
        self._taken.update(found)
        self.guessed.append(part)
        return found

    def _guess(self, part: str, name: str) -> str:
        self._taken.add(name)
        self.guessed.append(part)
        return name


def is_missing(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def holds_text(cells: list[Any]) -> bool:
    """Whether most cells are texts that are no numbers."""
    known = [cell for cell in cells if not is_missing(cell)]
    texts = sum(isinstance(cell, str) and number(cell) is None for cell in known)
    return 2 * texts > len(known)


def holds_splits(cells: list[Any]) -> bool:
    """Whether most cells name a split."""
    return 2 * sum(str(cell).strip().lower() in NAMES for cell in cells) > len(cells)


def number(cell: Any) -> float | None:
    """The number that a cell holds; NaN where it holds none; None where it holds something else."""
    if isinstance(cell, bool):
        return None
    if isinstance(cell, int | float):
        try:
            return float(cell)
        except OverflowError:  # JSON's whole numbers have no end
            return math.inf if cell > 0 else -math.inf
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        text = cell.strip()
        if text.lower() in MISSING:
            return math.nan
        if "_" in text:  # Python's own notation for digits
            return None
        try:
            return float(text)
        except ValueError:
            return None
    try:
        return float(cell)  # Parquet's decimals
    except (TypeError, ValueError):
        return None


def texts(table: Table, column: str, problems: Problems) -> list[str]:
    """The texts of a column; what is empty or no text goes to `problems`."""
    cells = table.columns[column]
    for where, cell in zip(table.where, cells, strict=True):
        if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
            problems.add(where, f"the text in column {column!r} is empty")
        elif not isinstance(cell, str):
            problems.add(where, f"column {column!r} holds {_shown(cell)}, not a text")
    return [cell if isinstance(cell, str) else "" for cell in cells]


def words(table: Table, column: str, what: str, problems: Problems) -> list[str]:
    """The labels, categories or groups of a column as text; what is missing or of another type goes to `problems`.

    JSONL and Parquet have types: a column holds texts, whole numbers or truth values, whichever most of its cells do.
    """
    cells = [
        int(cell) if isinstance(cell, float) and cell.is_integer() else cell for cell in table.columns[column]
    ]  # a column of whole numbers with gaps is one of floats in Parquet
    kinds = [type(cell) for cell in cells if not is_missing(cell)]
    usual = max(dict.fromkeys(kinds), key=kinds.count, default=str)
    found = []
    for where, cell in zip(table.where, cells, strict=True):
        text = ""
        if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
            problems.add(where, f"the {what} in column {column!r} is missing")
        elif not isinstance(cell, str | int):
            problems.add(where, f"the {what} in column {column!r} is {_shown(cell)}, neither a text nor a whole number")
        elif type(cell) is not usual:
            problems.add(where, f"mixed types: the {what} in column {column!r} is {_shown(cell)}, not {_type(usual)}")
        else:
            text = str(cell).strip() if not isinstance(cell, bool) else str(cell).lower()
        found.append(text)
    return found


def splits(table: Table, column: str, problems: Problems) -> list[str]:
    """The split of each row."""
    found = []
    for where, cell in zip(table.where, table.columns[column], strict=True):
        name = NAMES.get(str(cell).strip().lower())
        if name is None:
            problems.add(where, f"column {column!r} holds {_shown(cell)}, no split: {', '.join(NAMES)}")
        found.append(name or "")
    return found


def numbers(table: Table, column: str, problems: Problems, *, target: bool = False) -> list[float]:
    """The numbers of a column, NaN where one is missing; a target must not be. What is no finite number goes to
    `problems`."""
    found = []
    what = "target" if target else "column"
    for where, cell in zip(table.where, table.columns[column], strict=True):
        value = number(cell)
        if value is None:
            mixed = "" if target else "mixed types: "
            problems.add(where, f"{mixed}{what} {column!r} is {_shown(cell)}, not a number")
        elif math.isinf(value):
            problems.add(where, f"{what} {column!r} is {_shown(cell)}, which is not finite")
        elif abs(value) > LARGEST:
            problems.add(where, f"{what} {column!r} is {_shown(cell)}, too large to compute with (beyond {LARGEST:g})")
        elif target and math.isnan(value):
            problems.add(where, f"target {column!r} is missing ({_shown(cell)})")
        found.append(math.nan if value is None else value)
    return found


def categories(table: Table, column: str, problems: Problems, *, declared: bool) -> list[str | None]:
    """The categories of a column, None where one is missing. Unless the column is `declared` to be one of
    categories, a cell that holds a number goes to `problems`, and one text for nearly every row is refused."""
    found: list[str | None] = []
    for where, cell in zip(table.where, table.columns[column], strict=True):
        if is_missing(cell):
            found.append(None)
        elif not isinstance(cell, str | int | float) or (isinstance(cell, float) and not cell.is_integer()):
            problems.add(where, f"column {column!r} holds {_shown(cell)}, which is no category")
            found.append(None)
        elif not declared and number(cell) is not None and not isinstance(cell, bool):
            problems.add(where, f"mixed types: column {column!r} is {_shown(cell)}, a number among texts")
            found.append(None)
        else:
            found.append(str(int(cell)) if isinstance(cell, float) else str(cell).strip())
    different = len({cell for cell in found if cell is not None})
    if not declared and different > max(20, len(found) // 2):
        raise DataError(
            f"{table.source}: column {column!r} has {different} different texts in {len(found)} rows, which is no "
            "category to learn from; name the columns to use by --feature-columns (dataset.feature_columns)"
        )
    return found


def slice_values(table: Table, column: str, *, names: bool) -> list[float] | list[str]:
    """A column to score by: numbers, NaN where one is missing, if all its cells are and they are no `names`; else
    texts, empty where one is, on one line and cut at `SLICE_LETTERS`."""
    cells = table.columns[column]
    values = [number(cell) for cell in cells]
    found = [value for value in values if value is not None]
    if len(found) == len(cells) and not names:
        return found
    return ["" if is_missing(cell) else _on_a_line(cell) for cell in cells]


def _on_a_line(cell: Any) -> str:
    text = " ".join((str(cell).lower() if isinstance(cell, bool) else str(cell)).split())
    return text if len(text) <= SLICE_LETTERS else f"{text[:SLICE_LETTERS]}..."


def is_category(table: Table, column: str) -> bool:
    """Whether more cells hold texts than numbers."""
    values = [number(cell) for cell in table.columns[column] if not is_missing(cell)]
    return sum(value is None for value in values) > len(values) / 2


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The classes in order: whole numbers by value, else by their text."""
    names = sorted(set(labels))
    if all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=int)
    return tuple(names)


def _shown(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _type(kind: type) -> str:
    return {str: "a text", int: "a whole number", bool: "true or false"}.get(kind, kind.__name__)
