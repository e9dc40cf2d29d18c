"""The tables on the pages of the site. Templates print the cells, and a script on each page sorts the rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape

import msgspec
from markupsafe import Markup

from harness.analysis.flags import run_flags
from harness.analysis.formatting import one_line, rounded
from harness.analysis.metrics import QUALITY, in_group
from harness.analysis.table import Column
from harness.records import Failure, Success
from harness.records.store import StoredRun
from harness.report.best import best
from harness.report.layout import Block

LONG = 60
"""The text of a cell is wrapped if it has more characters than this."""
PAGE = 50
"""Number of rows that are shown at once and included in the page's HTML. The page contains all other rows as data for
its script."""


class HtmlCell(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A table cell. The field names are short, because a page may have many thousands of cells."""

    t: str
    """Text."""
    v: float | None = None
    """Sort key. If None, cells are sorted by their text."""
    ci: str = ""
    """Half-width of the 95% confidence interval as text. The string is empty if the cell has no interval."""
    c: str = ""
    """CSS classes."""
    h: str = ""
    """Link target, relative to the page. The string is empty if there is no link."""


Value = HtmlCell | str | int | float | None
"""Content of a cell. Floats are formatted with the format in `View.places`. None represents a missing number."""


@dataclass(frozen=True)
class View:
    """A table on a page."""

    name: str
    """Name used for anchors and downloaded files. The name is unique on the page."""
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Value]]
    places: str = ".4g"
    """Format specification for floats."""
    files: str = ""
    """Relative path of the table's CSV and JSON files, without the suffix. The path is empty if the script creates the
    files.
    """
    controls: bool = False
    """True if rows can be filtered and columns can be hidden."""

    @property
    def head(self) -> Markup:
        """Header cells as HTML."""
        return _head(self.columns)

    @property
    def body(self) -> Markup:
        """First `PAGE` rows as HTML. For speed, the rows, which make up most of a page, are built without a
        template."""
        rows = ("".join([html(value, self.places) for value in row]) for row in self.rows[:PAGE])
        return Markup("\n".join([f"<tr>{row}</tr>" for row in rows]))

    @property
    def rest(self) -> Sequence[Sequence[HtmlCell]]:
        """Cells of the rows after the first `PAGE`."""
        return [[cell(value, self.places) for value in row] for row in self.rows[PAGE:]]


def comparison(block: Block, name: str, caption: str, links: Mapping[int, str], files: str) -> View:
    """Return the table for a block, with the best values marked. `links` maps row indices to the addresses of run
    pages."""
    winners = {column.name: best(block.rows, column) for column in block.columns}
    rows = []
    for index, row in enumerate(block.rows):
        cells = []
        for column in block.columns:
            source = row.cells[column.name]
            value = source.value if isinstance(source.value, int | float) else None
            classes = ["num"] if column.kind != "text" else []
            classes += ["best"] if index in winners[column.name] else []
            classes += ["flagged"] if source.flagged else []
            classes += ["failed"] if column.name == "status" and source.shown.startswith("failed") else []
            text = source.shown or ("–" if column.kind == "number" else "")
            link = links.get(index, "") if column.name == "backend" else ""
            classes += ["long"] if len(text) > LONG else []
            cells.append(HtmlCell(one_line(text, 300), value, source.shown_ci95, " ".join(classes), link))
        rows.append(cells)
    return View(name, caption, block.columns, rows, files=files, controls=True)


def plain(
    name: str,
    caption: str,
    headers: Iterable[str | Column],
    rows: Sequence[Sequence[Value]],
    *,
    places: str = ".4g",
    controls: bool = False,
) -> View:
    """Return a table of strings and numbers. Headers are columns or strings of the form ``title`` or
    ``title (unit)``."""
    columns = tuple(
        header
        if isinstance(header, Column)
        else Column(header, header, "", "number" if any(_is_number(row[place]) for row in rows) else "text")
        for place, header in enumerate(headers)
    )
    return View(name, caption, columns, rows, places, controls=controls)


def runs(shown: Iterable[StoredRun], addresses: dict[str, str], caption: str, root: str) -> View:
    """Return a table with one row for each run. `root` is the relative path to the home page's directory."""
    names = ("dataset", "model", "backend", "device", "precision", "seed")
    figures = (QUALITY, *in_group("throughput"))
    rows: list[list[Value]] = []
    for run in shown:
        record, outcome = run.record, run.record.outcome
        if isinstance(outcome, Success):
            flagged = bool(run_flags(record))
            status = HtmlCell("flagged" if flagged else "ok", None, "", "flagged" if flagged else "")
        elif isinstance(outcome, Failure):
            status = HtmlCell(outcome.kind, None, "", "failed")
        else:
            status = HtmlCell(f"trial, {outcome.state}")
        numbers = [_number(value) for value in (metric.value(record) for metric in figures)]
        link = HtmlCell(one_line(record.run_id), None, "", "", root + addresses[record.run_id])
        rows.append([link, *(getattr(record.spec, name) for name in names), *numbers, status, record.started_at])
    return plain(
        "runs",
        caption,
        ("run", *names, *(metric.column for metric in figures), "status", "started"),
        rows,
        controls=True,
    )


def failures(failed: list[StoredRun], addresses: dict[str, str], root: str) -> View | None:
    """Return a table of at most `PAGE` failed runs, or None if no run failed."""
    rows: list[list[Value]] = []
    for run in failed[:PAGE]:
        assert isinstance(run.record.outcome, Failure)
        link = HtmlCell(one_line(run.record.run_id), None, "", "", root + addresses[run.record.run_id])
        outcome = run.record.outcome
        rows.append([link, outcome.kind, outcome.phase or "–", outcome.message])
    return plain("failures", "Failed runs", ("run", "kind", "phase", "reason"), rows) if rows else None


def _number(value: float | None) -> HtmlCell:
    return HtmlCell("–" if value is None else rounded(value, None)[0], value, "", "num")


@lru_cache(maxsize=256)
def _head(columns: tuple[Column, ...]) -> Markup:
    """Return header cells as HTML. The result is cached, because the same tables appear on all run pages."""
    cells = []
    for column in columns:
        kind = "" if column.kind == "text" else ' class="num"'
        unit = f' <span class="unit">({escape(column.unit)})</span>' if column.unit else ""
        cells.append(
            f'<th scope="col" data-name="{escape(column.name)}"{kind}>{escape(column.title or " ")}{unit}</th>'
        )
    return Markup("".join(cells))


def html(value: Value, places: str) -> str:
    """Return a cell as HTML. For speed, no `HtmlCell` is created for numbers."""
    if isinstance(value, float):
        return f'<td class="num" data-v="{value!r}">{value:{places}}</td>'
    if isinstance(value, int):
        return f'<td class="num" data-v="{float(value)!r}">{value}</td>'
    return _text(value) if isinstance(value, str) else _html(cell(value, places))


@lru_cache(maxsize=4096)
def _text(text: str) -> str:
    """Return a text cell as HTML. The result is cached, because class and metric names are the same on many run
    pages."""
    return _html(cell(text, ""))


def _html(content: HtmlCell) -> str:
    text, kind = escape(content.t), content.c
    if content.h:
        text = f'<a href="{escape(content.h)}">{text}</a>'
    if "flagged" in kind and "num" in kind:
        text += '<span class="flag" title="flagged: see the note below the table">!</span>'
    if content.ci:
        text += f'<span class="ci"> ± {escape(content.ci)}</span>'
    order = "" if content.v is None else f' data-v="{content.v!r}"'
    return f'<td class="{kind}"{order}>{text}</td>' if kind else f"<td{order}>{text}</td>"


def cell(value: Value, places: str) -> HtmlCell:
    """Convert a value to a cell. Floats are formatted according to `places`."""
    if isinstance(value, HtmlCell):
        return value
    if isinstance(value, str):
        line = one_line(value, 500)
        return HtmlCell(line, None, "", "long" if len(line) > LONG else "")
    shown = "–" if value is None else f"{value:{places}}" if isinstance(value, float) else str(value)
    return HtmlCell(shown, None if value is None else float(value), "", "num")


def _is_number(value: Value) -> bool:
    return "num" in value.c if isinstance(value, HtmlCell) else not isinstance(value, str)
