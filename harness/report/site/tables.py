"""Tables of the pages, as cells that a template writes and the page's script sorts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape

import msgspec
from markupsafe import Markup

from harness.analysis.formatting import one_line, rounded
from harness.analysis.metrics import in_group
from harness.analysis.table import Column
from harness.records import Failure, Success
from harness.records.store import StoredRun
from harness.report.best import best
from harness.report.layout import Block

LONG = 60
PAGE = 50
"""Rows that a page shows at once, and that stand in its HTML; the others are data for its script."""


class HtmlCell(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One cell; names are short because a page may hold many thousands."""

    t: str
    """Text."""
    v: float | None = None
    """What it is sorted by, where that is not the text."""
    ci: str = ""
    c: str = ""
    """CSS classes."""
    h: str = ""
    """Address of a page of the site, relative to the table's page."""


Value = HtmlCell | str | int | float | None
"""What stands in a table: a float as its view's `places` say, None for a number that is not known."""


@dataclass(frozen=True)
class View:
    """A table of a page."""

    name: str
    """Of its files and anchors; unique on its page."""
    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Value]]
    places: str = ".4g"
    """How floats are shown, as a format specification."""
    files: str = ""
    """Path of the same table as ``.csv`` and ``.json``, relative to its page; empty where the script makes them."""
    controls: bool = False
    """Whether it can be filtered, and its columns hidden."""

    @property
    def head(self) -> Markup:
        return _head(self.columns)

    @property
    def body(self) -> Markup:
        """The first page's rows as HTML. Made here, because it is most of what a page is and a template takes long."""
        rows = ("".join([html(value, self.places) for value in row]) for row in self.rows[:PAGE])
        return Markup("\n".join([f"<tr>{row}</tr>" for row in rows]))

    @property
    def rest(self) -> Sequence[Sequence[HtmlCell]]:
        return [[cell(value, self.places) for value in row] for row in self.rows[PAGE:]]


def comparison(block: Block, name: str, caption: str, links: Mapping[int, str], files: str) -> View:
    """The rows of a block, their best figures marked; `links` lead from the index of a row to its runs."""
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
    headers: Iterable[str],
    rows: Sequence[Sequence[Value]],
    *,
    places: str = ".4g",
    controls: bool = False,
) -> View:
    """A table of texts and numbers as they are; a header is ``title`` or ``title (unit)``."""
    columns = tuple(
        Column(header, header, "", "number" if any(_is_number(row[place]) for row in rows) else "text")
        for place, header in enumerate(headers)
    )
    return View(name, caption, columns, rows, places, controls=controls)


def runs(shown: Iterable[StoredRun], addresses: dict[str, str], caption: str, root: str) -> View:
    names = ("dataset", "model", "backend", "device", "precision", "seed")
    throughputs = in_group("throughput")
    titles = (f"{metric.part} ({metric.unit})" for metric in throughputs)
    rows: list[list[Value]] = []
    for run in shown:
        record, outcome = run.record, run.record.outcome
        if isinstance(outcome, Success):
            score = outcome.scores.test.get(outcome.scores.primary)
            status = HtmlCell("flagged" if outcome.flags else "ok", None, "", "flagged" if outcome.flags else "")
        else:
            score, status = None, HtmlCell(outcome.kind, None, "", "failed")
        numbers = [_number(value) for value in (score, *(metric.value(record) for metric in throughputs))]
        link = HtmlCell(one_line(record.run_id), None, "", "", root + addresses[record.run_id])
        rows.append([link, *(getattr(record.spec, name) for name in names), *numbers, status, record.started_at])
    return plain("runs", caption, ("run", *names, "quality", *titles, "status", "started"), rows, controls=True)


def failures(failed: list[StoredRun], addresses: dict[str, str], root: str) -> View | None:
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
    """Kept, because the pages of runs have the same ones."""
    cells = []
    for column in columns:
        kind = "" if column.kind == "text" else ' class="num"'
        unit = f' <span class="unit">({escape(column.unit)})</span>' if column.unit else ""
        cells.append(
            f'<th scope="col" data-name="{escape(column.name)}"{kind}>{escape(column.title or " ")}{unit}</th>'
        )
    return Markup("".join(cells))


def html(value: Value, places: str) -> str:
    """A cell in a page: of a plain number, which most are, without making an `HtmlCell` of it first."""
    if isinstance(value, float):
        return f'<td class="num" data-v="{value!r}">{value:{places}}</td>'
    if isinstance(value, int):
        return f'<td class="num" data-v="{float(value)!r}">{value}</td>'
    return _text(value) if isinstance(value, str) else _html(cell(value, places))


@lru_cache(maxsize=4096)
def _text(text: str) -> str:
    """Kept, because the names of classes and metrics are on the pages of many runs."""
    return _html(cell(text, ""))


def _html(content: HtmlCell) -> str:
    text, kind = escape(content.t), content.c
    if content.h:
        text = f'<a href="{escape(content.h)}">{text}</a>'
    if "flagged" in kind and "num" in kind:
        text += '<span class="flag" title="flagged: see below the table">!</span>'
    if content.ci:
        text += f'<span class="ci"> ± {escape(content.ci)}</span>'
    order = "" if content.v is None else f' data-v="{content.v!r}"'
    return f'<td class="{kind}"{order}>{text}</td>' if kind else f"<td{order}>{text}</td>"


def cell(value: Value, places: str) -> HtmlCell:
    if isinstance(value, HtmlCell):
        return value
    if isinstance(value, str):
        line = one_line(value, 500)
        return HtmlCell(line, None, "", "long" if len(line) > LONG else "")
    shown = "–" if value is None else f"{value:{places}}" if isinstance(value, float) else str(value)
    return HtmlCell(shown, None if value is None else float(value), "", "num")


def _is_number(value: Value) -> bool:
    return "num" in value.c if isinstance(value, HtmlCell) else not isinstance(value, str)
