"""Tests of slices and their scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.measure.quality.builtin import METRICS
from harness.measure.quality.scorer import scorer
from harness.measure.quality.slices import MAX_VALUES, MISSING, OTHERS, slices, with_intersections
from harness.records import DataInfo, InputSpec, SliceScore

ACCURACY = next(metric for metric in METRICS if metric.name == "accuracy")
RMSE = next(metric for metric in METRICS if metric.name == "rmse")


def indices_by_value(values: NDArray[Any]) -> dict[str, list[int]]:
    return {value: np.flatnonzero(members).tolist() for _, value, members in slices({"group": values})}


def test_few_values_are_slices_in_order() -> None:
    assert indices_by_value(np.array(["b", "a", "b"])) == {"a": [1], "b": [0, 2]}
    assert indices_by_value(np.array([10, 9, 10])) == {"9": [1], "10": [0, 2]}
    assert list(indices_by_value(np.array(["10", "9", "-1"]))) == ["-1", "9", "10"]
    assert list(indices_by_value(np.array(["10", "9", "a"]))) == ["10", "9", "a"]
    many = np.array([str(number) for number in range(40)] + ["5", "10", "7"])
    assert list(indices_by_value(many))[:3] == ["0", "1", "2"]


def test_many_numbers_are_binned_at_their_quartiles() -> None:
    assert indices_by_value(np.arange(40)) == {
        "0 to 9": list(range(10)),
        "10 to 19": list(range(10, 20)),
        "20 to 29": list(range(20, 30)),
        "30 to 39": list(range(30, 40)),
    }


def test_distinct_numbers_have_distinct_labels() -> None:
    assert list(indices_by_value(np.array([10001.0, 10002.0, 2019.0]))) == ["2019", "10001", "10002"]
    assert list(indices_by_value(np.array([52.51001, 52.51002, 52.5]))) == ["52.5", "52.51001", "52.51002"]
    assert list(indices_by_value(np.array([12345.67, 1 / 3]))) == ["0.33333", "12346"]
    assert list(indices_by_value(np.array([0.1, 0.1 + 2**-56, math.inf]))) == ["0.1", "0.10000000000000002", "inf"]
    assert list(indices_by_value(np.array([1e300, -2e20]))) == ["-2e+20", "1e+300"]
    assert list(indices_by_value(np.arange(10001.0, 10041))) == [
        "10001 to 10010",
        "10011 to 10020",
        "10021 to 10030",
        "10031 to 10040",
    ]


def test_value_that_spans_several_quartiles_is_one_slice() -> None:
    parts = indices_by_value(np.array([0] * 100 + list(range(1, 41))))
    assert {value: len(members) for value, members in parts.items()} == {"0": 100, "1 to 5": 5, "6 to 40": 35}


def test_rare_names_are_merged_into_one_slice() -> None:
    names = np.array([f"n{number:02}" for number in range(40)] + ["n39"] * 3)
    parts = indices_by_value(names)
    assert len(parts) == MAX_VALUES
    assert parts["n39"] == [39, 40, 41, 42]
    assert len(parts[OTHERS]) == 40 - (MAX_VALUES - 1)


def test_merged_and_missing_slices_differ_from_values_with_the_same_name() -> None:
    names = np.array([*(f"n{number:02}" for number in range(40)), *[OTHERS] * 3, *[MISSING] * 3, ""])
    parts = [value for _, value, _ in slices({"group": names})]
    assert len(set(parts)) == len(parts)
    found = indices_by_value(names)
    assert found[OTHERS] == [40, 41, 42]
    assert len(found[f"{OTHERS} (merged)"]) == 42 - (MAX_VALUES - 1)
    assert (found[MISSING], found[f"{MISSING} (empty)"]) == ([43, 44, 45], [46])


def test_combinations_of_values_with_commas_are_different_slices() -> None:
    values = {"a": np.array(["x, y", "x", "x"]), "b": np.array(["z", "y, z", "z"])}
    assert with_intersections(values, ["a*b"])["a*b"].tolist() == ["'x, y', 'z'", "'x', 'y, z'", "'x', 'z'"]


def test_missing_values_form_a_slice() -> None:
    assert indices_by_value(np.array([1.5, math.nan, 1.5])) == {"1.5": [0, 2], MISSING: [1]}
    assert indices_by_value(np.array(["x", "", "x"], object)) == {"x": [0, 2], MISSING: [1]}
    assert indices_by_value(np.array([math.nan])) == {MISSING: [0]}


@given(
    st.one_of(
        st.lists(st.integers(-50, 50), min_size=1),
        st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1),
        st.lists(st.text("abcdef", max_size=2), min_size=1),
    )
)
def test_every_example_is_in_exactly_one_slice(values: list[Any]) -> None:
    parts = list(slices({"group": np.array(values)}))
    assert (sum(part.members.astype(int) for part in parts) == 1).all()
    assert all(part.members.any() for part in parts)
    assert len(parts) <= MAX_VALUES + 1


def test_scores_include_each_slice() -> None:
    info = DataInfo(
        kind="features", inputs={"x": InputSpec(shape=(1,), dtype="float32")}, objective="classification", outputs=2
    )
    targets = np.array([0, 0, 1, 1])
    outputs = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], np.float32)
    data = (targets, outputs)
    scores = scorer(info, "accuracy", [ACCURACY]).scores(data, data, None, {"speaker": np.array(["a", "a", "b", "b"])})
    counts: list[dict[str, list[int]]] = [
        {"class_support": [2, 0], "class_predicted": [1, 1], "class_correct": [1, 0]},
        {"class_support": [0, 2], "class_predicted": [0, 2], "class_correct": [0, 2]},
    ]
    assert scores.slices == [
        SliceScore(group="speaker", value="a", support=2, score=0.5, **counts[0]),
        SliceScore(group="speaker", value="b", support=2, score=1.0, **counts[1]),
    ]


def test_intersection_has_a_slice_for_each_combination_of_labels() -> None:
    groups = {"side": np.array(["left", "", "left", "right"]), "age": np.array([1, 1, 2, 2])}
    found = with_intersections(groups, ["side", "side*age", "side*unknown"])
    assert list(found) == ["side", "age", "side*age"]
    assert {value: np.flatnonzero(members).tolist() for _, value, members in slices({"both": found["side*age"]})} == {
        "left, 1": [0],
        "left, 2": [2],
        "missing, 1": [1],
        "right, 2": [3],
    }


def test_intersection_of_a_binned_column_has_its_bins() -> None:
    ages = np.arange(40)
    found = with_intersections({"age": ages, "side": np.array(["a", "b"] * 20)}, ["age*side"])
    assert sorted(set(found["age*side"].tolist()))[:2] == ["0 to 9, a", "0 to 9, b"]


def test_group_whose_name_contains_the_separator_is_not_an_intersection() -> None:
    groups = {"a*b": np.array(["x"]), "a": np.array(["y"]), "b": np.array(["z"])}
    assert with_intersections(groups, ["a*b"])["a*b"].tolist() == ["x"]


def test_value_named_missing_differs_from_empty_cells() -> None:
    assert indices_by_value(np.array(["missing", ""])) == {"missing": [0], "missing (empty)": [1]}


def test_regression_slices_are_scored_in_the_unit_of_the_target() -> None:
    info = DataInfo(
        kind="features",
        inputs={"x": InputSpec(shape=(1,), dtype="float32")},
        objective="regression",
        outputs=1,
        target_mean=(100.0,),
        target_scale=(10.0,),
    )
    data = (np.zeros((2, 1), np.float32), np.array([[0.5], [2.0]], np.float32))
    scores = scorer(info, "rmse", [RMSE]).scores(data, data, None, {"side": np.array([1, 2])})
    assert [part.score for part in scores.slices] == pytest.approx([5.0, 20.0])
