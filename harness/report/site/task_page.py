"""Contents of a task page."""

from __future__ import annotations

from typing import Any

from harness.analysis.table import Row, Table
from harness.records import Failure
from harness.records.files import safe_name
from harness.report.layout import Block, block, legend
from harness.report.plots.figure import PLOTS, drawn
from harness.report.plots.points import panels
from harness.report.report import Report
from harness.report.site import tables
from harness.report.site.notices import notices
from harness.report.site.plot_data import MAX_PLOTTED, Figures


def context(report: Report, task: str, part: Table, addresses: dict[str, str]) -> dict[str, Any]:
    """Return the values for the task page template. `part` contains the rows of the task."""
    ids = {name for row in part.rows for name in row.run_ids}
    runs = [run for run in report.runs if run.record.run_id in ids]
    sections = by_dataset(part)
    blocks = {dataset: block(rows, rows.rows) for dataset, rows in sections.items()}
    plotted: list[tuple[str, list[tuple[str, str]]]] = []
    figures = Figures()
    every_panel = panels(report, part)
    for panel in every_panel[:MAX_PLOTTED]:
        charts = [
            titled
            for name in PLOTS
            if name not in ("confusion", "quality")  # confusion matrices are on the run pages, and pareto has quality
            for titled in figures.add(f"{name}-{panel.number}", drawn(name, panel))
        ]
        plotted.append((panel.block.heading, charts))
    failures = [run for run in runs if isinstance(run.record.outcome, Failure)]
    return {
        "title": task,
        "task": task,
        "datasets": [
            {
                "name": dataset,
                "heading": shown.heading,
                "view": _view(shown, task, dataset, addresses),
                "flags": shown.flags,
            }
            for dataset, shown in blocks.items()
        ],
        "legend": legend(list(blocks.values())),
        "notices": notices(runs, addresses, "../"),
        "panels": plotted,
        "models": [
            (name, about)
            for name in dict.fromkeys(row.text("model") for row in part.rows)
            if (about := report.catalog.about_model(name))
        ],
        "left_out": max(0, len(every_panel) - MAX_PLOTTED),
        "plots": figures.page(),
        "runs": tables.runs(runs, addresses, f"Runs of {task}", "../"),
        "failures": tables.failures(failures, addresses, "../"),
        "more_failures": max(0, len(failures) - tables.PAGE),
    }


def by_dataset(part: Table) -> dict[str, Table]:
    """Return a table with the rows of each dataset."""
    rows: dict[str, list[Row]] = {}
    for row in part.rows:
        rows.setdefault(row.text("dataset"), []).append(row)
    return {dataset: Table(part.columns, tuple(each)) for dataset, each in rows.items()}


def table_stem(task: str, dataset: str) -> str:
    """Return the path of the CSV and JSON files for a dataset's table, relative to the site and without the suffix."""
    return f"tables/{safe_name(task)}/{safe_name(dataset)}"


def _view(shown: Block, task: str, dataset: str, addresses: dict[str, str]) -> tables.View:
    links = {index: f"../{addresses[row.run_ids[0]]}" for index, row in enumerate(shown.rows)}
    name, caption = f"comparison-{safe_name(dataset)}", f"Comparison for task {task} on {dataset}"
    return tables.comparison(shown, name, caption, links, f"../{table_stem(task, dataset)}")
