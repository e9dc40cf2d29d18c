"""The table as CSV and JSON, with numbers rounded as in all other formats.

The CSV file has a header with the column names and one line for each row. The column ``<name>_ci95`` contains the
half-width of an interval. Missing values are empty fields. Strings that a spreadsheet would interpret as formulas are
prefixed with an apostrophe. Control characters, including line breaks, are replaced by spaces, so that every row is one
line for every reader.

The JSON file contains an object with

- ``schema_version``: 1; it is incremented by changes that break existing readers,
- ``columns``: the name, title, unit, kind (``text``, ``count``, ``number``) and better direction (``higher``, ``lower``
  or empty) of each column; the direction of ``quality`` is in the column ``metric_better`` of each row,
- ``rows``: objects that map column names to values, with ``<name>_ci95`` after each ``number``. Missing values are
  null.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata

from harness.analysis.table import Cell, Column, Table
from harness.records.printing import escape_json

JSON_SCHEMA_VERSION = 1
_BREAKING = {"Cc", "Zl", "Zp"}
"""Unicode categories of control characters, line separators and paragraph separators."""
_INVISIBLE = " \u00a0\u00ad\u200b\u200c\u200d\u2060\ufeff"
"""Spaces and characters without a shape, which may precede a formula."""


def csv_text(table: Table) -> str:
    """Return the table as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([name for column in table.columns for name in _names(column)])
    for row in table.rows:
        fields = []
        for column in table.columns:
            cell = row.cells[column.name]
            if column.kind == "text":
                fields.append(_no_formula(cell.shown))
            else:
                fields += [cell.shown, cell.shown_ci95][: len(_names(column))]
        writer.writerow(fields)
    return out.getvalue()


def json_text(table: Table) -> str:
    """Return the table as JSON."""
    document = {
        "schema_version": JSON_SCHEMA_VERSION,
        "columns": [
            {"name": column.name, "title": column.title, "unit": column.unit, "kind": column.kind}
            | {"better": column.better}
            for column in table.columns
        ],
        "rows": [
            {
                name: value
                for column in table.columns
                for name, value in zip(_names(column), _values(row.cells[column.name]), strict=False)
            }
            for row in table.rows
        ],
    }
    return escape_json(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def _names(column: Column) -> list[str]:
    return [column.name, f"{column.name}_ci95"] if column.kind == "number" else [column.name]


def _values(cell: Cell) -> tuple[str | int | float | None, float | None]:
    if not isinstance(cell.value, float):
        return cell.value, None
    return float(cell.shown), float(cell.shown_ci95) if cell.shown_ci95 else None


def _no_formula(text: str) -> str:
    """Return the text as one line that no spreadsheet interprets as a formula.

    Signs are also recognized in their full-width forms, which some spreadsheets accept, and after invisible characters.
    """
    text = "".join(" " if unicodedata.category(character) in _BREAKING else character for character in text)
    start = text.strip().lstrip(_INVISIBLE)
    return f"'{text}" if unicodedata.normalize("NFKC", start[:1]).startswith(("=", "+", "-", "@")) else text
