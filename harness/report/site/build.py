"""Generation of the site's files: a home page, task pages, a list of all runs, run pages and shared assets."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files as package_files

from harness.analysis.table import Table
from harness.records.files import safe_name
from harness.report.csv_json import csv_text, json_text
from harness.report.plots.embedding import embedded_json, vega
from harness.report.plots.theme import site_config
from harness.report.report import Report
from harness.report.site import render, tables
from harness.report.site.run_pages import run_pages


def files(report: Report) -> Iterator[tuple[str, bytes]]:
    """Yield the path within the site and the contents of each file."""
    pages = {
        name: f"tasks/{safe_name(name)}.html" for name in dict.fromkeys(run.record.spec.task for run in report.runs)
    }
    addresses = {run.record.run_id: f"runs/{safe_name(run.record.run_id)}.html" for run in report.runs}
    shared = {"site_title": report.title, "pages": pages, "tuned": bool(report.studies)}
    with run_pages(shared, report, addresses) as pages_of_runs:
        from harness.report.site import (  # imported late because altair is slow to import
            home_page,
            task_page,
            tuning_page,
        )

        yield from _assets()
        yield "index.html", render.page("index.html", "", **shared, **home_page.context(report, addresses))
        yield "table.csv", csv_text(report.table).encode()
        yield "table.json", json_text(report.table).encode()
        for task, address in pages.items():
            part = Table(report.table.columns, tuple(row for row in report.table.rows if row.text("task") == task))
            yield address, render.page("task.html", "../", **shared, **task_page.context(report, task, part, addresses))
            for dataset, rows in task_page.by_dataset(part).items():
                stem = task_page.table_stem(task, dataset)
                yield f"{stem}.csv", csv_text(rows).encode()
                yield f"{stem}.json", json_text(rows).encode()
        if report.studies:
            yield "tuning.html", render.page("tuning.html", "", **shared, **tuning_page.context(report))
        everything = tables.runs(report.runs, addresses, "All runs", "")
        yield "runs.html", render.page("runs.html", "", **shared, title="All runs", view=everything)
        yield from pages_of_runs


def _assets() -> Iterator[tuple[str, bytes]]:
    from harness.report.plots.run_charts import specifications

    folder = package_files("harness.report.site") / "assets"
    for name in ("site.css", "site.js"):
        yield f"assets/{name}", (folder / name).read_bytes()
    yield "assets/vega.js", vega()
    shared = {"themes": {"light": site_config(), "dark": site_config(dark=True)}, "runs": specifications()}
    yield "assets/plots.js", b"window.harnessPlots = " + embedded_json(shared).encode() + b";\n"
