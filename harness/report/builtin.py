"""The plugin ``core-formats``: declarations of the formats of ``harness report``."""

from __future__ import annotations

from collections.abc import Iterator

from harness.interfaces import Reporter
from harness.plugins.hookspecs import hookimpl

HARNESS_API_VERSION = "1.0"

REPORTERS: tuple[Reporter, ...] = (
    Reporter(
        name="text",
        render="harness.report.text:render",
        summary="for a terminal; a block for each task",
    ),
    Reporter(name="markdown", render="harness.report.markdown:render", summary="the same blocks as markdown tables"),
    Reporter(name="csv", render="harness.report.csv_json:csv_text", summary="every column, one line a row"),
    Reporter(name="json", render="harness.report.csv_json:json_text", summary="every column, with a schema version"),
    Reporter(name="latex", render="harness.report.latex:render", summary="booktabs tables; a document that compiles"),
    Reporter(
        name="pytest-benchmark",
        render="harness.report.pytest_benchmark:render",
        summary="the JSON that pytest-benchmark and continuous-benchmark services read",
        takes="report",
    ),
    Reporter(
        name="html",
        render="harness.report.site.build:files",
        summary="a static site: tables, plots, a page for each run",
        takes="report",
        output="directory",
    ),
)


@hookimpl
def harness_reporters() -> Iterator[Reporter]:
    yield from REPORTERS
