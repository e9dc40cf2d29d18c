"""Contents of the home page."""

from __future__ import annotations

from typing import Any

from harness.records import Failure, RunRecord
from harness.report.layout import unranked
from harness.report.plots.figure import drawn
from harness.report.plots.points import panels
from harness.report.ranking import LEGEND
from harness.report.report import Report
from harness.report.site import overview, tables
from harness.report.site.best_results import best_results
from harness.report.site.notices import notices
from harness.report.site.plot_data import MAX_PLOTTED, Figures
from harness.report.site.ranks import rankings

MAX_NOTICES = 50
"""Maximum number of warnings on the page."""


def context(report: Report, addresses: dict[str, str]) -> dict[str, Any]:
    """Return the values for the home page template. `addresses` maps run ids to run pages."""
    contests = overview.contests(report)
    failures = [run for run in report.runs if isinstance(run.record.outcome, Failure)]
    figures = Figures()
    fronts = [
        (panel.title, figures.add(f"pareto-{panel.number}", drawn("pareto", panel)))
        for panel in panels(report)[:MAX_PLOTTED]
    ]
    ranked = rankings(report)
    ranks = [
        (title, table, notes, figures.add(f"rank-{number}", charts))
        for number, (title, table, notes, charts) in enumerate(ranked)
    ]
    return {
        "title": report.title,
        "summary": _summary(report),
        "problems": report.problems[:20],
        "notices": notices(report.runs, addresses, "")[:MAX_NOTICES],
        "backends": report.backends,
        "best": best_results(report, addresses),
        "contests": contests,
        "corrected": overview.CORRECTED,
        "notes": unranked(report.table.rows),
        "metrics": {name: title for name, title in overview.TITLES.items() if any(name in c.leads for c in contests)},
        "scoreboard": overview.scoreboard(contests),
        "ranks": ranks,
        "rank_legend": LEGEND,
        "panels": fronts,
        "plots": figures.page(),
        "failures": tables.failures(failures, addresses, ""),
        "more_failures": max(0, len(failures) - tables.PAGE),
    }


def _summary(report: Report) -> dict[str, Any]:
    records = [run.record for run in report.runs]
    started = sorted(record.started_at for record in records)
    versions = {
        f"{name} {version}"
        for record in records
        for name, version in record.environment.packages.items()
        if name in report.catalog.backends or name in ("torch", "tensorflow", "jax", "keras")
    }
    return {
        "runs": len(records),
        "failed": sum(isinstance(record.outcome, Failure) for record in records),
        "tasks": list(dict.fromkeys(record.spec.task for record in records)),
        "backends": report.backends,
        "machines": list(dict.fromkeys(_machine(record) for record in records)),
        "versions": sorted(versions),
        "commits": list(dict.fromkeys(record.environment.git_commit or "not known" for record in records)),
        "since": started[0][:10] if started else "",
        "until": started[-1][:10] if started else "",
    }


def _machine(record: RunRecord) -> str:
    environment = record.environment
    gpus = [gpu.name for gpu in environment.gpus]
    return ", ".join(
        [f"{environment.cpu} ({environment.cores} cores)", f"{environment.memory_bytes / 2**30:.0f} GiB", *gpus]
    )
