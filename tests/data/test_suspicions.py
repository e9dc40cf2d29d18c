"""Tests of the checks of prepared data."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data.suspicions import majority, row_digests, suspicions
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
    assert sentences[-1] == "3 of 8 examples are identical to an example of another class after preparation"


@pytest.mark.parametrize("difference", [0.0, 1e-7])
def test_row_digests_are_equal_for_equal_rows_only(difference: float) -> None:
    rows = Split(inputs={"x": np.array([[1.0, 2.0], [1.0, 2.0 + difference]])}, targets=np.zeros(2, np.int64))
    first, second = row_digests(rows)
    assert (first == second) == (difference == 0)


def images(train: int, *, blank: int = 0, same: int = 0, classes: list[int] | None = None) -> PreparedData:
    """Return data whose test split has `blank` images of one value, different ones, and `same` equal images."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        return Split(inputs={"image": rng.random((count, 5, 5, 1), np.float32)}, targets=np.arange(count) % 2)

    test = split(50)
    test.inputs["image"][:blank] = np.arange(blank, dtype=np.float32)[:, None, None, None]
    test.inputs["image"][len(test) - same :] = test.inputs["image"][-1]
    if classes is not None:
        test = Split(inputs=test.inputs, targets=np.array(classes))
    info = DataInfo(
        kind="image",
        inputs={"image": InputSpec(shape=(5, 5, 1), dtype="float32")},
        objective="classification",
        outputs=2,
        label_names=("ham", "spam"),
    )
    return PreparedData(train=split(train), validation=split(10), test=test, info=info)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"blank": 2}, "in 2 of 50 test examples (4.0%), all values of the input 'image' are equal"),
        ({"blank": 50}, "in 50 of 50 test examples (100.0%), all values of the input 'image' are equal"),
        ({"same": 2}, None),
        ({"same": 4}, "4 of 50 test examples (8.0%) are identical after preparation"),
        ({"classes": [0] * 40 + [1] * 10}, None),
        ({"classes": [0] * 49 + [1]}, "98.0% of the test examples belong to the class 'ham'"),
        ({"classes": [1] * 41 + [0] * 9}, "82.0% of the test examples belong to the class 'spam'"),
    ],
)
def test_degenerate_images_are_reported(changes: dict[str, object], sentence: str | None) -> None:
    found = [text for text in suspicions(images(40, **changes)) if "another class" not in text]  # type: ignore[arg-type]
    assert [text[: len(sentence or "")] for text in found] == ([] if sentence is None else [sentence])


def test_equal_rows_of_small_tables_are_not_suspicious() -> None:
    rows = [[float(n % 3), 0.0] for n in range(30)]
    data = prepared(rows, [[9, 9]], [[8, 8]])
    info = DataInfo(kind="features", inputs=data.info.inputs, objective="regression", outputs=1)
    assert suspicions(PreparedData(train=data.train, validation=data.validation, test=data.test, info=info)) == []


@pytest.mark.parametrize(
    ("counts", "reported"),
    [
        ([98, 2], "98.0% of the test examples belong to the class 'a', so always predicting this class gives an"),
        ([2, 98], "98.0% of the test examples belong to the class 'b'"),
        ([81, 19], "81.0% of the test examples belong to the class 'a'"),
        ([80, 20], None),
        ([50, 50], None),
        ([1, 1, 97, 1], "97.0% of the test examples belong to the class 'c'"),
        ([34, 33, 33], None),
        ([85, 5, 5, 5], "85.0% of the test examples belong to the class 'a'"),
        ([0, 10], "100.0% of the test examples belong to the class 'b'"),
        ([999, 1], "99.9% of the test examples belong to the class 'a'"),
        ([9, 1], "90.0% of the test examples belong to the class 'a'"),
        ([1, 0, 0], "100.0% of the test examples belong to the class 'a'"),
    ],
)
def test_majority_class_of_the_test_split_is_reported(counts: list[int], reported: str | None) -> None:
    targets = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    found = majority(targets, ["a", "b", "c", "d"])
    assert [text[: len(reported or "")] for text in found] == ([] if reported is None else [reported])
