"""Tests of the parity result of a comparison on the overview page."""

from __future__ import annotations

import pytest

from harness.report.site.overview import worst_mark


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        (["same (5e-07)", "same (5e-07)"], "same (5e-07)"),
        (["same (5e-07)", "unchecked", "same (5e-07)"], "unchecked"),
        (["same (5e-07)", "partly checked", "unchecked"], "partly checked"),
        (["unchecked", "differs (logits)", "partly checked"], "differs (logits)"),
        ([], ""),
    ],
)
def test_result_of_a_comparison_is_that_of_its_worst_row(marks: list[str], expected: str) -> None:
    assert worst_mark(marks) == expected
    assert worst_mark(marks[::-1]) == expected
