"""The table as CSV and JSON, with numbers rounded as in all other formats.

The CSV file has a header with the column names and one line for each row. The ``<name>_ci95`` column contains the
half-width of an interval. Missing values are empty fields. Strings that a spreadsheet would interpret as formulas are
prefixed with an apostrophe. Control characters are replaced by spaces, except for tabs and line breaks, which are
quoted.

The JSON file contains an object with

- ``schema_version``: 1; it is incremented whenever a change breaks existing readers,
- ``columns``: the name, title, unit and kind (``text``, ``count``, ``number``) of each column, and whether higher or
  lower values are better (``higher``, ``lower`` or empty). For ``quality``, the direction is in the ``metric_better``
  column of each row,
- ``rows``: objects that map column names to values. For each ``number`` column, the half-width of the 95% interval
  follows as ``<name>_ci95``. Missing values are null.
"""

from __future__ import annotations

import json
import re

from harness.analysis.table import Cell, Column, Table
from harness.records.printing import escape_json

JSON_SCHEMA_VERSION = 1
_CONTROLS = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f]")
_FORMULA = re.compile(
    "[\\s\\u00ad\\u200b-\\u200f\\u2060\\ufeff]*[=+\\-@\\uff1d\\uff0b\\uff0d\\uff20\\ufe62\\ufe63\\ufe66\\ufe6b]"
)
"""Start of a formula: ``=``, ``+``, ``-`` or ``@``, or one of the corresponding Unicode variants. Spaces and invisible
characters may precede the first character."""


def csv_text(table: Table) -> str:
    """Return the table as CSV."""
    lines = [line([name for column in table.columns for name in _names(column)])]
    for row in table.rows:
        fields = []
        for column in table.columns:
            cell = row.cells[column.name]
            if column.kind == "text":
                fields.append(no_formula(cell.shown))
            else:
                fields += [cell.shown, cell.shown_ci95][: len(_names(column))]
        lines.append(line(fields))
    return "".join(lines)


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


def line(fields: list[str]) -> str:
    """Return a line of a CSV file, with one field for each string.

    `csv.writer` does not quote carriage returns, which also end lines.
    """
    quoted = ('"' + field.replace('"', '""') + '"' if re.search('[,"\t\r\n]', field) else field for field in fields)
    return ",".join(quoted) + "\n"


def _names(column: Column) -> list[str]:
    return [column.name, f"{column.name}_ci95"] if column.kind == "number" else [column.name]


def _values(cell: Cell) -> tuple[str | int | float | None, float | None]:
    if not isinstance(cell.value, float):
        return cell.value, None
    return float(cell.shown), float(cell.shown_ci95) if cell.shown_ci95 else None


def no_formula(text: str) -> str:
    """Replace control characters, and put an apostrophe in front of text that a spreadsheet would interpret as a
    formula.

    Full-width forms of the first character are also recognized, because some spreadsheets accept them. Invisible
    characters in front of a formula are ignored.
    """
    text = _CONTROLS.sub(" ", text)
    return f"'{text}" if _FORMULA.match(text) else text
