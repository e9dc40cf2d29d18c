"""Tests that the page on report columns lists all columns and metrics."""

from __future__ import annotations

import re

import pytest

from harness.report.ranking import COLUMNS as RANKING_COLUMNS


def test_page_has_every_column_and_metric() -> None:
    columns = pytest.importorskip("benchmarks.columns")
    page = columns.PAGE.read_text(encoding="utf-8")
    assert columns.updated(page) == page, "run: python -m benchmarks.columns"


def test_every_description_is_used() -> None:
    columns = pytest.importorskip("benchmarks.columns")
    names = {column.name for column in columns.COLUMNS} | {metric.name for metric in columns.SCORES}
    names |= {metric.name for metric in columns.METRICS if not metric.never_compared}
    assert columns.DESCRIPTIONS.keys() == names


def test_page_has_the_columns_of_rankings() -> None:
    page = pytest.importorskip("benchmarks.columns").PAGE.read_text(encoding="utf-8")
    section = page.partition("## Rankings")[2]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(RANKING_COLUMNS)
