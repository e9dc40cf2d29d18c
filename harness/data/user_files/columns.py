"""Roles of table columns, and conversion of columns with texts, labels, splits, groups and slices."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from harness.data.resampling import MAX_SPLITS
from harness.data.user_files.encodings import INCOMPLETE, encodable, is_encodable
from harness.data.user_files.notations import ERRORS, MISSING, PLAIN, Notation, examined, words_for_missing
from harness.data.user_files.options import UserOptions
from harness.data.user_files.problems import Problems
from harness.data.user_files.spelling import is_invisible
from harness.data.user_files.splitting import NAMES
from harness.data.user_files.tables import Table
from harness.errors import UnknownNameError, UsageError

SPLIT_NAME = re.compile(
    r"split|fold|k_?fold|partition|subset|(is|in)[_ ]?(train|training|test|validation|val|valid|dev|holdout)"
)
"""Pattern that matches the lowercase names of columns that may define splits."""
INTERSECTION = "*"
"""Character that separates the column names in the name of a slice intersection."""
SLICE_LETTERS = 60
"""Maximum length of strings in a slice column. Longer strings are truncated."""


class Columns:
    """Assignment of columns to roles.

    If the user did not specify a column for a role, a column with a common name for the role is used. If there is no
    such column, the only suitable column is used. `guessed` lists the roles that were inferred. Raises
    `harness.UnknownNameError` if a column does not exist.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.guessed: list[str] = []
        self._assigned: set[str] = set()

    def assign(self, name: str | None) -> str | None:
        """Assign the column that the user specified, if any. Raises `harness.UsageError` if the column already has a
        different role."""
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

    def joined(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the column names listed by the user, after rejoining names that contain commas.

        The command line splits lists at commas, so a column named ``height, m`` is passed as two names.
        """
        if all(name in self.table.columns for name in names):
            return tuple(names)
        result: list[str] = []
        rest = list(names)
        spelled = {re.sub(r"\s*,\s*", ",", name): name for name in self.table.columns if "," in name}
        while rest:
            first = rest[0]
            end = next((end for end in range(len(rest), 1, -1) if ",".join(rest[:end]) in spelled), 1)
            result.append(spelled[",".join(rest[:end])] if end > 1 else first)
            del rest[:end]
        return tuple(result)

    def intersected(self, name: str) -> tuple[str, ...]:
        """Return the columns of a slice: `name` itself, or the columns whose names are joined with ``*``.

        Raises `harness.UnknownNameError` if a column does not exist, and `harness.UsageError` if a column is repeated.
        """
        if name in self.table.columns or INTERSECTION not in name:
            self.require(name)
            return (name,)
        parts = tuple(part.strip() for part in name.split(INTERSECTION))
        for part in parts:
            self.require(part)
        if len(set(parts)) < len(parts):
            raise UsageError(f"slice column {name!r} lists a column twice; list each column once")
        return parts

    def require(self, name: str) -> None:
        """Raise `harness.UnknownNameError` if the column does not exist."""
        if name not in self.table.columns:
            raise UnknownNameError("column", name, self.table.columns, hint=f"(in {self.table.source})")

    def infer_by_name(
        self, role: str, names: Sequence[str], fits: Callable[[list[Any]], bool] = lambda cells: True
    ) -> str | None:
        """Assign `role` to the unassigned column whose name is in `names` and whose cells satisfy `fits`.

        Letter case is ignored. The role is assigned only if exactly one column qualifies.
        """
        candidates = [
            name for name in self.unassigned() if name.strip().lower() in names and fits(self.table.columns[name])
        ]
        return self._infer(role, candidates[0]) if len(candidates) == 1 else None

    def infer_only(self, role: str, fits: Callable[[list[Any]], bool] = lambda cells: True) -> str:
        """Assign `role` to the unassigned column whose cells satisfy `fits`.

        Raises `harness.UsageError` unless exactly one column qualifies.
        """
        candidates = [name for name in self.unassigned() if fits(self.table.columns[name])]
        if len(candidates) != 1:
            columns = ", ".join(self.table.columns)
            raise UsageError(
                f"{self.table.source}: cannot infer the {role.replace('_', ' ')}; specify "
                f"--{role.replace('_', '-')} (dataset.{role}); the columns are: {columns}"
            )
        return self._infer(role, candidates[0])

    def unassigned(self) -> list[str]:
        """Return the names of the columns without a role."""
        return [name for name in self.table.columns if name not in self._assigned]

    def infer_rest(self, role: str, without: Collection[str] = ()) -> list[str]:
        """Assign `role` to all columns without a role, except those in `without`, and return their names."""
        names = [name for name in self.unassigned() if name not in without]
        self._assigned.update(names)
        self.guessed.append(role)
        return names

    def _infer(self, role: str, name: str) -> str:
        self._assigned.add(name)
        self.guessed.append(role)
        return name


def is_missing(cell: Any) -> bool:
    """Return whether a cell is empty or consists only of blanks and invisible characters."""
    if isinstance(cell, str):
        return is_invisible(cell)
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def holds_text(cells: list[Any]) -> bool:
    """Return whether most cells, ignoring missing values, are strings that cannot be parsed as numbers."""
    known = [cell for cell in cells if not PLAIN.is_missing(cell)]
    texts = sum(isinstance(cell, str) and PLAIN.number(cell) is None for cell in known)
    return 2 * texts > len(known)


def holds_splits(cells: list[Any]) -> bool:
    """Return whether any cell contains the name of a split. If so, rows with other values are treated as bad rows."""
    return any(str(cell).strip().lower() in NAMES for cell in cells)


def unused_splits(table: Table, used: str | None) -> list[str]:
    """Return a warning for each column that seems to define the splits, but is not the split column."""
    found = []
    for name, cells in table.columns.items():
        if name != used and SPLIT_NAME.fullmatch(name.strip().lower()):
            found.append(
                f"column {name!r} was not used to split the rows; pass --split-column if it contains splits, or "
                "--fold-column if it contains folds"
            )
            continue
        if name == used or not {str(cell).strip().lower() for cell in cells[:100]} <= NAMES.keys():
            continue
        words = {str(cell).strip().lower() for cell in cells}
        if len({NAMES.get(word) for word in words}) > 1 and words <= NAMES.keys():
            found.append(
                f"column {name!r} contains only the names of splits ({', '.join(sorted(words))}), but it was not "
                "used to split the rows; pass --split-column to use it"
            )
    return found


def texts(table: Table, column: str, problems: Problems) -> list[str]:
    """Return the strings in a column. Rows whose cell is empty or not a string are added to `problems`."""
    cells = table.columns[column]
    for where, cell in zip(table.where, cells, strict=True):
        if is_missing(cell):
            problems.add(where, f"the text in column {column!r} is empty")
        elif not isinstance(cell, str):
            problems.add(where, f"column {column!r} contains {shown(cell)}, which is not text")
        elif not is_encodable(cell):
            problems.add(where, f"the text in column {column!r} contains {INCOMPLETE}")
    return [cell if isinstance(cell, str) else "" for cell in cells]


def words(table: Table, column: str, what: str, problems: Problems) -> list[str]:
    """Return the labels, paths or groups in a column as strings.

    Cells from JSONL and Parquet files are typed. All cells in a column must have the same type: string, integer or
    boolean. Rows with a missing value or a value of a different type are added to `problems`.
    """
    cells = [
        int(cell) if isinstance(cell, float) and cell.is_integer() else cell for cell in table.columns[column]
    ]  # Parquet files written by pandas store integers with missing values as floats
    kinds = [type(cell) for cell in cells if not is_missing(cell)]
    usual = max(dict.fromkeys(kinds), key=kinds.count, default=str)
    found = []
    for where, cell in zip(table.where, cells, strict=True):
        text = ""
        if is_missing(cell):
            problems.add(where, f"the {what} in column {column!r} is missing")
        elif not isinstance(cell, str | int):
            problems.add(
                where, f"the {what} in column {column!r} is {shown(cell)}, which is neither text nor an integer"
            )
        elif isinstance(cell, str) and not is_encodable(cell):
            problems.add(where, f"the {what} in column {column!r} contains {INCOMPLETE}")
        elif type(cell) is not usual:
            problems.add(
                where,
                f"mixed types: the {what} in column {column!r} is {shown(cell)}, but most of the column's cells are "
                f"{_type_name(usual)}",
            )
        else:
            text = str(cell).strip() if not isinstance(cell, bool) else str(cell).lower()
        found.append(text)
    return found


def label(cell: Any) -> str | None:
    """Return a label in the format that `words` returns, or None if the cell is missing."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    if is_missing(cell):
        return None
    text = str(cell).strip() if not isinstance(cell, bool) else str(cell).lower()
    return unicodedata.normalize("NFC", text) or None


def splits(table: Table, column: str, problems: Problems) -> list[str]:
    """Return the split of each row. Rows with an unknown split are added to `problems`."""
    found = []
    for where, cell in zip(table.where, table.columns[column], strict=True):
        name = NAMES.get(str(cell).strip().lower())
        if name is None:
            problems.add(where, f"column {column!r} contains {shown(cell)}; expected one of {', '.join(NAMES)}")
        found.append(name or "")
    return found


def folds(table: Table, column: str, problems: Problems) -> list[str]:
    """Return the fold of each row as a string. Rows without a fold are added to `problems`.

    Raises `harness.UsageError` if the column contains the names of splits.
    """
    cells = table.columns[column]
    if {str(cell).strip().lower() for cell in cells if not is_missing(cell)} <= NAMES.keys():
        raise UsageError(f"column {column!r} of {table.source} contains the names of splits; pass --split-column")
    return words(table, column, "fold", problems)


def number_of_folds(cells: Iterable[str], source: str, options: UserOptions) -> int:
    """Return the number of distinct values in the fold column.

    Raises `harness.UsageError` if there are too few or too many folds, or if the options contradict the number of
    folds.
    """
    column, expected = options.fold_column, options.folds
    count = len({cell for cell in cells if cell})
    if not 2 <= count <= MAX_SPLITS:
        raise UsageError(
            f"column {column!r} of {source} has {count} different values, but there must be between 2 and {MAX_SPLITS} "
            "folds; specify another fold column"
        )
    if expected not in (None, count):
        raise UsageError(
            f"column {column!r} of {source} has {count} different values, but dataset.folds is {expected}; remove "
            "dataset.folds"
        )
    if options.split is not None and not 1 <= options.split <= count:
        raise UsageError(
            f"unknown split {options.split}; the {count} folds in column {column!r} of {source} are numbered from 1 to "
            f"{count}"
        )
    return count


def split_warnings(table: Table, column: str) -> list[str]:
    """Return a warning if the split column contains several names for the same split."""
    spelled: dict[str, set[str]] = {}
    for cell in table.columns[column]:
        word = str(cell).strip().lower()
        if word in NAMES:
            spelled.setdefault(NAMES[word], set()).add(word)
    return [
        f"column {column!r}: {' and '.join(map(repr, sorted(words)))} were merged into the {name} split"
        for name, words in spelled.items()
        if len(words) > 1
    ]


def slice_values(table: Table, column: str, *, names: bool, notation: Notation = PLAIN) -> list[float] | list[str]:
    """Return the values of a slice column: numbers if all cells are numbers and `names` is false, and strings
    otherwise.

    Missing numbers become NaN, and missing strings become empty strings. Whitespace in strings is collapsed to single
    spaces, and strings are truncated to `SLICE_LETTERS` characters. Different strings with the same truncated form are
    numbered.
    """
    cells = table.columns[column]
    finding = examined(cells, notation)
    if finding is not None and finding.notation is not None and finding.count == len(cells):
        notation = finding.notation
    values = [notation.number(cell) for cell in cells]
    known = [value for value in values if value is not None]
    if len(known) == len(cells) and not names:
        return known
    return _truncated(["" if is_missing(cell) else _one_line(cell) for cell in cells])


def _one_line(cell: Any) -> str:
    return encodable(" ".join((str(cell).lower() if isinstance(cell, bool) else str(cell)).split()))


def _truncated(texts: Sequence[str]) -> list[str]:
    starts: dict[str, list[str]] = {}
    for text in sorted({text for text in texts if len(text) > SLICE_LETTERS}):
        starts.setdefault(text[:SLICE_LETTERS], []).append(text)
    short = {
        text: f"{start}..." + (f" ({number})" if len(members) > 1 else "")
        for start, members in starts.items()
        for number, text in enumerate(members, start=1)
    }
    return [short.get(text, text) for text in texts]


def shown(cell: Any) -> str:
    """Format a cell for a message."""
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _type_name(kind: type) -> str:
    return {str: "text", int: "integers", bool: "true or false"}.get(kind, kind.__name__)


def word_warnings(cells: Iterable[Any], column: str, what: str) -> list[str]:
    """Return a warning if cells that are read as text, labels or groups contain words that often denote a missing
    value.
    """
    words = words_for_missing(cells, MISSING | ERRORS)
    if not words:
        return []
    count = sum(words.values())
    return [
        f"column {column!r}: {count:,} {'cell is' if count == 1 else 'cells are'} {listed(words)}, which "
        f"{'is' if len(words) == 1 else 'are'} kept as {what}"
    ]


def listed(names: Iterable[Any]) -> str:
    """Format the first few names for a message."""
    names = list(names)
    return ", ".join(map(shown, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
