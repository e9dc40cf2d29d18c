"""The plugin ``core-formats``, which declares the built-in formats of ``harness report``."""

from __future__ import annotations

from collections.abc import Iterator

from harness.interfaces import Reporter
from harness.plugins.hookspecs import hookimpl

HARNESS_API_VERSION = "1.0"

REPORTERS: tuple[Reporter, ...] = (
    Reporter(
        name="text",
        render="harness.report.text:render",
        summary="plain text for a terminal, with one block for each task, dataset and device",
    ),
    Reporter(
        name="markdown",
        render="harness.report.markdown:render",
        summary="one Markdown table for each task, dataset and device",
    ),
    Reporter(name="csv", render="harness.report.csv_json:csv_text", summary="all columns, one line for each row"),
    Reporter(name="json", render="harness.report.csv_json:json_text", summary="all columns, with a schema version"),
    Reporter(name="latex", render="harness.report.latex:render", summary="a LaTeX document with booktabs tables"),
    Reporter(
        name="pytest-benchmark",
        render="harness.report.pytest_benchmark:render",
        summary="JSON for pytest-benchmark and continuous benchmarking services",
        takes="report",
    ),
    Reporter(
        name="html",
        render="harness.report.site.build:files",
        summary="a static site with tables, plots and a page for each run",
        takes="report",
        output="directory",
    ),
)


@hookimpl
def harness_reporters() -> Iterator[Reporter]:
    yield from REPORTERS
