"""Contents of the page for ``harness tune`` studies."""

from __future__ import annotations

from typing import Any

from harness.report import tuning
from harness.report.plots import study_charts
from harness.report.plots.figure import unchecked
from harness.report.report import Report
from harness.report.site import tables
from harness.report.site.plot_data import MAX_PLOTTED, Figures
from harness.tuning.study import Study


def context(report: Report) -> dict[str, Any]:
    """Return the values for the template. The newest studies come first."""
    figures = Figures()
    newest = report.studies[::-1]
    shown = [_study(report, study, number, figures) for number, study in enumerate(newest[:MAX_PLOTTED])]
    return {
        "title": "Tuning",
        "studies": shown,
        "left_out": max(0, len(newest) - MAX_PLOTTED),
        "plots": figures.page(),
    }


def _study(report: Report, study: Study, number: int, figures: Figures) -> dict[str, Any]:
    records = {run_id: run.record for run_id, run in report.by_id.items()}
    with unchecked():
        charts = list(study_charts.charts(study))
    return {
        "heading": tuning.heading(study),
        "lines": [*tuning.best(study), *tuning.cost(study), *tuning.confirmation(study, records)],
        "drawn": figures.add(f"study-{number}", charts),
        "view": tables.plain(
            f"study-{number}", f"Trials of study {study.name}", tuning.headers(study), tuning.rows(study), controls=True
        ),
    }
