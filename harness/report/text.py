"""The table as plain text. Intervals are printed below the means to keep blocks narrow."""

from __future__ import annotations

import textwrap

from tabulate import tabulate

from harness.analysis.formatting import one_line
from harness.analysis.table import Cell, Column, Table
from harness.report.layout import Block, blocks, legend

_WIDTH = 100


def render(table: Table) -> str:
    """Return the table and its legend as text without colors. Blocks are separated by blank lines."""
    shown = blocks(table)
    parts = [_block(block) for block in shown]
    parts.append("\n".join(legend(shown)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block) -> str:
    headers = [_header(column) for column in block.columns]
    height = max(header.count("\n") for header in headers) + 1
    # Pass the header as a row because tabulate adds two columns of padding to real headers.
    grid = tabulate(
        [["\n" * (height - 1 - header.count("\n")) + header for header in headers]]
        + [[_cell(row.cells[column.name], column) for column in block.columns] for row in block.rows],
        tablefmt="plain",
        colalign=["left" if column.kind == "text" else "right" for column in block.columns],
        disable_numparse=True,
    )
    lines = [line.rstrip() for line in grid.splitlines()]
    lines.insert(height, "─" * max(map(len, lines)))
    flags = [textwrap.fill(f"! flagged: {text}", _WIDTH, subsequent_indent="  ") for text in block.flags]
    failures = [textwrap.fill(f"! {text}", _WIDTH, subsequent_indent="  ") for text in block.failures]
    return "\n".join([block.heading, "", *lines, *flags, *failures])


def _header(column: Column) -> str:
    return "\n".join([*column.title.split(), *([column.unit] if column.unit else [])])


def _cell(cell: Cell, column: Column) -> str:
    if column.kind == "number":
        shown = cell.shown + "!" * cell.flagged
        return f"{shown}\n±{cell.shown_ci95}" if cell.shown_ci95 else shown or "–"
    if column.name == "options":
        return "\n".join(one_line(part) for part in cell.shown.split(", "))
    return one_line(cell.shown)
