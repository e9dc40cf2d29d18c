"""The ``markdown-badge`` report format: a badge for each row of the comparison, for use in a README."""

from collections.abc import Iterator
from urllib.parse import quote

import harness
from harness import Reporter, Table

HARNESS_API_VERSION = "1.0"

SERVICE = "https://img.shields.io/badge/"
"""URL of the badge service. ``LABEL-MESSAGE-COLOR`` is appended to this URL. Dashes, underscores and spaces in the
label and the message are written as ``--``, ``__`` and ``_`` (https://shields.io/badges/static-badge)."""


def render(table: Table) -> str:
    """Return one line of Markdown for each row of the comparison."""
    return "".join(
        f"![{_plain(label)}: {_plain(message)}]({_url(label, message, color)})\n"
        for label, message, color in _badges(table)
    )


def _badges(table: Table) -> Iterator[tuple[str, str, str]]:
    """Yield the label, message and color of each badge."""
    for row in table.rows:
        label = " ".join(row.text(name) for name in ("task", "dataset", "model", "backend"))
        quality = row.cells["quality"]
        if not quality.shown:
            yield label, row.text("status") or "no result", "red"
            continue
        interval = f" ± {quality.shown_ci95}" if quality.shown_ci95 else ""
        message = f"{row.text('metric')} {quality.shown}{interval} {row.text('metric_unit')}".rstrip()
        yield label, message, "yellow" if row.text("flags") else "blue"


def _url(*parts: str) -> str:
    escaped = (part.replace("-", "--").replace("_", "__").replace(" ", "_") for part in map(_line, parts))
    return SERVICE + "-".join(quote(part, safe="") for part in escaped)


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _plain(text: str) -> str:
    """Escape Markdown in the alt text of an image. The text may contain names chosen by users."""
    return "".join(f"\\{c}" if c in "\\`*_|<>[]()#!&" else c for c in _line(text))


@harness.hookimpl
def harness_reporters() -> Iterator[Reporter]:
    yield Reporter(name="markdown-badge", render=f"{__name__}:render", summary="a badge for each row, in Markdown")
