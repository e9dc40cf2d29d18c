"""Tests of the text about one run."""

from __future__ import annotations

import msgspec
import pytest
from sample_records import success

from harness.report.run_text import quality


@pytest.mark.parametrize(
    ("method", "title"),
    [
        ("percentile bootstrap", "95% bootstrap interval over test examples"),  # records without the field
        ("Korn-Graubard; Student t of the logarithm", "95% interval over test examples"),
    ],
)
def test_quality_names_the_method_of_old_intervals(method: str, title: str) -> None:
    outcome = success()
    scores = msgspec.structs.replace(outcome.scores, intervals={"accuracy": (0.7, 0.8)}, interval_method=method)
    headers, rows = quality(msgspec.structs.replace(outcome, scores=scores))
    assert headers[-1] == title
    assert rows[0][-1] == "0.7 to 0.8"
