"""Readers for CSV, TSV, JSONL and Parquet files. A table also stores the position of each row in its file.

Cells keep their types: strings in CSV and TSV files (empty if missing), JSON types in JSONL files, and Parquet types.
No other types are inferred, so ``01`` and ``NA`` remain strings.
"""

from __future__ import annotations

import codecs
import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from harness.data.user_files.location import TABLES
from harness.data.user_files.problems import Problems
from harness.errors import DataError, UsageError

Row = tuple[str, dict[str, Any]]
"""Position of a row, and its cells by column."""


@dataclass(frozen=True)
class Table:
    """The rows of a file, stored by column."""

    source: str
    """Name of the file."""
    columns: dict[str, list[Any]]
    """Cells of each column. A missing cell is None or an empty string."""
    where: list[str]
    """Position of each row, counted from 1, such as ``row 3 (line 4)``."""
    folders: list[str] = field(default_factory=list)
    """Split folder of each row, for the metadata files of split folders; empty for a single file."""

    def __len__(self) -> int:
        return len(self.where)


def read_table(path: Path, problems: Problems) -> Table:
    """Return the file's table. Rows that cannot be read are omitted and added to `problems`.

    Raises `harness.DataError` if the file is not a valid table, and `harness.UsageError` for an unknown format.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise UsageError(f"{path}: unknown table format {suffix!r}; pass a file with the suffix {', '.join(TABLES)}")
    if suffix == ".parquet":
        table = _read_parquet(path)
    else:
        data = _bytes(path)
        names, rows = _json_rows(path.name, data, problems) if "json" in suffix else _cells(path.name, data, problems)
        # Drop columns without a name, in which pandas and other programs store the index.
        columns: dict[str, list[Any]] = {name: [row.get(name) for _, row in rows] for name in names if name.strip()}
        table = Table(path.name, columns, [where for where, _ in rows])
    if not len(table):  # report bad rows first, because the columns of JSONL come from the rows
        problems.settle(left=0)
    if not table.columns:
        raise DataError(f"{path.name}: the file has no named columns; name each column")
    return table


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path.name}: the file is encoded as UTF-16; save it as UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data.strip():
        raise DataError(f"{path.name}: the file is empty")
    return data


def _cells(source: str, data: bytes, problems: Problems) -> tuple[list[str], list[Row]]:
    """Return the column names and rows of a CSV or TSV file.

    CSV files follow RFC 4180. If the header contains semicolons but no commas, semicolons are the separator. TSV files
    follow IANA's text/tab-separated-values, where quotes have no special meaning.
    """
    tabs = source.lower().endswith(".tsv")
    text = data.decode(errors="surrogateescape")
    csv.field_size_limit(sys.maxsize)  # the default of 128 KiB is too small for long documents
    lines = io.StringIO(text, newline="")
    if tabs:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:
        names = text.partition("\n")[0]
        reader = csv.reader(lines, delimiter=";" if ";" in names and "," not in names else ",", strict=True)
    parsed = _parsed(source, reader, problems)
    try:
        _, header = next(parsed)
    except StopIteration:
        raise DataError(f"{source}: the header (the first row) cannot be read") from None
    header = [name.strip() for name in header]
    _check_once(source, header)
    if not all(map(_is_utf8, header)):
        raise DataError(f"{source}: the header contains bytes that are not UTF-8; save the file as UTF-8")
    rows: list[Row] = []
    for number, (line, cells) in enumerate(parsed, start=1):
        where = f"row {number} (line {line})"
        if cells is None:
            problems.add(where, "the quoting is invalid; write a quote inside a quoted cell as two quotes")
        elif len(cells) != len(header):
            problems.add(where, f"expected {len(header)} cells as in the header, found {len(cells)}")
        elif not all(map(_is_utf8, cells)):
            column = next(name for name, cell in zip(header, cells, strict=True) if not _is_utf8(cell))
            problems.add(where, f"column {column!r} contains bytes that are not UTF-8")
        else:
            rows.append((where, dict(zip(header, cells, strict=True))))
    return header, rows


def _check_once(source: str, names: list[str]) -> None:
    repeated = {name for name in names if name and names.count(name) > 1}
    if repeated:
        raise DataError(f"{source}: the header contains {sorted(repeated)[0]!r} more than once; rename the columns")


def _parsed(source: str, reader: Any, problems: Problems) -> Iterator[tuple[int, Any]]:
    """Yield the first line number and the cells of each row. The cells are None if the quoting is invalid.

    Empty lines are skipped.
    """
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):  # the rest of the file is in this cell, so its rows are unknown
                raise DataError(f"{source}: the quote opened in the row at line {line} is never closed") from None
            cells = None
        if cells != []:
            yield line, cells


def _is_utf8(text: str) -> bool:
    """Return whether a string decoded with ``surrogateescape`` was valid UTF-8."""
    return text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text)


def _json_rows(source: str, data: bytes, problems: Problems) -> tuple[list[str], list[Row]]:
    rows: list[Row] = []
    number = 0
    for line, text in enumerate(data.splitlines(), start=1):
        if not text.strip():
            continue
        number += 1
        where = f"row {number} (line {line})"
        try:
            value = msgspec.json.decode(text)
        except UnicodeDecodeError:
            problems.add(where, "the row contains bytes that are not UTF-8")
        except (msgspec.DecodeError, RecursionError) as error:
            problems.add(where, f"invalid JSON ({error})")
        else:
            if isinstance(value, dict):
                rows.append((where, value))
            else:
                problems.add(where, 'expected a JSON object, such as {"text": "...", "label": "..."}')
    return list(dict.fromkeys(name for _, row in rows for name in row)), rows


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        _check_once(path.name, pyarrow.parquet.read_schema(path).names)
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a valid Parquet file: {str(error).splitlines()[0]}") from None
    if not table.num_rows:
        raise DataError(f"{path.name}: the file has no rows")
    columns: dict[str, list[Any]] = {}
    for name in table.column_names:
        if name and not name.startswith("__index_level_"):
            try:
                columns[name] = table[name].to_pylist()
            except (OverflowError, ValueError) as error:  # raised for dates outside the range of Python's datetime
                raise DataError(f"{path.name}: column {name!r} cannot be read: {error}; remove the column") from None
    return Table(path.name, columns, [f"row {number}" for number in range(1, table.num_rows + 1)])
