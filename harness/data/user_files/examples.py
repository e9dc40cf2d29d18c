"""Rows of a file or folder with their labels, splits and groups, before files are decoded and splits are drawn."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.data.user_files import spelling
from harness.data.user_files.media import UNREAD, UnreadableError, check_header
from harness.data.user_files.notations import Notation
from harness.data.user_files.options import UserOptions
from harness.data.user_files.problems import Problems
from harness.data.user_files.spelling import Name
from harness.data.user_files.tables import Table
from harness.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_CATEGORIES = 12
"""Maximum number of categories per column in the data description."""

FEWEST_REPEATED = 20
"""Minimum number of distinct rows required to treat the repeated rows of a table as duplicates; see
`Examples.contents`."""


@dataclass
class Examples:
    """Sequences with one item per row. The sequences include the bad rows, which are listed in `problems`."""

    where: list[str]
    options: UserOptions
    """Options, completed with all column names and the content digest."""
    problems: Problems
    labels: list[str] | None = None
    """Class labels, or None for regression. Regression targets are stored in `numbers`."""
    numbers: list[list[float]] = field(default_factory=list)
    """Values of each target column."""
    splits: list[str] | None = None
    folds: list[str] | None = None
    """Value of the fold column in each row, or None if there is no fold column."""
    groups: list[str] | None = None
    weights: list[float] | None = None
    """Weight of each row in the training loss."""
    slices: dict[str, list[float] | list[str]] = field(default_factory=dict)
    """Values of each slice column."""
    texts: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    """Digest of each file's content. After decoding, each digest is replaced by the digest of the decoded content."""
    bytes_digests: list[str] = field(default_factory=list)
    """Digest of each file's undecoded content, if `digests` refers to the decoded content."""
    features: list[list[float]] = field(default_factory=list)
    """Values of each numeric column, with NaN for missing values."""
    feature_names: list[str] = field(default_factory=list)
    """Name of each numeric column. Each part of a date, such as the month, is a separate column."""
    categories: list[list[str | None]] = field(default_factory=list)
    category_names: list[str] = field(default_factory=list)
    notations: dict[str, Notation] = field(default_factory=dict)
    """Notation of each numeric column, including the targets."""
    date_parts: dict[str, list[str]] = field(default_factory=dict)
    """Names of the features derived from each date column."""
    time_zones: dict[str, list[str]] = field(default_factory=dict)
    """Time zones of the dates in each date column; see `harness.data.user_files.dates.zone`."""
    names: list[str] = field(default_factory=list)
    """Path of each file, as written in the metadata file or relative to the folder."""
    times: list[float] | None = None
    """Time of each row, used to split the rows."""
    ordered: dict[str, str] = field(default_factory=dict)
    """Description of the row order, keyed by the name of each time column whose values are ordered; see
    `dates.order`."""
    guessed: tuple[str, ...] = ()
    """Names of the options that were inferred."""
    warnings: list[str] = field(default_factory=list)
    """Messages about data that were ignored, merged or changed."""
    table: Table | None = None
    """Table that contains the rows, or None for a folder with one folder per class."""

    def contents(self) -> list[Hashable] | None:
        """Return an identifier for the content of each row, or None if rows with the same content are not considered
        duplicates.

        Texts are compared ignoring letter case, invisible characters and repeated spaces. Files are compared by digest.
        Table rows are compared by all their features. If at least half of the rows in a table are equal to other rows,
        the features probably have few distinct values. In this case, equal rows are treated as different examples.
        However, if every row of the table is repeated, including its targets, equal rows are treated as duplicates. For
        example, the table may have been appended to itself.
        """
        if self.texts:
            return [spelling.visible(unicodedata.normalize("NFC", text).casefold()) for text in self.texts]
        if self.digests:
            return [row if digest == UNREAD else digest for row, digest in enumerate(self.digests)]
        features = [
            [None if value != value else value for value in column] if any(map(math.isnan, column)) else column
            for column in self.features
        ]  # replace NaN, which is not equal to itself
        rows: list[Hashable] = list(zip(*features, *self.categories, strict=True))
        if 2 * len(set(rows)) > len(rows):
            return rows
        whole = Counter(zip(rows, *([self.labels] if self.labels else self.numbers), strict=True))
        return rows if len(whole) >= FEWEST_REPEATED and math.gcd(*whole.values()) > 1 else None

    def encodings(self, rows: Sequence[int]) -> dict[str, str]:
        """Return the categories of each categorical column in the training `rows`. A task uses these categories to
        encode the column.

        The most frequent categories are listed with their number of rows.
        """
        found = {}
        for name, cells in zip(self.category_names, self.categories, strict=True):
            counts = Counter("missing" if cells[row] is None else _category(cells[row]) for row in rows)
            listed = [f"{category[:40]} ({count:,})" for category, count in counts.most_common(MAX_CATEGORIES)]
            more = [f"{len(counts) - MAX_CATEGORIES} more"] if len(counts) > MAX_CATEGORIES else []
            found[f"categories of {name}"] = ", ".join([*listed, *more])
        return found

    def origins(self) -> NDArray[Any]:
        """Return the path of each file, or the number of each row (starting at 1)."""
        import numpy as np

        if self.names:
            return np.array(self.names, np.str_)
        return np.array([row_number(where) for where in self.where], np.int64)

    def reading(self) -> dict[str, Any]:
        """Return a description of how the columns of a table were read; see `RawData.reading`."""
        if not self.feature_names and not self.category_names:
            return {}
        return {
            "numbers": {name: notation.as_json() for name, notation in self.notations.items()},
            "dates": self.date_parts,
            "time_zones": self.time_zones,
            "categories": list(self.category_names),
        }

    def all_warnings(self) -> tuple[str, ...]:
        """Return the distinct warnings, including one about skipped rows."""
        return tuple(dict.fromkeys((*self.problems.warnings(), *self.warnings)))

    def good(self) -> list[int]:
        """Return the indices of the rows without problems."""
        if not self.problems:
            return list(range(len(self.where)))
        return [number for number, where in enumerate(self.where) if where not in self.problems]


def _category(cell: str | None) -> str:
    """Return a category as shown in a list, in quotes if it could be mistaken for a missing value."""
    return repr(cell) if cell == "missing" else str(cell)


def row_number(where: str) -> int:
    """Return the number of a row from the description of its position, such as 3 for ``row 3 (line 4)``."""
    found = re.match(r"row (\d+)", where)
    assert found is not None, where
    return int(found[1])


def spelled(names: Sequence[Name], what: str, warnings: list[str]) -> list[Name]:
    """Return the names in Unicode Normalization Form C. Add warnings about spellings that were merged or that look
    alike.
    """
    unified: tuple[list[Name], list[str]] = spelling.composed(names, what)
    warnings += [*unified[1], *spelling.lookalikes(unified[0], what), *spelling.mixed_truths(unified[0], what)]
    return unified[0]


def check_file(where: str, file: Path, kind: str, problems: Problems) -> None:
    try:
        check_header(file, kind)
    except UnreadableError as error:
        problems.add(where, unreadable(where, file, error))


def unreadable(where: str, file: Path, error: UnreadableError) -> str:
    """Return the message for an unreadable file. The message includes the file's path unless `where` is the path."""
    if file.as_posix().endswith(where):
        return str(error)
    hint = ""
    if not file.exists():
        name = file.as_posix()
        if re.search(r"(^|/)[A-Za-z]:[\\/]", name):
            hint = "; it is an absolute Windows path: write paths relative to the metadata file"
        elif re.search(r"(^|/)[a-z]+:/", name):
            hint = "; it is a URL: download the files, and write their paths"
        elif "\\" in name:
            hint = "; it was also looked up with slashes instead of backslashes"
    return f"{file}: {error}{hint}"


def with_digest(path: Path, options: UserOptions, digest: str) -> UserOptions:
    if options.sha256 not in ("", digest):
        raise DataError(
            f"{path}: the content has changed: its SHA-256 is {digest[:16]}..., expected {options.sha256[:16]}... "
            "(dataset.sha256); restore the content, or start a new run"
        )
    return msgspec.structs.replace(options, sha256=digest)
