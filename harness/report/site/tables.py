"""Tables of the pages, as cells that a template writes and the page's script sorts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape

import msgspec
from markupsafe import Markup

from harness.analysis.table import Column, one_line, rounded
from harness.records import Failure, Success
from harness.records.store import StoredRun
from harness.report.best import best
from harness.report.layout import Block

LONG = 60
PAGE = 50
"""Rows that a page shows at once, and that stand in its HTML; the others are data for its script."""


class Cell(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
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


Value = Cell | str | int | float | None
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
    def rest(self) -> Sequence[Sequence[Cell]]:
        return [[cell(value, self.places) for value in row] for row in self.rows[PAGE:]]


def comparison(block: Block, name: str, caption: str, links: Mapping[int, str], files: str) -> View:
    """The rows of a block, their best figures marked; `links` lead from the index of a row to its runs."""
    winners = {column.name: best(block.rows, column) for column in block.columns}
    rows = []
    for index, row in enumerate(block.rows):
        cells = []
        for column in block.columns:
            found = row.cells[column.name]
            value = found.value if isinstance(found.value, int | float) else None
            classes = ["num"] if column.kind != "text" else []
            classes += ["best"] if index in winners[column.name] else []
            classes += ["flagged"] if found.flagged else []
            classes += ["failed"] if column.name == "status" and found.shown.startswith("failed") else []
            text = found.shown or ("–" if column.kind == "number" else "")
            link = links.get(index, "") if column.name == "backend" else ""
            classes += ["long"] if len(text) > LONG else []
            cells.append(Cell(one_line(text, 300), value, found.shown_ci95, " ".join(classes), link))
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


def runs(found: Iterable[StoredRun], addresses: dict[str, str], caption: str, root: str) -> View:
    headers = (
        "run",
        "dataset",
        "model",
        "backend",
        "device",
        "precision",
        "seed",
        "quality",
        "training (samples/s)",
        "inference (samples/s)",
        "status",
        "started",
    )
    rows: list[list[Value]] = []
    for run in found:
        record = run.record
        spec, outcome = record.spec, record.outcome
        if isinstance(outcome, Success):
            quality = outcome.scores.test.get(outcome.scores.primary)
            speed = outcome.speed
            figures = [_number(x) for x in (quality, speed.train_samples_per_s, speed.inference_samples_per_s)]
            status = Cell("flagged" if outcome.flags else "ok", None, "", "flagged" if outcome.flags else "")
        else:
            figures = [_number(None)] * 3
            status = Cell(outcome.kind, None, "", "failed")
        names = (spec.dataset, spec.model, spec.backend, spec.device, spec.precision)
        link = Cell(one_line(record.run_id), None, "", "", root + addresses[record.run_id])
        rows.append([link, *names, spec.seed, *figures, status, record.started_at])
    return plain("runs", caption, headers, rows, controls=True)


def failures(found: list[StoredRun], addresses: dict[str, str], root: str) -> View | None:
    rows: list[list[Value]] = []
    for run in found[:PAGE]:
        assert isinstance(run.record.outcome, Failure)
        link = Cell(one_line(run.record.run_id), None, "", "", root + addresses[run.record.run_id])
        outcome = run.record.outcome
        rows.append([link, outcome.kind, outcome.phase or "–", outcome.message])
    return plain("failures", "Failed runs", ("run", "kind", "phase", "reason"), rows) if rows else None


def _number(value: float | None) -> Cell:
    return Cell("–" if value is None else rounded(value, None)[0], value, "", "num")


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
    """A cell in a page: of a plain number, which most are, without making a `Cell` of it first."""
    if isinstance(value, float):
        return f'<td class="num" data-v="{value!r}">{value:{places}}</td>'
    if isinstance(value, int):
        return f'<td class="num" data-v="{float(value)!r}">{value}</td>'
    return _text(value) if isinstance(value, str) else _html(cell(value, places))


@lru_cache(maxsize=4096)
def _text(text: str) -> str:
    """Kept, because the names of classes and metrics are on the pages of many runs."""
    return _html(cell(text, ""))


def _html(found: Cell) -> str:
    text, kind = escape(found.t), found.c
    if found.h:
        text = f'<a href="{escape(found.h)}">{text}</a>'
    if "flagged" in kind and "num" in kind:
        text += '<span class="flag" title="flagged: see below the table">!</span>'
    if found.ci:
        text += f'<span class="ci"> ± {escape(found.ci)}</span>'
    order = "" if found.v is None else f' data-v="{found.v!r}"'
    return f'<td class="{kind}"{order}>{text}</td>' if kind else f"<td{order}>{text}</td>"


def cell(value: Value, places: str) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, str):
        line = one_line(value, 500)
        return Cell(line, None, "", "long" if len(line) > LONG else "")
    shown = "–" if value is None else f"{value:{places}}" if isinstance(value, float) else str(value)
    return Cell(shown, None if value is None else float(value), "", "num")


def _is_number(value: Value) -> bool:
    return "num" in value.c if isinstance(value, Cell) else not isinstance(value, str)
