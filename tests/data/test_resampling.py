"""Cross-validation folds: stratification, groups, duplicates and errors."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import DataError
from harness.data.folds import assign_folds, fold_warnings
from harness.data.pooled import resplit
from harness.data.resampling import PooledResampling, Resampling, divided
from harness.interfaces import RawData, Split


def drawn(
    count: int, classes: Any = None, groups: Any = None, duplicates: Any = None, rows: int = 0, seed: int = 0
) -> Any:
    arrays = [None if array is None else np.asarray(array) for array in (classes, groups, duplicates)]
    rows = rows or next(len(array) for array in arrays if array is not None)
    return assign_folds(count, rows, *arrays, seed, "abcdefgh")


@given(st.integers(2, 6), st.lists(st.integers(6, 30), min_size=2, max_size=4), st.integers(0, 99))
def test_assign_folds_by_class_keeps_the_fraction_of_each_class(count: int, counts: list[int], seed: int) -> None:
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    folds = drawn(count, classes, seed=seed)
    for number, total in enumerate(counts):
        sizes = np.bincount(folds[classes == number], minlength=count)
        assert sizes.sum() == total
        assert sizes.max() - sizes.min() <= 1
    assert np.array_equal(folds, drawn(count, classes, seed=seed))


@given(st.lists(st.integers(0, 11), min_size=30, max_size=80), st.booleans(), st.integers(0, 9))
def test_assign_folds_keeps_groups_in_one_fold(groups: list[int], classified: bool, seed: int) -> None:
    classes = np.arange(len(groups)) % 2 if classified else None
    try:
        folds = drawn(3, classes, groups, seed=seed)
    except DataError:
        return
    assert set(folds.tolist()) == {0, 1, 2}
    assert all(len(set(folds[np.asarray(groups) == group].tolist())) == 1 for group in set(groups))


@given(st.lists(st.integers(0, 40), min_size=30, max_size=80), st.booleans(), st.integers(0, 9))
def test_assign_folds_keeps_duplicates_in_one_fold(duplicates: list[int], classified: bool, seed: int) -> None:
    classes = np.asarray(duplicates) % 2 if classified else None
    try:
        folds = drawn(4, classes, duplicates=duplicates, seed=seed)
    except DataError:
        return
    assert all(len(set(folds[np.asarray(duplicates) == content].tolist())) == 1 for content in set(duplicates))


def test_assign_folds_depends_on_the_seed() -> None:
    assert not np.array_equal(drawn(5, np.arange(50) % 2), drawn(5, np.arange(50) % 2, seed=1))


def test_assign_folds_balances_groups_of_different_sizes() -> None:
    groups = np.repeat(np.arange(20), np.arange(1, 21))
    sizes = np.bincount(drawn(5, groups=groups))
    assert sizes.max() - sizes.min() <= 4


@pytest.mark.parametrize(
    ("count", "arrays", "message"),
    [
        (5, {"rows": 4}, "4 rows cannot be divided into 5 folds; use fewer folds"),
        (5, {"duplicates": [0, 0, 1, 1, 2, 3]}, "4 distinct rows cannot be divided into 5 folds"),
        (3, {"groups": [0, 0, 1, 1]}, "2 groups cannot be divided into 3 folds"),
        (3, {"classes": [0, 0, 0, 0, 1, 1]}, "at least 3 examples of each class, .*, but 'b' has 2; add rows"),
        (3, {"classes": [0, 0, 0, 1, 1, 1], "groups": [0, 1, 2, 0, 0, 1]}, "at least 3 groups .*, but 'b' has 2"),
        (5, {"classes": [0, 0, 0, 0, 1, 1, 1]}, "every class has fewer than 5 examples; use at most 4 folds"),
    ],
)
def test_assign_folds_of_too_few_rows_is_refused(count: int, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        drawn(count, **arrays)


def test_fold_warnings_name_large_groups_uneven_folds_and_rare_classes() -> None:
    folds = np.array([0] * 8 + [1] * 2 + [2] * 2)
    groups = np.array(["big"] * 8 + list("abcd"))
    classes = np.array([0] * 8 + [1, 0, 1, 0])
    titles = [f"fold {number}" for number in (1, 2, 3)]
    assert fold_warnings(folds, titles, classes, groups, ["x", "y"]) == [
        "groups larger than a fold of average size (4 rows): 'big' (8 rows)",
        "the folds differ considerably in size: they have 2 to 8 rows",
        "class 'y' (2 rows) has no test examples in fold 1",
    ]
    assert fold_warnings(folds, titles, classes, None, [])[-1] == "class 1 (2 rows) has no test examples in fold 1"
    assert fold_warnings(np.arange(12) % 3, titles, np.arange(12) // 6, None, ["x", "y"]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds must be between 2 and 100, got 1"),
        ({"random_splits": 101}, "random_splits must be between 2 and 100, got 101"),
        ({"folds": 2, "random_splits": 2}, "folds and random_splits cannot be combined"),
        ({"folds": 2, "split": 3}, "split must be between 1 and 2, the number of folds, got 3"),
        ({"random_splits": 2, "split": 0}, "split must be between 1 and 2, the number of random splits, got 0"),
    ],
)
def test_resampling_with_invalid_numbers_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resampling(**options)


def test_divided_leaves_the_options_of_the_dataset() -> None:
    options = {"split": 1, "folds": 2, "draw": 3}
    assert divided(options, ["draw"]) == ({"draw": 3}, {"split": 1, "folds": 2})
    assert divided(options, ["draw", "split"]) == ({"draw": 3, "split": 1}, {"folds": 2})


def raw(inputs: list[Any], targets: list[int]) -> RawData:
    """Return data whose examples are divided into three splits of different sizes."""

    def split(start: int, stop: int) -> Split:
        values = np.empty(stop - start, object)
        values[:] = inputs[start:stop]
        return Split(inputs={"text": values}, targets=np.array(targets[start:stop], np.int64))

    ends = (0, len(inputs) // 2, len(inputs) - 5, len(inputs))
    train, validation, test = (split(*pair) for pair in pairwise(ends))
    return RawData(train=train, validation=validation, test=test, label_names=("a", "b"), details={"kept": 1})


def test_resplit_tests_every_example_once_and_keeps_duplicates_together() -> None:
    texts = [f"Text {number // 2}" if number % 2 else f"text  {number // 2}" for number in range(60)]
    tested = []
    for number in (1, 2, 3):
        found = resplit(
            raw(texts, [row // 2 % 2 for row in range(60)]),
            PooledResampling(folds=3, split=number),
            "classification",
            split_seed=0,
        )
        parts = [found.train, found.validation, found.test]
        words = [{" ".join(text.lower().split()) for text in part.inputs["text"]} for part in parts]
        assert not words[0] & words[1] | words[0] & words[2] | words[1] & words[2]
        assert sorted(np.concatenate([part.rows for part in parts]).tolist()) == list(range(1, 61))
        tested += found.test.rows.tolist()
    assert sorted(tested) == list(range(1, 61))
    assert found.details == {
        "kept": 1,
        "fold_rows": "20, 20, 20",
        "splits": "fold 3 of 3 drawn at random by class, duplicates kept in one fold; validation drawn at random by "
        "class, duplicates kept in one split, seed 0",
    }


def test_resplit_random_splits_differ_and_start_at_the_split_seed() -> None:
    data = raw([f"{row}" for row in range(60)], [row % 2 for row in range(60)])

    def test_rows(number: int, seed: int) -> list[int]:
        options = PooledResampling(random_splits=3, split=number)
        return resplit(data, options, "classification", split_seed=seed).test.rows.tolist()  # type: ignore[union-attr]

    assert test_rows(1, 0) != test_rows(2, 0) == test_rows(1, 1)


def merged(data: RawData, number: int = 1, **options: Any) -> RawData:
    chosen = PooledResampling(**{"folds": 3, "split": number, "pool_splits": True, **options})
    return resplit(data, chosen, "classification", split_seed=0)


def grouped(*names: str, **groups: list[Any]) -> RawData:
    """Return data with 60 examples and these groups. Each split contains whole groups of `speaker`, if it is named."""
    data = raw([f"{row}" for row in range(60)], [row % 2 for row in range(60)])
    if "speaker" in names:
        groups["speaker"] = [f"s{row // 5}" for row in range(60)]
    parts, start = [], 0
    for part in (data.train, data.validation, data.test):
        own = {name: np.array(cells[start : start + len(part)], object) for name, cells in groups.items()}
        parts.append(dataclasses.replace(part, groups=own))
        start += len(part)
    return dataclasses.replace(data, train=parts[0], validation=parts[1], test=parts[2])


@pytest.mark.parametrize("options", [{}, {"folds": None, "random_splits": 3}])
def test_resplit_keeps_groups_of_the_published_splits_together(options: dict[str, Any]) -> None:
    data = grouped("speaker", language=["en", "fr"] * 30)
    for number in (1, 2, 3):
        found = merged(data, number, **options)
        speakers = [set(part.groups["speaker"].tolist()) for part in (found.train, found.validation, found.test)]
        assert all(speakers)
        assert sum(map(len, speakers)) == 12
    assert "at random by group" in str(found.details["splits"])
    assert list(found.warnings) == [
        "the published splits were merged; examples with the same speaker were kept in one split, but other related "
        "examples, which the published splits may keep together, may be in different splits"
    ]


def test_resplit_keeps_examples_together_that_agree_in_one_of_several_groups() -> None:
    families = [f"f{row // 10}" for row in range(60)]  # each family has two speakers
    families[50:] = [f"f{row}" for row in range(50, 60)]
    found = merged(grouped("speaker", family=families))
    parts = (found.train, found.validation, found.test)
    for name in ("speaker", "family"):
        assert sum(len(set(part.groups[name].tolist())) for part in parts) == len(
            {cell for part in parts for cell in part.groups[name].tolist()}
        )


@pytest.mark.parametrize("nothing", ["", None, math.nan])
def test_resplit_treats_examples_without_a_group_independently(nothing: Any) -> None:
    cells = [nothing if row % 5 in (0, 1) else f"s{row // 5}" for row in range(60)]
    data = grouped(speaker=cells)
    found = merged(data)
    named = [set(part.groups["speaker"].tolist()) - {nothing} for part in (found.train, found.test)]
    assert len(found.test) > 15
    assert not named[0] & named[1]


def test_resplit_of_examples_without_published_groups_is_reported() -> None:
    for data in (grouped(), grouped(language=["en", "fr"] * 30), grouped(silent=[""] * 60)):
        (warning,) = merged(data).warnings
        assert warning.startswith("the published splits were merged; related examples, such as those of one speaker")
    assert merged(grouped(), pool_splits=False).warnings == ()


def test_resplit_names_a_group_larger_than_a_fold() -> None:
    cells = ["big"] * 30 + [f"s{row}" for row in range(30)]
    found = merged(grouped(speaker=cells))
    assert "groups larger than a fold of average size (20 rows): 'speaker big' (30 rows)" in found.warnings


def test_resplit_of_two_groups_is_refused() -> None:
    data = grouped(source=["web"] * 55 + ["book"] * 5)
    with pytest.raises(DataError, match="2 groups of examples with the same source cannot be divided into training"):
        merged(data, folds=None, random_splits=2)


def test_resplit_of_weights_or_groups_in_some_splits_is_refused() -> None:
    data = grouped()
    weighted = dataclasses.replace(data.train, weights=np.ones(len(data.train)))
    with pytest.raises(DataError, match="because the splits validation and test have no weights, but other splits"):
        merged(dataclasses.replace(data, train=weighted))
    data = grouped("speaker")
    with pytest.raises(DataError, match="because the train split has no group 'speaker', but other splits"):
        merged(dataclasses.replace(data, train=dataclasses.replace(data.train, groups={})))


@pytest.mark.parametrize("item", [lambda row: np.full((2 + row % 2, 3), row), lambda row: [row] * (1 + row % 2), float])
def test_resplit_accepts_inputs_of_different_shapes(item: Any) -> None:
    data = raw([item(row) for row in range(40)], [row % 2 for row in range(40)])
    found = resplit(data, PooledResampling(random_splits=2, split=1), "token_classification", split_seed=0)
    assert sum(map(len, (found.train, found.validation, found.test))) == 40
