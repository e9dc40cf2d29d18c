"""The table as GitHub-flavored Markdown, with a heading and a pipe table for each block."""

from __future__ import annotations

import re

from tabulate import tabulate

from harness.analysis.formatting import one_line
from harness.analysis.table import Cell, Column, Table
from harness.report.layout import Block, blocks, legend


def render(table: Table) -> str:
    """Return the table as Markdown."""
    shown = blocks(table)
    parts = [_block(block) for block in shown]
    parts += ["  \n".join(legend(shown))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block) -> str:
    rows = [[_cell(row.cells[column.name], column) for column in block.columns] for row in block.rows]
    grid = tabulate(
        rows,
        headers=[escape(column.header) for column in block.columns],
        tablefmt="pipe",
        colalign=["left" if column.kind == "text" else "right" for column in block.columns],
        disable_numparse=True,
    )
    parts = [f"### {escape(block.heading)}", grid]
    if block.flags:
        parts.append("\n".join(f"- ! flagged: {escape(text)}" for text in block.flags))
    if block.failures:
        parts.append("\n".join(f"- failed: {escape(text)}" for text in block.failures))
    return "\n\n".join(parts)


def _cell(cell: Cell, column: Column) -> str:
    if column.kind == "number":
        shown = cell.shown + "!" * cell.flagged
        return f"{shown} ± {cell.shown_ci95}" if cell.shown_ci95 else shown or "–"
    return escape(cell.shown)


def escape(text: str) -> str:
    """Return `text` on one line, with all Markdown markup escaped."""
    return re.sub(r"([\\`*|<>\[\]#]|(?<!\w)_|_(?!\w))", r"\\\1", one_line(text, limit=10_000))
