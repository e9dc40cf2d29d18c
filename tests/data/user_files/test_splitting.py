"""Given and drawn splits: stratification, groups, reproducibility and errors."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import DataError
from harness.data.user_files.splitting import SPLITS, check_classes, split

SHARES = {"seed": 0, "validation_share": 0.1, "test_share": 0.2}


def draw(given_: object = None, classes: object = None, groups: object = None, rows: int = 0, **changes: object):
    arrays = [None if array is None else np.asarray(array) for array in (classes, groups)]
    lengths = [len(array) for array in (given_, *arrays) if array is not None]
    return split(given_, *arrays, rows=rows or lengths[0], **{**SHARES, **changes})


@given(st.lists(st.integers(3, 30), min_size=2, max_size=6), st.integers(0, 99))
def test_split_by_class_keeps_the_fraction_of_each_class(counts: list[int], seed: int) -> None:
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    parts, description = draw(classes=classes, seed=seed)
    assert list(parts) == list(SPLITS)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(classes)))
    for number, count in enumerate(counts):
        found = [int((classes[rows] == number).sum()) for rows in parts.values()]
        assert min(found) >= 1
        assert abs(found[2] - 0.2 * count) <= 1
        assert abs(found[1] - 0.1 * count) <= 1
    assert description == f"validation and test drawn at random by class, seed {seed}"
    again, _ = draw(classes=classes, seed=seed)
    assert all(np.array_equal(parts[name], again[name]) for name in SPLITS)


def test_split_depends_on_the_seed() -> None:
    classes = np.arange(100) % 2
    assert not np.array_equal(draw(classes=classes)[0]["test"], draw(classes=classes, seed=1)[0]["test"])


def test_split_without_classes_is_random() -> None:
    parts, description = draw(rows=100)
    assert [len(part) for part in parts.values()] == [70, 10, 20]
    assert description == "validation and test drawn at random, seed 0"


@given(st.lists(st.integers(0, 11), min_size=30, max_size=80), st.booleans(), st.integers(0, 9))
def test_split_by_group_puts_no_group_into_two_splits(groups: list[int], classified: bool, seed: int) -> None:
    if len(set(groups)) < 3:
        return
    classes = np.arange(len(groups)) % 2 if classified else None
    parts, description = draw(classes=classes, groups=groups, seed=seed)
    owners = [set(np.asarray(groups)[rows].tolist()) for rows in parts.values()]
    assert all(owners)
    assert sum(map(len, owners)) == len(set(groups))
    assert sum(map(len, parts.values())) == len(groups)
    assert description == f"validation and test drawn at random by group, seed {seed}"


def test_split_by_group_approximates_fractions_and_keeps_classes() -> None:
    groups = np.repeat(np.arange(50), 10)
    classes = np.arange(500) % 5
    parts, _ = draw(classes=classes, groups=groups)
    assert [len(part) for part in parts.values()] == pytest.approx([350, 50, 100], abs=20)
    assert check_classes(parts, classes, "abcde") == ({}, [])


def test_split_keeps_given_splits_and_draws_missing_ones_from_training_rows() -> None:
    names = ["train"] * 70 + ["test"] * 20
    parts, description = draw(names, classes=np.arange(90) % 2)
    assert parts["test"].tolist() == list(range(70, 90))
    assert len(parts["validation"]) == pytest.approx(7, abs=1)
    assert set(parts["validation"].tolist()) < set(range(70))
    assert description == "validation drawn at random by class, seed 0"
    complete = ["train", "validation", "test", "train"]
    parts, description = draw(complete, classes=[0, 0, 0, 1])
    assert ({name: rows.tolist() for name, rows in parts.items()}, description) == (
        {"train": [0, 3], "validation": [1], "test": [2]},
        "given",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"classes": [0, 0, 0, 1, 1], "label_names": ("a", "b")},
            "3 splits need at least 3 examples of each class, but 'b' has 2; add",
        ),
        ({"rows": 2}, "2 rows cannot be divided into 3 splits"),
        ({"classes": [0, 1] * 9, "groups": ["x", "y"] * 9}, "2 groups cannot be divided into 3 splits"),
        (
            {"given_": ["test", "test"], "classes": [0, 1]},
            r"the training split has no rows \(given splits: test\)",
        ),
        (
            {"given_": ["train", "test", "validation"], "classes": [0, 0, 0], "groups": ["p1", "p1", "p2"]},
            "group 'p1' is in both the train and the test split",
        ),
    ],
)
def test_split_impossible_splits_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw(**arguments)


def test_split_groups_that_share_duplicates_are_refused_with_the_reason() -> None:
    groups, duplicates = [0, 0, 1, 1, 2, 2], [10, 11, 11, 12, 12, 13]
    with pytest.raises(
        DataError,
        match="3 groups cannot be divided into 3 splits, because groups that share duplicate rows are treated as one "
        "group, which reduces their number to 1; remove the duplicates",
    ):
        draw(classes=None, groups=groups, duplicates=duplicates)


def test_check_classes_untrained_class_is_compared_with_similar_names() -> None:
    parts = {"train": np.array([0, 1]), "validation": np.array([0]), "test": np.array([2])}
    with pytest.raises(DataError, match=r"none; 'cat' looks like 'Cat'; use one spelling in all splits"):
        check_classes(parts, np.array([0, 1, 2]), ("Cat", "dog", "cat"))


def test_check_classes_refuses_untrained_classes_and_returns_untested_ones() -> None:
    parts = {"train": np.array([0, 1]), "validation": np.array([2]), "test": np.array([3])}
    classes = np.array([0, 1, 0, 1])
    details, warnings = check_classes(parts, classes, ("a", "b"))
    assert details == {"validation_lacks_classes": "b", "test_lacks_classes": "a"}
    assert [text.partition(",")[0] for text in warnings] == [
        "the validation split has no examples of 1 of 2 classes ('b')",
        "the test split has no examples of 1 of 2 classes ('a')",
        "2 of 2 classes have only one training example; check the target column",
    ]
    with pytest.raises(
        DataError, match=re.escape("the test split has examples of 'c', but the training split has none")
    ):
        check_classes(parts, np.array([0, 1, 0, 2]), ("a", "b", "c"))
