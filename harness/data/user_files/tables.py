"""Read tables from CSV, TSV, JSON and Parquet files. A table also contains the position of each row in its file.

The types of the cells are preserved: strings in CSV and TSV files (empty if missing), JSON types in JSONL files, and
Parquet types in Parquet files. Types are not inferred, so ``01`` and ``NA`` remain strings.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.data.user_files.delimited import check_once, read_delimited
from harness.data.user_files.encodings import decoded
from harness.data.user_files.headers import header_warnings
from harness.data.user_files.json_rows import read_json
from harness.data.user_files.location import TABLES, placeholder
from harness.data.user_files.problems import Problems, TooManyRowsError
from harness.errors import DataError, RecordError, UsageError
from harness.records.reading import open_named, read_named

MAX_TABLE_BYTES = 2**40
"""Maximum size of a file. Files are read into memory."""
MARKS = {
    b"PK\x03\x04": "a spreadsheet or a ZIP archive",
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\0": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
    b"\xd0\xcf\x11\xe0": "a spreadsheet or another Microsoft Office document",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3\0": "a SQLite database",
    b"%PDF-": "a PDF document",
}
"""Initial bytes of files in binary formats."""
LINES_PER_ROW = 1000
"""If the number of rows of a file is limited, its number of lines, including empty lines, is limited to this multiple
of the number of rows. The lines of a file are kept in memory while its rows are counted, because a row can contain line
breaks.
"""
JSON = (".json", ".jsonl", ".ndjson")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "spaces"}


@dataclass(frozen=True)
class Table:
    """The rows of a file, stored by column."""

    source: str
    """Name of the file."""
    columns: dict[str, list[Any]]
    """Cells of each column. A missing cell is None or an empty string."""
    where: list[str]
    """Position of each row, such as ``row 3 (line 4)``. Rows and lines are numbered from 1."""
    folders: list[str] = field(default_factory=list)
    """Split folder of each row, or an empty list if the rows do not come from metadata files in split folders."""
    warnings: list[str] = field(default_factory=list)
    """Messages about rows and cells that were ignored or changed."""
    categorical: tuple[str, ...] = ()
    """Columns that have a categorical type, for data saved from memory."""

    def __len__(self) -> int:
        return len(self.where)


def read_table(
    path: Path,
    problems: Problems,
    *,
    encoding: str | None = None,
    separator: str | None = None,
    most_rows: int | None = None,
) -> Table:
    """Return the file's table. Unreadable rows are omitted and added to `problems`.

    `encoding` is the encoding of a text file, and `separator` is the character that separates the cells of a CSV file.
    By default, the encoding is UTF-8, and the separator is inferred. `most_rows` is the maximum number of rows, good or
    bad, in a text file.

    Raises `TooManyRowsError` if a text file has more rows, or more than `LINES_PER_ROW` lines for each permitted row.
    Raises `harness.DataError` if the file is not a valid table, and `harness.UsageError` for an unknown format or an
    option that does not apply to the format.
    """
    suffix = path.suffix.lower()
    known = (*TABLES, ".json")
    if suffix not in known:
        raise UsageError(f"{path}: unknown table format {suffix!r}; pass a file with the suffix {', '.join(known)}")
    if separator is not None and suffix != ".csv":
        raise UsageError(f"{path.name}: dataset.separator applies only to CSV files; remove it")
    if suffix == ".parquet":
        if encoding is not None:
            raise UsageError(f"{path.name}: Parquet files have no encoding; remove dataset.encoding")
        table = _read_parquet(path)
    else:
        text, warnings = decoded(path.name, _bytes(path), encoding)
        if most_rows is not None:
            check_lines(path.name, text, LINES_PER_ROW * most_rows)
        if suffix in JSON:
            names, rows, more = read_json(path.name, text, problems, most_rows)
        else:
            names, rows, more = read_delimited(path.name, text, problems, separator, most_rows)
        if suffix in JSON and any(not name.strip() for name in names):
            warnings.append("values with an empty key were ignored")
        # Drop columns without a name, in which pandas and other programs store the index.
        columns: dict[str, list[Any]] = {name: [row.get(name) for _, row in rows] for name in names if name.strip()}
        found = [] if suffix in JSON else header_warnings(columns)
        table = Table(path.name, columns, [where for where, _ in rows], warnings=[*warnings, *more, *found])
    if not len(table):  # report bad rows first, because the columns of a JSONL file are taken from its rows
        problems.settle(left=0)
    if not table.columns:
        raise DataError(f"{path.name}: the file has no named columns; name each column")
    if len(table.columns) == 1 and suffix in (".csv", ".tsv"):
        _check_separated(table)
    return table


def check_lines(source: str, text: str, most: int) -> None:
    """Raise `TooManyRowsError` if a text has more than `most` lines, ignoring line breaks at its end."""
    end = len(text.rstrip("\r\n"))
    breaks = text.count("\n", 0, end) + text.count("\r", 0, end) - text.count("\r\n", 0, end)
    if breaks >= most:
        raise TooManyRowsError(source, most, "lines")


def _check_separated(table: Table) -> None:
    """Raise `harness.DataError` if a table with a single column seems to use a different separator."""
    (name, cells), *_ = table.columns.items()
    for mark, plural in SEPARATORS.items():
        count = name.strip().count(mark)
        if count and all(isinstance(cell, str) and cell.strip().count(mark) == count for cell in cells):
            advice = "separate the cells with commas"
            if mark in ",;|":
                advice = f"pass --separator '{mark}' (dataset.separator)"
            if table.source.lower().endswith(".tsv"):
                advice = "separate the cells with tabs" + (", or change the suffix to .csv" if mark != " " else "")
            raise DataError(
                f"{table.source}: the file has a single column, {name!r}, but its cells seem to be separated by "
                f"{plural}; {advice}"
            )


def _bytes(path: Path) -> bytes:
    try:
        data = read_named(path, MAX_TABLE_BYTES)
    except RecordError as error:
        raise DataError(str(error)) from None
    for mark, kind in MARKS.items():
        if data.startswith(mark):
            raise DataError(f"{path.name}: the file is {kind}, not text; convert it to CSV, JSONL or Parquet")
    if found := placeholder(data):
        raise DataError(f"{path.name}: the file is {found}")
    if not data.removeprefix(codecs.BOM_UTF8).strip():
        raise DataError(f"{path.name}: the file is empty")
    return data


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with open_named(path, MAX_TABLE_BYTES) as file:
            check_once(path.name, pyarrow.parquet.read_schema(file).names)
            table = pyarrow.parquet.read_table(file)
    except RecordError as error:
        raise DataError(str(error)) from None
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a valid Parquet file: {str(error).splitlines()[0]}") from None
    if not table.num_rows:
        raise DataError(f"{path.name}: the file has no rows")
    columns: dict[str, list[Any]] = {}
    for name in table.column_names:
        if name and not name.startswith("__index_level_"):
            try:
                columns[name] = table[name].to_pylist()
            except (OverflowError, ValueError) as error:  # such as dates that Python cannot represent
                raise DataError(f"{path.name}: column {name!r} cannot be read: {error}; remove the column") from None
    return Table(path.name, columns, [f"row {number}" for number in range(1, table.num_rows + 1)])
