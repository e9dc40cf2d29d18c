"""Rankings of backends and models across datasets, for the home page."""

from __future__ import annotations

from typing import Any

from harness.analysis.formatting import one_line
from harness.analysis.metrics import HEADLINES, QUALITY
from harness.analysis.rank import Placement, Ranking, rank
from harness.analysis.standings import MIN_DATASETS
from harness.analysis.table import Column
from harness.errors import UsageError
from harness.report.plots.figure import unchecked
from harness.report.plots.ranking import critical_difference
from harness.report.ranking import HEADERS, heading, remarks, rows, shown_placements, tests, ties_note
from harness.report.report import Report
from harness.report.site.tables import HtmlCell, Value, View, plain

FIELDS = ("backend", "model")
METRICS = (QUALITY, *(metric for metric in HEADLINES if metric.group == "throughput"))
MAX_CONTENDERS = 20
"""Maximum number of backends or models in a ranking. All pairs are compared on each dataset."""
_NAMES = ("mean_rank", "rank_interval", "win_rate", "win_rate_interval", "record", "ratio", "ratio_interval", "p_holm")
"""Column names in downloaded files. Unlike the headers of the displayed table, the column names are unique."""

Section = tuple[str, View, list[str], list[tuple[str, Any]]]
"""Title, table, notes and charts of a ranking."""


def rankings(report: Report) -> list[Section]:
    """Return the rankings that are based on at least three datasets."""
    plugins = {name: provided.value for name, provided in report.catalog.metrics.items()}
    found: list[Section] = []
    for by in FIELDS:
        contenders = {getattr(run.record.spec, by) for run in report.runs}
        datasets = {(run.record.spec.task, run.record.spec.dataset) for run in report.runs}
        if not 2 <= len(contenders) <= MAX_CONTENDERS or len(datasets) < MIN_DATASETS:
            continue
        for metric in METRICS:
            try:
                ranking = rank(report.runs, plugins, metric.name, (by,))
            except UsageError:  # the runs have no common datasets or no value of the metric
                continue
            found += [
                _section(len(found) + place, ranking, placement)
                for place, placement in enumerate(shown_placements(ranking))
                if placement.standings is not None and placement.standings.datasets >= MIN_DATASETS
            ]
    return found


def _section(number: int, ranking: Ranking, placement: Placement) -> Section:
    assert placement.standings is not None
    standings = placement.standings
    cells: list[list[Value]] = []
    for one, row in zip(standings.contenders, rows(standings), strict=True):
        numbers = (one.mean_rank, None, one.win_rate, None, one.wins, one.ratio, None, one.p_holm)
        shown = [HtmlCell(text, value, c="num") for text, value in zip(row, numbers, strict=True)]
        cells.append([one_line(one.name) + " (baseline)" * (one.name == ranking.baseline), *shown])
    title = one_line(heading(ranking, placement))
    columns = [Column(name, header, "", "number") for name, header in zip(_NAMES, HEADERS, strict=True)]
    table = plain(f"rank-{number}", title, (", ".join(ranking.by), *columns), cells)
    notes = [tests(standings), ties_note(ranking, placement), *ranking.notes, *remarks(ranking, placement)]
    with unchecked():
        charts = [("Critical difference", critical_difference(standings))]
    return title, table, [one_line(note, 10_000) for note in notes], charts
