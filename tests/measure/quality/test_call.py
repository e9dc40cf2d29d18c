"""Tests of calls to metric functions: read-only arrays, and errors that name the metric."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadResultError, HarnessError, PluginError
from harness.interfaces import Metric
from harness.measure.quality.call import checked
from harness.measure.quality.scorer import Scorer, scorer
from harness.records import DataInfo, MetricInfo

Array = np.ndarray[Any, Any]
CLASSES = DataInfo(kind="x", inputs={}, objective="classification", outputs=2)
NUMBERS = DataInfo(kind="x", inputs={}, objective="regression", outputs=1)
RIGHT: dict[str, Any] = {}
"""Function of the metric ``odd`` in the current test."""


def odd(targets: Array, outputs: Array, info: DataInfo) -> Any:
    return RIGHT["odd"](targets, outputs)


def accuracy(targets: Array, outputs: Array, info: DataInfo) -> float:
    return float((outputs.argmax(axis=-1) == targets).mean())


def scorer_of(function: Callable[[Array, Array], Any], info: DataInfo = CLASSES, **declared: Any) -> Scorer:
    """Return a scorer of the metric ``odd``, which comes first, and of the accuracy."""
    RIGHT["odd"] = function
    common: dict[str, Any] = {"objective": info.objective, "higher_is_better": True, "summary": ""}
    metrics = [
        Metric(name="odd", function=f"{__name__}:odd", **common | declared),
        Metric(name="accuracy", function=f"{__name__}:accuracy", **common),
    ]
    return scorer(info, "odd", metrics[: 1 if info is NUMBERS else 2])


def example(info: DataInfo = CLASSES) -> tuple[Array, Array]:
    """Return four examples, one of which is predicted correctly."""
    if info is NUMBERS:
        return np.arange(4.0)[:, None], np.zeros((4, 1))
    return np.array([0, 1, 1, 1]), np.array([[1.0, 0.0]] * 4, np.float32)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "type bool"),
        (np.bool_(False), "type bool"),
        ("0.5", "type str"),
        (np.array([0.5]), "type ndarray"),
        (np.array(0.5), "type ndarray"),
        ([0.5], "type list"),
        (0.5 + 0j, "type complex"),
        (math.nan, "is nan"),
        (np.float32(math.inf), "is inf"),
        (10**400, "is inf"),
        (1.5, "outside its declared bounds 0 to 1"),
        (-0.01, "outside its declared bounds 0 to 1"),
        (np.int64(2), "outside its declared bounds 0 to 1"),
    ],
)
@pytest.mark.parametrize("method", ["score", "quick", "scores"])
def test_scorer_with_an_invalid_value_raises_an_error_that_names_the_metric(method: str, value: Any, said: str) -> None:
    judge = scorer_of(lambda targets, outputs: value, bounds=(0.0, 1.0))
    call = {
        "score": lambda: judge.score(*example()),
        "quick": lambda: judge.quick(*example()),
        "scores": lambda: judge.scores(example(), example(), None, {}),
    }[method]
    with pytest.raises((PluginError, BadResultError)) as error:
        call()
    assert "metric 'odd'" in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("value", [1, 0.25, np.float32(0.5), np.float64(1), np.int32(0), 1 + 1e-7, None])
def test_scorer_with_a_valid_value_returns_a_float_or_none(value: Any) -> None:
    scored = scorer_of(lambda targets, outputs: value, bounds=(0.0, 1.0)).score(*example())["odd"]
    assert scored == value
    assert scored is None or type(scored) is float


def test_primary_metric_without_a_value_for_the_test_split_is_an_error_that_names_it() -> None:
    judge = scorer_of(lambda targets, outputs: None)
    with pytest.raises(BadResultError, match="the metric 'odd' returned None for the test split"):
        judge.scores(example(), example(), None, {})
    assert judge.quick(*example())["odd"] is None


@pytest.mark.parametrize("undefined", ["validation", "slices"])
def test_primary_metric_may_be_undefined_for_the_validation_split_and_for_slices(undefined: str) -> None:
    targets, outputs = example()
    calls: list[int] = []

    def sometimes(targets: Array, outputs: Array) -> float | None:
        calls.append(len(targets))
        return 1.0 if len(calls) == 1 else None

    scores = scorer_of(sometimes).scores((targets, outputs), (targets, outputs), None, {"half": np.arange(4) // 2})
    found = scores.validation["odd"] if undefined == "validation" else scores.slices[0].score
    assert found is None


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_checked_value_is_within_its_bounds(value: float, low: float, width: float) -> None:
    bounds = (low, low + width)
    try:
        found = checked("odd", value, bounds, rounding=0.0)
    except BadResultError:
        assert not bounds[0] <= value <= bounds[1]
    else:
        assert found == value
        assert bounds[0] <= value <= bounds[1]


def in_place(targets: Array, outputs: Array) -> float:
    outputs[:1] = 9
    return 1.0


def by_flag(targets: Array, outputs: Array) -> float:
    outputs.flags.writeable = True
    return in_place(targets, outputs)


def by_base(targets: Array, outputs: Array) -> float:
    base: Any = outputs
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    if isinstance(base, np.ndarray):
        base.flags.writeable = True
        base[:] = 9
    else:
        np.asarray(base)[:] = 9
    return 1.0


@pytest.mark.parametrize("info", [CLASSES, NUMBERS], ids=["classification", "regression"])
@pytest.mark.parametrize("write", [in_place, by_flag, by_base])
def test_metric_that_writes_into_its_arrays_is_an_error_that_names_it(
    write: Callable[[Array, Array], float], info: DataInfo
) -> None:
    targets, outputs = example(info)
    before = outputs.copy()
    with pytest.raises(
        HarnessError, match=r"the metric 'odd' failed: .*; copy the arrays before changing them|WRITEABLE"
    ):
        scorer_of(write, info).score(targets, outputs)
    assert np.array_equal(outputs, before)


def test_metric_that_changes_the_arrays_in_spite_of_the_protection_is_found_by_their_digest() -> None:
    targets, outputs = example()

    def by_owner(_: Array, view: Array) -> float:
        owner: Any = view.base
        owner.obj[:, 1] = 9
        return 1.0

    with pytest.raises(PluginError, match="the metric 'odd' changed its targets or outputs"):
        scorer_of(by_owner).score(targets, outputs)


def test_exception_of_a_metric_names_the_metric_and_the_line() -> None:
    with pytest.raises(PluginError, match=r"the metric 'odd' failed: ZeroDivisionError: .*test_call.py, line \d+"):
        scorer_of(lambda targets, outputs: 1 / 0).score(*example())


def test_exit_in_a_metric_names_the_metric() -> None:
    def leave(targets: Array, outputs: Array) -> float:
        raise SystemExit(0)

    with pytest.raises(PluginError, match=r"the metric 'odd' failed: SystemExit"):
        scorer_of(leave).score(*example())


def test_metric_that_changes_the_description_of_the_data_is_an_error_that_names_it() -> None:
    """Otherwise, it could change the units and labels in the record."""
    info = DataInfo(kind="x", inputs={}, objective="classification", outputs=2)

    def rename(targets: Array, outputs: Array) -> float:
        info.details["target_unit"] = "km"
        return 1.0

    with pytest.raises(PluginError, match="the metric 'odd' changed the description of the data"):
        scorer_of(rename, info).score(*example())


def test_exceptions_of_harness_are_passed_on() -> None:
    def refuse(targets: Array, outputs: Array) -> float:
        raise BadResultError("no good")

    with pytest.raises(BadResultError, match=r"^no good$"):
        scorer_of(refuse).score(*example())


def test_scores_contain_the_meaning_of_each_metric() -> None:
    kcal = DataInfo(kind="x", inputs={}, objective="regression", outputs=1, details={"target_unit": "kcal"})
    declared: dict[str, Any] = {
        "higher_is_better": False,
        "unit": "target",
        "bounds": (0.0, None),
        "summary": "an error",
    }
    RIGHT["odd"] = lambda targets, outputs: 1.0
    metric = Metric(name="odd", objective="regression", function=f"{__name__}:odd", **declared)
    scores = scorer(kcal, "odd", [metric]).scores(example(NUMBERS), example(NUMBERS), None, {})
    assert scores.metrics == {
        "odd": MetricInfo(higher_is_better=False, title="odd", unit="kcal", bounds=(0.0, None), summary="an error")
    }
