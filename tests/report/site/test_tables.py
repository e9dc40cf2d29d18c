from __future__ import annotations

from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.site.tables import PAGE, HtmlCell, cell, html, plain

VALUES = st.none() | st.text() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)


@given(VALUES, st.sampled_from([".4g", ".4f", ".1f"]))
def test_html_of_value_equals_html_of_its_cell(value: str | int | float | None, places: str) -> None:
    assert html(value, places) == html(cell(value, places), places)


@given(st.text(min_size=1))
def test_html_escapes_text(text: str) -> None:
    safe = escape(text)
    shown = html(HtmlCell(text, h=text, ci=text), ".4g")
    assert shown == f'<td><a href="{safe}">{safe}</a><span class="ci"> ± {safe}</span></td>'


@pytest.mark.parametrize("count", [1, PAGE, PAGE + 1, 3 * PAGE])
@given(st.data())
def test_view_has_rows_after_the_first_page_as_data(count: int, data: st.DataObject) -> None:
    row = st.tuples(st.text(max_size=5), st.floats(0, 1) | st.none())
    rows = data.draw(st.lists(row, min_size=count, max_size=count))
    view = plain("scores", "Scores", ["class", "f1 (%)"], rows, places=".2f")
    assert [column.kind for column in view.columns] == ["text", "number"]
    assert len(view.rest) == max(0, count - PAGE)
    assert view.body.count("<tr>") == min(len(rows), PAGE)
    assert [found.t for _, found in view.rest] == ["–" if score is None else f"{score:.2f}" for _, score in rows[PAGE:]]
