"""Tests that every number in a report is declared once, as a metric of a run or as the ratio of one."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from sample_records import comparison, record
from sample_store import example

from harness.analysis.comparison_table import EFFICIENCY, RATIOS, build_table
from harness.analysis.metrics import METRICS, QUALITY, REFERENCE, available
from harness.analysis.table import Column, Table
from harness.measure.quality.builtin import METRICS as QUALITY_METRICS
from harness.plugins import resolve
from harness.records import MetricInfo, RunRecord, Success
from harness.report.builtin import REPORTERS
from harness.report.site.build import files

CALIBRATION = MetricInfo(
    higher_is_better=False, title="calibration error", unit="points", summary="gap", in_tables=True
)
COUNTS = {"batch_size", "seeds", "runs", "seed"}
"""Numbers about a row or a setting, not about the result of a run."""


def with_score(run: RunRecord, name: str, value: float, info: MetricInfo) -> RunRecord:
    assert isinstance(run.outcome, Success)
    scores = run.outcome.scores
    scores = msgspec.structs.replace(scores, test=scores.test | {name: value}, metrics=scores.metrics | {name: info})
    return msgspec.structs.replace(run, outcome=msgspec.structs.replace(run.outcome, scores=scores))


def runs() -> list[RunRecord]:
    known = [run for run in comparison() if isinstance(run.outcome, Success)]
    return [*known, with_score(record(model="lstm"), "ece", 3.25, CALIBRATION)]


def declared(table: Table, records: list[RunRecord]) -> set[tuple[str, str, str]]:
    """Return the name, title and unit that each metric and each ratio may have in a report."""
    found = {(metric.name, metric.title, metric.unit) for metric in (*METRICS, QUALITY, REFERENCE)}
    found |= {(metric.ratio_column.name, metric.title, "×") for metric in METRICS}
    found.add((EFFICIENCY.name, EFFICIENCY.title, EFFICIENCY.unit))  # ratio of the throughputs of two rows
    plugins = {metric.name: metric for metric in QUALITY_METRICS}
    for run in records:
        metrics = available([run], plugins)
        found |= {(metric.name, metric.title, metric.unit) for metric in metrics.values()}
    return found


@pytest.fixture
def table() -> Table:
    return build_table(runs(), price_per_hour=2.5)


def rendered(name: str, table: Table) -> str:
    reporter = next(reporter for reporter in REPORTERS if reporter.name == name)
    return str(resolve(reporter.render)(table))


def numeric(table: Table) -> Iterator[Column]:
    return (column for column in table.columns if column.kind == "number")


def test_every_numeric_column_is_a_metric_or_its_ratio(table: Table) -> None:
    known = declared(table, runs())
    for column in numeric(table):
        assert (column.name, column.title, column.unit) in known
    assert {column.name for column in numeric(table)} >= {"ece", "train_cost_per_million", "f1_macro", "r2"}
    assert {column.name for column in table.columns if column.kind == "count"} <= COUNTS


def test_ratio_has_the_title_and_direction_of_its_metric(table: Table) -> None:
    columns = {column.name: column for column in table.columns}
    for name, metric in RATIOS.items():
        column = columns[metric.name]
        assert (columns[name].title, columns[name].better) == (column.title, column.better)


def test_csv_and_json_have_the_names_and_units_of_the_metrics(table: Table) -> None:
    known = {(name, unit) for name, _, unit in declared(table, runs())}
    columns = json.loads(rendered("json", table))["columns"]
    assert {(c["name"], c["unit"]) for c in columns if c["kind"] == "number"} <= known
    fields = next(csv.reader(io.StringIO(rendered("csv", table))))
    text = {column.name for column in table.columns if column.kind == "text"}
    assert {field.removesuffix("_ci95") for field in fields} - text - COUNTS <= {name for name, _ in known}


@pytest.mark.parametrize(
    ("name", "row", "separator"), [("markdown", r"^\|(.*)\|$", "|"), ("latex", r"^(.*) \\\\$", "&")]
)
def test_headers_are_the_titles_and_units_of_the_metrics(name: str, row: str, separator: str, table: Table) -> None:
    shown = {f"{title} ({unit})" if unit else title for _, title, unit in declared(table, runs())}
    shown |= {column.title for column in table.columns if column.kind != "number"}
    text = rendered(name, table).replace("$\\times$", "×").replace("$^2$", "²").replace("\\%", "%")
    before = {"markdown": r"\n(\|[^\n]*\|)\n\|[:-]", "latex": r"\\toprule\n([^\n]*)\n"}[name]
    headers = re.findall(before, text)
    assert len(headers) == 3
    for header in headers:
        line = re.sub(row, r"\1", header)
        assert {field.strip() for field in line.split(separator)} <= shown


def test_text_headers_are_the_words_of_titles_and_units(table: Table) -> None:
    words = {word for _, title, unit in declared(table, runs()) for word in [*title.split(), *unit.split()]}
    words |= {word for column in table.columns if column.kind != "number" for word in column.title.split()}
    text = rendered("text", table)
    for block in re.findall(r"\n\n((?:(?!\n\n).)*?)\n─+\n", text, flags=re.DOTALL):
        assert set(block.split()) <= words


class Headers(HTMLParser):
    """The numeric header cells of a page, as pairs of a name and a text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "th" and values.get("class") == "num":
            self.found.append((values["data-name"] or "", ""))
            self.open = True

    def handle_data(self, data: str) -> None:
        if self.open:
            name, text = self.found[-1]
            self.found[-1] = (name, text + data)

    def handle_endtag(self, tag: str) -> None:
        self.open = self.open and tag != "th"


def test_html_tables_of_runs_have_the_names_titles_and_units_of_the_metrics(tmp_path: Path) -> None:
    report = example(tmp_path)
    done = [run.record for run in report.runs if isinstance(run.record.outcome, Success)]
    known = declared(report.table, done)
    titles = {(name, f"{title} ({unit})" if unit else title) for name, title, unit in known}
    pages = {name: text.decode() for name, text in files(report) if name.endswith(".html") and "runs/" not in name}
    headers = {header for page in pages.values() for header in Headers(page).found}
    assert len(headers) > 10
    quality = {title for name, title in titles if name not in {metric.name for metric in METRICS}}
    for name, text in headers:
        if name in COUNTS:
            continue
        assert (name, text) in titles or (name == "reference" and text.startswith(REFERENCE.title)), (name, text)
    assert any(name == "quality" and text in quality for name, text in headers)
