"""Checks of prepared data, and their digest."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from timed_sessions import make_data

from harness.data.prepared import check, dataset_digest
from harness.errors import DataError, PluginError
from harness.interfaces import PreparedData, Split
from harness.records import (
    IGNORED,
)


def with_train(**changes: Any) -> PreparedData:
    data = make_data()
    values = {"inputs": data.train.inputs, "targets": data.train.targets} | changes
    return PreparedData(train=Split(**values), validation=data.validation, test=data.test, info=data.info)


def test_good_data_pass() -> None:
    check(make_data(), "toy")


NOT_FINITE = np.full((40, 1), np.nan, np.float32)

X = {"x": np.zeros((40, 1), np.float32), "y": np.zeros(40, np.int64)}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"targets": np.zeros((0, 1), np.float32)}, DataError, "the train split is empty"),
        (
            {"inputs": {"x": X["x"]}},
            PluginError,
            r"'toy' returned the train inputs \['x'\], but DataInfo.inputs declares \['x', 'y'\]",
        ),
        (
            {"inputs": {**X, "x": np.zeros((40, 2), np.float32)}},
            PluginError,
            r"float32 \(40, 2\), but DataInfo.inputs declares float32 \(40, 1\)",
        ),
        (
            {"inputs": {**X, "x": np.zeros((40, 1))}},
            PluginError,
            "the task 'toy' returned the train input 'x' as float64",
        ),
        (
            {"inputs": {**X, "x": np.zeros((39, 1), np.float32)}},
            PluginError,
            r"shape \(39, 1\), but the split has 40 targets",
        ),
        (
            {"inputs": {**X, "x": NOT_FINITE}},
            DataError,
            "'toy' returned the train input 'x' with values that are not finite",
        ),
        ({"targets": NOT_FINITE}, DataError, "'toy' returned train targets that are not finite"),
        ({"targets": np.zeros((40, 1))}, PluginError, "float64"),
        ({"targets": np.zeros(40, np.float32)}, PluginError, r"\(40,\)"),
    ],
)
def test_bad_data_are_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check(with_train(**changes), "toy")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros(40, np.int32), "expected int64"),
        (np.zeros((40, 1), np.int64), "expected int64"),
        (np.full(40, 3), "the task 'toy' returned train targets from 3 to 3, expected 0 to 2"),
        (np.full(40, -1), "train targets from -1 to -1"),
    ],
)
def test_bad_classes_are_refused(targets: Any, message: str) -> None:
    data = with_train(targets=targets)
    info = msgspec.structs.replace(data.info, objective="classification", outputs=3)
    with pytest.raises(PluginError, match=message):
        check(PreparedData(train=data.train, validation=data.validation, test=data.test, info=info), "toy")


def positions(targets: Any) -> PreparedData:
    """Token classification: 40 examples of two positions, three classes."""
    data = with_train(targets=targets)
    info = msgspec.structs.replace(data.info, objective="token_classification", outputs=3)
    good = np.array([[0, 2], *[[1, IGNORED]] * 9])
    others = {
        name: Split(inputs=s.inputs, targets=good[: len(s)]) for name, s in (("v", data.validation), ("t", data.test))
    }
    return PreparedData(train=data.train, validation=others["v"], test=others["t"], info=info)


def test_ignored_positions_are_no_class() -> None:
    check(positions(np.tile([2, IGNORED], (40, 1))), "toy")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros(40, np.int64), r"of dtype int64 and shape \(40,\), expected int64 \(N, L\)"),
        (np.zeros((40, 2), np.int32), "of dtype int32"),
        (np.tile([0, 3], (40, 1)), "train targets from 0 to 3, expected 0 to 2"),
        (np.tile([0, -1], (40, 1)), "train targets from -1 to 0"),
        (np.array([[0, 1]] * 7 + [[IGNORED, IGNORED]] * 33), "train example 7 has no labeled position"),
    ],
)
def test_bad_classes_of_positions_are_refused(targets: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        check(positions(targets), "toy")


@pytest.mark.parametrize("field", ["label_names", "target_mean", "target_scale"])
def test_declarations_of_the_wrong_length_are_refused(field: str) -> None:
    data = make_data()
    wrong = ("a", "b") if field == "label_names" else (1.0, 2.0)
    info = msgspec.structs.replace(data.info, **{field: wrong})
    with pytest.raises(
        PluginError, match=f"the task 'toy' returned a DataInfo with 2 values in {field}, but outputs=1"
    ):
        check(PreparedData(train=data.train, validation=data.validation, test=data.test, info=info), "toy")


def test_a_scale_that_is_not_finite_is_refused() -> None:
    data = make_data()
    info = msgspec.structs.replace(data.info, target_scale=(math.inf,))
    with pytest.raises(DataError, match="the training targets are too large to standardize"):
        check(PreparedData(train=data.train, validation=data.validation, test=data.test, info=info), "toy")


def test_dataset_digest_sees_inputs_targets_and_splits() -> None:
    data = make_data()
    changed = with_train(targets=data.train.targets + 1)
    moved = PreparedData(train=data.train, validation=data.test, test=data.validation, info=data.info)
    assert dataset_digest(data) == dataset_digest(make_data())
    assert len({dataset_digest(d) for d in (data, changed, moved, with_train(inputs=X))}) == 4
