"""Tables from CSV, TSV, JSONL and Parquet files, with the place of every row.

Cells are as the file has them: text in CSV and TSV (empty where nothing stands), JSON's types in JSONL, Parquet's own.
Nothing is guessed from a cell here, so that ``01`` and ``NA`` stay what they are.
"""

from __future__ import annotations

import codecs
import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from harness.data.user_files.location import TABLES
from harness.data.user_files.problems import Problems
from harness.errors import DataError, UsageError

Row = tuple[str, dict[str, Any]]
"""Its place, and its cells by column."""


@dataclass(frozen=True)
class Table:
    source: str
    """Name of the file."""
    columns: dict[str, list[Any]]
    """None or an empty text where a cell is missing."""
    where: list[str]
    """The place of each row, counted from 1: ``row 3 (line 4)``."""

    def __len__(self) -> int:
        return len(self.where)


def read_table(path: Path, problems: Problems) -> Table:
    """The file's table, without the rows that cannot be read, which go to `problems`.

    Raises `harness.DataError` for a file that is no such table, and `harness.UsageError` for an unknown format.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise UsageError(f"{path}: {suffix or 'a file without a suffix'} is no format of tables: {', '.join(TABLES)}")
    if suffix == ".parquet":
        table = _read_parquet(path)
    else:
        data = _bytes(path)
        names, rows = _json_rows(path.name, data, problems) if "json" in suffix else _cells(path.name, data, problems)
        # A column without a name is an index that another program has written.
        columns: dict[str, list[Any]] = {name: [row.get(name) for _, row in rows] for name in names if name.strip()}
        table = Table(path.name, columns, [where for where, _ in rows])
    if not len(table):  # JSONL takes its columns from the rows: what is wrong with these comes first
        problems.settle(left=0)
    if not table.columns:
        raise DataError(f"{path.name}: there are no named columns")
    return table


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path.name}: the text is UTF-16; save it as UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data.strip():
        raise DataError(f"{path.name}: the file is empty")
    return data


def _cells(source: str, data: bytes, problems: Problems) -> tuple[list[str], list[Row]]:
    """CSV as RFC 4180 has it, or with semicolons where the header has those only; TSV as IANA's
    text/tab-separated-values has it, in which a quote is a character."""
    tabs = source.lower().endswith(".tsv")
    text = data.decode(errors="surrogateescape")
    csv.field_size_limit(sys.maxsize)  # the default of 128 KiB is shorter than a long document
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
        raise DataError(f"{source}: the first row, which names the columns, cannot be read") from None
    header = [name.strip() for name in header]
    _check_once(source, header)
    if not all(map(_is_utf8, header)):
        raise DataError(f"{source}: the header holds bytes that are not UTF-8; save the file as UTF-8")
    rows: list[Row] = []
    for number, (line, cells) in enumerate(parsed, start=1):
        where = f"row {number} (line {line})"
        if cells is None:
            problems.add(where, "the quotes in it do not match")
        elif len(cells) != len(header):
            problems.add(where, f"it has {len(cells)} cells, the header {len(header)}")
        elif not all(map(_is_utf8, cells)):
            problems.add(where, "it holds bytes that are not UTF-8")
        else:
            rows.append((where, dict(zip(header, cells, strict=True))))
    return header, rows


def _check_once(source: str, names: list[str]) -> None:
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise DataError(f"{source}: the header has the column {sorted(twice)[0]!r} twice")


def _parsed(source: str, reader: Any, problems: Problems) -> Iterator[tuple[int, Any]]:
    """The line at which each row starts, and its cells; None where its quotes do not match. Empty lines are no rows."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):  # all that follows is in this cell: which rows it had cannot be told
                raise DataError(f"{source}: line {line}: a quote is opened there and never closed") from None
            cells = None
        if cells != []:
            yield line, cells


def _is_utf8(text: str) -> bool:
    """Whether no byte of it was smuggled in by ``surrogateescape``."""
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
            problems.add(where, "it holds bytes that are not UTF-8")
        except (msgspec.DecodeError, RecursionError) as error:
            problems.add(where, f"it is not JSON ({error})")
        else:
            if isinstance(value, dict):
                rows.append((where, value))
            else:
                problems.add(where, 'it is not a JSON object, such as {"text": "...", "label": "..."}')
    return list(dict.fromkeys(name for _, row in rows for name in row)), rows


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        _check_once(path.name, pyarrow.parquet.read_schema(path).names)
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    if not table.num_rows:
        raise DataError(f"{path.name}: the table has no rows")
    columns: dict[str, list[Any]] = {}
    for name in table.column_names:
        if name and not name.startswith("__index_level_"):
            try:
                columns[name] = table[name].to_pylist()
            except (OverflowError, ValueError) as error:  # a date that Python does not have
                raise DataError(f"{path.name}: column {name!r} cannot be read: {error}; leave it out") from None
    return Table(path.name, columns, [f"row {number}" for number in range(1, table.num_rows + 1)])
