"""The comparison table and the details of a run as HTML fragments, which notebooks display.

The fragments contain no style sheets and no scripts. All text is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from harness.analysis.compare.judge import Compared
from harness.analysis.table import Column, Table
from harness.records import RunRecord
from harness.records.printing import clean
from harness.report.comparison_text import HEADERS, notes, row_of
from harness.report.layout import Block, blocks, legend
from harness.report.run_text import render as run_text
from harness.report.site.tables import PAGE, View, comparison, plain


def render(table: Table) -> str:
    """Return the blocks of the table and the legend as HTML."""
    shown = blocks(table)
    return "\n".join([*(_block(block) for block in shown), _lines(legend(shown))])


def run_details(record: RunRecord, path: Path) -> str:
    """Return all details of a run as HTML. `path` is the directory that contains the run's record."""
    return preformatted(run_text(record, path))


def comparisons(pairs: Sequence[Compared], warnings: Sequence[str]) -> str:
    """Return comparisons of two sets of runs as HTML, with one table for each pair of settings."""
    parts = []
    for pair in pairs:
        columns = ("base", "new", "change", "interval", "detectable")
        headers = [Column(name, name, "", "number" if name in columns else "text") for name in HEADERS]
        view = plain("", pair.name, headers, [row_of(comparison) for comparison in pair.comparisons])
        parts += [html_of(view), _lines(f"{name}: {before} -> {after}" for name, before, after in pair.differences)]
    return "\n".join([*parts, _lines([*notes(pairs), *(f"Warning: {text}" for text in warnings)])])


def preformatted(text: str) -> str:
    """Return text as HTML that preserves its line breaks and spaces."""
    return f"<pre>{escape(clean(text))}</pre>"


def _block(block: Block) -> str:
    view = comparison(block, "", block.heading, links={}, files="")
    notes = [f"! flagged: {text}" for text in block.flags] + [f"! {text}" for text in block.failures]
    if len(view.rows) > PAGE:
        notes.append(f"Only the first {PAGE} of {len(view.rows)} rows are shown.")
    return f"{html_of(view)}\n{_lines(notes)}"


def html_of(view: View) -> str:
    """Return a table of the site as an HTML fragment."""
    return (
        f"<table><caption>{escape(clean(view.caption))}</caption><thead><tr>{view.head}</tr></thead>"
        f"<tbody>{view.body}</tbody></table>"
    )


def _lines(lines: Iterable[str]) -> str:
    return "<br>".join(escape(clean(line)) for line in lines)
