"""The report format ``markdown-badge``: a badge for each row, for the top of a README."""

from collections.abc import Iterator
from urllib.parse import quote

import harness
from harness import Reporter, Table

HARNESS_API_VERSION = "1.0"

SERVICE = "https://img.shields.io/badge/"
"""Draws ``LABEL-MESSAGE-COLOUR``; a dash, underscore or space in them is written ``--``, ``__`` or ``_``
(https://shields.io/badges/static-badge)."""


def render(table: Table) -> str:
    """A line of markdown for each row of the comparison."""
    return "".join(
        f"![{_plain(label)}: {_plain(said)}]({_url(label, said, color)})\n" for label, said, color in _badges(table)
    )


def _badges(table: Table) -> Iterator[tuple[str, str, str]]:
    for row in table.rows:
        label = " ".join(row.text(name) for name in ("task", "dataset", "model", "backend"))
        quality = row.cells["quality"]
        if not quality.shown:
            yield label, row.text("status") or "no result", "red"
            continue
        interval = f" ± {quality.shown_ci95}" if quality.shown_ci95 else ""
        said = f"{row.text('metric')} {quality.shown}{interval} {row.text('metric_unit')}".rstrip()
        yield label, said, "yellow" if row.text("flags") else "blue"


def _url(*parts: str) -> str:
    doubled = (part.replace("-", "--").replace("_", "__").replace(" ", "_") for part in map(_line, parts))
    return SERVICE + "-".join(quote(part, safe="") for part in doubled)


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _plain(text: str) -> str:
    """The text that is read out where the picture is not shown: names may not end it, nor bring markup in."""
    return "".join(f"\\{c}" if c in "\\`*_|<>[]()#!&" else c for c in _line(text))


@harness.hookimpl
def harness_reporters() -> Iterator[Reporter]:
    yield Reporter(name="markdown-badge", render=f"{__name__}:render", summary="a badge for each row, in markdown")
