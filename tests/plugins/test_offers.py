"""Tests of the checks of objects that hooks yield."""

from __future__ import annotations

import math
from typing import Any

import pytest

from harness.errors import PluginError
from harness.interfaces import Metric
from harness.plugins.offers import check_offer


def metric(**changes: Any) -> Metric:
    values: dict[str, Any] = {"name": "odd", "objective": "regression", "function": "math:fsum", "summary": ""}
    return Metric(**values | {"higher_is_better": True} | changes)


@pytest.mark.parametrize("bounds", [(None, None), (0, 1), (0.0, None), (None, 1), (-2.0, -1.0)])
def test_metric_with_valid_bounds_is_accepted(bounds: Any) -> None:
    check_offer("harness_metrics", metric(bounds=bounds))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"higher_is_better": "yes"}, "higher_is_better"),
        ({"higher_is_better": None}, "higher_is_better"),
        ({"bounds": (0.0,)}, "bounds"),
        ({"bounds": ("0", "1")}, "bounds"),
        ({"bounds": (1.0, 0.0)}, "the bounds 1 and 0; the first bound must be smaller"),
        ({"bounds": (1.0, 1.0)}, "the bounds 1 and 1; the first bound must be smaller"),
        ({"bounds": (0.0, math.nan)}, "the bounds 0 and nan"),
        ({"unit": None}, "unit"),
        ({"summary": 3}, "summary"),
        ({"title": 3}, "title"),
        ({"in_tables": "yes"}, "in_tables"),
    ],
)
def test_metric_that_a_record_cannot_describe_is_rejected(change: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError, match="metric 'odd'") as error:
        check_offer("harness_metrics", metric(**change))
    assert said in str(error.value)
