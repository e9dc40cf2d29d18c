"""Tests of the checks of prepared data."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data.suspicions import row_digests, suspicions
from harness.interfaces import PreparedData, Split
from harness.records import DataInfo, InputSpec


def prepared(train: list[list[float]], validation: list[list[float]], test: list[list[float]]) -> PreparedData:
    def split(rows: list[list[float]]) -> Split:
        return Split(inputs={"x": np.array(rows, np.float32)}, targets=np.arange(len(rows)) % 2)

    info = DataInfo(
        kind="features",
        inputs={"x": InputSpec(shape=(2,), dtype="float32")},
        objective="classification",
        outputs=2,
    )
    return PreparedData(train=split(train), validation=split(validation), test=split(test), info=info)


def test_distinct_examples_are_not_suspicious() -> None:
    assert suspicions(prepared([[0, 0], [0, 1]], [[1, 0]], [[1, 1], [2, 0]])) == []


def test_examples_in_training_and_test_are_counted() -> None:
    sentences = suspicions(prepared([[0, 0], [0, 1], [0, 1]], [[9, 9]], [[0, 1], [0, 0], [5, 5], [0, 1]]))
    assert sentences[0].startswith("3 of 4 test examples also occur in the training split")


def test_equal_examples_of_different_classes_are_counted() -> None:
    sentences = suspicions(prepared([[0, 0], [0, 1], [4, 4], [0, 1]], [[9, 9]], [[0, 0], [0, 0], [5, 5]]))
    assert sentences[-1] == "3 of 8 examples are equal to an example of another class after preparation"


@pytest.mark.parametrize("difference", [0.0, 1e-7])
def test_row_digests_are_equal_for_equal_rows_only(difference: float) -> None:
    rows = Split(inputs={"x": np.array([[1.0, 2.0], [1.0, 2.0 + difference]])}, targets=np.zeros(2, np.int64))
    first, second = row_digests(rows)
    assert (first == second) == (difference == 0)
