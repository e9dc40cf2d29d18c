"""Tests of the task ``tabular`` and its default dataset."""

from __future__ import annotations

import numpy as np
from harness_tabular.breast_cancer import BreastCancer
from harness_tabular.task import TabularTask
from sklearn.datasets import load_breast_cancer

from harness import InputSpec, SeededSplit, TableColumns, TableEncoderOptions
from harness.execute.preparation import load_and_prepare


def test_breast_cancer_contains_each_published_row_once() -> None:
    data, source = BreastCancer().load(SeededSplit()), load_breast_cancer()
    splits = (data.train, data.validation, data.test)
    assert [len(split) for split in splits] == list(BreastCancer.examples.values())
    rows = np.concatenate([np.column_stack([split.inputs["features"], split.targets]) for split in splits])
    expected = np.column_stack([source.data, source.target])
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(expected, axis=0))
    assert {tuple(row) for row in rows} == {tuple(row) for row in expected}
    assert data.label_names == tuple(source.target_names)


def test_breast_cancer_splits_have_the_same_share_of_benign_masses() -> None:
    data = BreastCancer().load(SeededSplit(split_seed=3))
    for split in (data.train, data.validation, data.test):
        assert abs(split.targets.mean() - 357 / 569) < 0.01


def test_prepare_describes_the_encoded_table() -> None:
    data = BreastCancer().load(SeededSplit())
    prepared = TabularTask().prepare(data, TableEncoderOptions())
    info = prepared.info
    assert info.inputs == {"features": InputSpec(shape=(30,), dtype="float32")}
    assert (info.kind, info.objective, info.outputs) == ("features", "classification", 2)
    assert info.columns == TableColumns(numbers=30)
    assert info.details == {"constant_features": 0}
    np.testing.assert_array_equal(prepared.test.targets, data.test.targets)
    transformed = TabularTask().transform(data.test.inputs, {}, prepared.fitted, info, TableEncoderOptions())
    np.testing.assert_array_equal(transformed["features"], prepared.test.inputs["features"], strict=True)


def test_folds_of_breast_cancer_test_each_example_once() -> None:
    tested = []
    for number in (1, 2, 3):
        options = {"split_seed": 0, "folds": 3, "split": number}
        _, data = load_and_prepare(TabularTask(), BreastCancer(), options, {})
        assert data.test.rows is not None
        assert abs(len(data.test) - 569 / 3) < 1
        assert data.info.details["splits"] == (
            f"fold {number} of 3 drawn at random by class; validation drawn at random by class, seed 0"
        )
        tested += data.test.rows.tolist()
    assert sorted(tested) == list(range(1, 570))
