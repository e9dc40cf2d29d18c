"""Contents of a task page."""

from __future__ import annotations

from typing import Any

from harness.analysis.table import Table
from harness.records import Failure
from harness.records.files import safe_name
from harness.report.layout import block, legend
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
    links = {index: f"../{addresses[row.run_ids[0]]}" for index, row in enumerate(part.rows)}
    whole = block(part, part.rows)
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
    slug = safe_name(task)
    return {
        "title": task,
        "task": task,
        "heading": whole.heading,
        "view": tables.comparison(whole, "comparison", f"Comparison for task {task}", links, slug),
        "legend": legend([whole]),
        "flags": whole.flags,
        "notices": notices(runs, addresses, "../"),
        "panels": plotted,
        "left_out": max(0, len(every_panel) - MAX_PLOTTED),
        "plots": figures.page(),
        "runs": tables.runs(runs, addresses, f"Runs of {task}", "../"),
        "failures": tables.failures(failures, addresses, "../"),
        "more_failures": max(0, len(failures) - tables.PAGE),
    }
