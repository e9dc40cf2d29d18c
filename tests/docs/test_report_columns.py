"""Tests that the page on report columns lists all columns and metrics."""

from __future__ import annotations

import pytest


def test_page_has_every_column_and_metric() -> None:
    columns = pytest.importorskip("benchmarks.columns")
    page = columns.PAGE.read_text(encoding="utf-8")
    assert columns.updated(page) == page, "run: python -m benchmarks.columns"


def test_every_description_is_used() -> None:
    columns = pytest.importorskip("benchmarks.columns")
    names = {column.name for column in columns.COLUMNS} | {metric.name for metric in columns.SCORES}
    names |= {metric.name for metric in columns.METRICS if not metric.never_compared}
    assert columns.DESCRIPTIONS.keys() == names
