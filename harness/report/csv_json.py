"""The table for programs. Numbers are rounded exactly as in the formats for people.

csv: a header of column names, then a line for each row; an interval's half-width is in ``<name>_ci95``; a missing
value is an empty field. A text field that a spreadsheet would take for a formula is preceded by an apostrophe; control
characters, which a terminal would obey, are blanks.

json: an object with

- ``schema_version``: 1; changes when a reader of the older version would go wrong,
- ``columns``: name, title, unit and kind (``text``, ``count``, ``number``) of each column,
- ``rows``: objects of name -> value, and ``<name>_ci95`` beside each ``number``; null for a missing value.
"""

from __future__ import annotations

import csv
import io
import json

from harness.analysis.table import Cell, Column, Table

JSON_SCHEMA_VERSION = 1


def csv_text(table: Table) -> str:
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
    document = {
        "schema_version": JSON_SCHEMA_VERSION,
        "columns": [
            {"name": column.name, "title": column.title, "unit": column.unit, "kind": column.kind}
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
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _names(column: Column) -> list[str]:
    return [column.name, f"{column.name}_ci95"] if column.kind == "number" else [column.name]


def _values(cell: Cell) -> tuple[str | int | float | None, float | None]:
    if not isinstance(cell.value, float):
        return cell.value, None
    return float(cell.shown), float(cell.shown_ci95) if cell.shown_ci95 else None


def _no_formula(text: str) -> str:
    text = "".join(" " if ord(character) < 32 and character not in "\t\r\n" else character for character in text)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text
