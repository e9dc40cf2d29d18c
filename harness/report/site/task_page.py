"""What the page of one task shows."""

from __future__ import annotations

from typing import Any

from harness.analysis.table import Table
from harness.records import Failure
from harness.records.files import safe_name
from harness.report.layout import block, legend
from harness.report.plots import PLOTS, drawn
from harness.report.plots.points import panels
from harness.report.report import Report
from harness.report.site import tables
from harness.report.site.plot_data import MAX_PLOTTED, Figures


def context(report: Report, task: str, part: Table, addresses: dict[str, str]) -> dict[str, Any]:
    ids = {name for row in part.rows for name in row.run_ids}
    runs = [run for run in report.runs if run.record.run_id in ids]
    links = {index: f"../{addresses[row.run_ids[0]]}" for index, row in enumerate(part.rows)}
    shown = block(part, part.rows)
    found: list[tuple[str, list[tuple[str, str]]]] = []
    figures = Figures()
    there = panels(report, part)
    for panel in there[:MAX_PLOTTED]:
        here = [
            titled
            for name in PLOTS
            if name != "confusion"  # the pages of the runs have them
            for titled in figures.add(f"{name}-{panel.number}", drawn(name, panel))
        ]
        found.append((panel.block.heading, here))
    failures = [run for run in runs if isinstance(run.record.outcome, Failure)]
    slug = safe_name(task)
    return {
        "title": task,
        "task": task,
        "heading": shown.heading,
        "view": tables.comparison(shown, "comparison", f"{task}: the comparison", links, slug),
        "legend": legend([shown]),
        "flags": shown.flags,
        "panels": found,
        "left_out": max(0, len(there) - MAX_PLOTTED),
        "plots": figures.page(),
        "runs": tables.runs(runs, addresses, f"Runs of {task}", "../"),
        "failures": tables.failures(failures, addresses, "../"),
        "more_failures": max(0, len(failures) - tables.PAGE),
    }
