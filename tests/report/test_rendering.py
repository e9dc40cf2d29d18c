"""Tests of calls of report formats that fail or return something unexpected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import PluginError, UsageError
from harness.interfaces import Reporter
from harness.report.rendering import render_files, render_text
from harness.report.report import Report
from harness.testing import sample_report


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return sample_report(tmp_path)


def rejects(table: Any, path: str = "") -> str:
    raise UsageError("no such path")


def fails(table: Any) -> str:
    return str(table.rows[0].nothing)


def fails_late(table: Any) -> Any:
    yield "index.html", b""
    yield "rows.html", table.rows[0].text("nothing")


def returns_none(table: Any) -> None:
    return None


def returns_text(table: Any) -> str:
    return "text"


def yields_text(table: Any) -> Any:
    yield "index.html", "text"


def reporter(function: Any, **fields: Any) -> Reporter:
    return Reporter(name="odd", render=f"{__name__}:{function.__name__}", summary="", **fields)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (fails, r"format 'odd' failed: AttributeError: .* 'nothing' \(test_rendering.py, line \d+, in fails\)"),
        (returns_none, "returns_none returned NoneType, but it must return a str"),
        (fails_late, "fails_late returned generator, but it must return a str"),
    ],
)
def test_render_text_faulty_format_is_named(function: Any, said: str, report: Report) -> None:
    with pytest.raises(PluginError, match=said):
        render_text(reporter(function), report, {})


def test_render_text_argument_that_is_not_accepted_names_the_format(report: Report) -> None:
    with pytest.raises(PluginError, match=r"format 'odd' failed: TypeError: .* unexpected keyword argument 'width'"):
        render_text(reporter(fails), report, {"width": "80"})


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (fails_late, r"format 'odd' failed: KeyError: 'nothing' \(test_rendering.py, line \d+, in fails_late\)"),
        (returns_none, "returns_none returned NoneType, but it must yield tuples"),
        (returns_text, "returns_text returned str, but it must yield tuples"),
        (yields_text, "yields_text yielded a tuple of str, str, but it must yield tuples"),
    ],
)
def test_render_files_faulty_format_is_named(function: Any, said: str, report: Report) -> None:
    with pytest.raises(PluginError, match=said):
        list(render_files(reporter(function, output="directory"), report, {}))


def test_render_text_error_of_the_user_is_passed_on(report: Report) -> None:
    with pytest.raises(UsageError, match=r"^no such path$"):
        render_text(reporter(rejects), report, {"path": "x"})
