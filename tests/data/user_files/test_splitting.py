"""Drawn splits: a partition, stratified, by group, the same each time."""

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
def test_each_class_is_in_each_split_in_its_share(counts: list[int], seed: int) -> None:
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    parts, told = draw(classes=classes, seed=seed)
    assert list(parts) == list(SPLITS)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(classes)))
    for number, count in enumerate(counts):
        found = [int((classes[rows] == number).sum()) for rows in parts.values()]
        assert min(found) >= 1
        assert abs(found[2] - 0.2 * count) <= 1
        assert abs(found[1] - 0.1 * count) <= 1
    assert told == f"validation and test drawn stratified, seed {seed}"
    again, _ = draw(classes=classes, seed=seed)
    assert all(np.array_equal(parts[name], again[name]) for name in SPLITS)


def test_the_seed_changes_the_splits() -> None:
    classes = np.arange(100) % 2
    assert not np.array_equal(draw(classes=classes)[0]["test"], draw(classes=classes, seed=1)[0]["test"])


def test_a_table_of_numbers_is_split_at_random() -> None:
    parts, told = draw(rows=100)
    assert [len(part) for part in parts.values()] == [70, 10, 20]
    assert told == "validation and test drawn at random, seed 0"


@given(st.lists(st.integers(0, 11), min_size=30, max_size=80), st.booleans(), st.integers(0, 9))
def test_no_group_is_in_two_splits(groups: list[int], classified: bool, seed: int) -> None:
    if len(set(groups)) < 3:
        return
    classes = np.arange(len(groups)) % 2 if classified else None
    parts, told = draw(classes=classes, groups=groups, seed=seed)
    owners = [set(np.asarray(groups)[rows].tolist()) for rows in parts.values()]
    assert all(owners)
    assert sum(map(len, owners)) == len(set(groups))
    assert sum(map(len, parts.values())) == len(groups)
    assert told == f"validation and test drawn by group, seed {seed}"


def test_groups_keep_about_the_shares_and_the_classes() -> None:
    groups = np.repeat(np.arange(50), 10)
    classes = np.arange(500) % 5
    parts, _ = draw(classes=classes, groups=groups)
    assert [len(part) for part in parts.values()] == pytest.approx([350, 50, 100], abs=20)
    assert check_classes(parts, classes, "abcde") == {}


def test_given_splits_are_kept_and_missing_ones_drawn_from_the_training_rows() -> None:
    names = ["train"] * 70 + ["test"] * 20
    parts, told = draw(names, classes=np.arange(90) % 2)
    assert parts["test"].tolist() == list(range(70, 90))
    assert len(parts["validation"]) == pytest.approx(7, abs=1)
    assert set(parts["validation"].tolist()) < set(range(70))
    assert told == "validation drawn stratified, seed 0"
    complete = ["train", "validation", "test", "train"]
    parts, told = draw(complete, classes=[0, 0, 0, 1])
    assert ({name: rows.tolist() for name, rows in parts.items()}, told) == (
        {"train": [0, 3], "validation": [1], "test": [2]},
        "given",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": [0, 0, 0, 1, 1], "label_names": ("a", "b")}, "too few examples of a class .* 'b' has 2"),
        ({"rows": 2}, "2 rows cannot be put into 3 splits"),
        ({"classes": [0, 1] * 9, "groups": ["x", "y"] * 9}, "2 groups cannot be put into 3 splits"),
        ({"given_": ["test", "test"], "classes": [0, 1]}, "no row is in the training split"),
        (
            {"given_": ["train", "test", "validation"], "classes": [0, 0, 0], "groups": ["p1", "p1", "p2"]},
            "group 'p1' is in the train split and in the test split",
        ),
    ],
)
def test_splits_that_cannot_be_had(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw(**arguments)


def test_a_class_that_cannot_be_learned_is_refused_and_one_that_is_not_tested_is_told() -> None:
    parts = {"train": np.array([0, 1]), "validation": np.array([2]), "test": np.array([3])}
    classes = np.array([0, 1, 0, 1])
    assert check_classes(parts, classes, ("a", "b")) == {"validation_lacks_classes": "b", "test_lacks_classes": "a"}
    with pytest.raises(DataError, match=re.escape("the training split has no example of 'c', which the test split")):
        check_classes(parts, np.array([0, 1, 0, 2]), ("a", "b", "c"))
