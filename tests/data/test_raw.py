"""Checks of raw data before a task prepares them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_plugin import TOY_REF

from harness import IGNORED, DataError, RawData, Split
from harness.data.raw import check_raw
from harness.execute.preparation import prepare_data
from harness.plan.expand import expand
from harness.plan.selection import Selection
from harness.plugins import load
from harness.records import Objective


def split(targets: Any, **inputs: Any) -> Split:
    targets = np.array(targets)
    return Split(inputs=inputs or {"x": np.zeros(len(targets))}, targets=targets, groups={"site": targets})


def raw(targets: Any) -> RawData:
    part = split(targets)
    return RawData(train=part, validation=part, test=part, label_names=("cat", "dog"))


VALID: dict[Objective, Any] = {
    "classification": [0, 1, 1],
    "token_classification": [[0, IGNORED], [1, 0]],
    "regression": [[0.5, 2.0], [-1.0, 7.0]],
}


@pytest.mark.parametrize("objective", VALID)
def test_check_raw_valid_data_passes(objective: Objective) -> None:
    check_raw(raw(VALID[objective]), objective)


@pytest.mark.parametrize(
    ("objective", "changes", "message"),
    [
        ("classification", {"test": split([])}, "the test split is empty"),
        ("classification", {"train": split([0, 1], x=[1.0])}, "training input 'x' has 1 entries for 2 examples"),
        (
            "classification",
            {"validation": replace(split([0, 1]), groups={"site": ["a"]})},
            "validation group 'site' has 1 entries for 2 examples",
        ),
        (
            "classification",
            {"test": split([0], y=[1.0])},
            "the test split has inputs y, but the training split has x",
        ),
        (
            "classification",
            {"test": split([1, 7, -2, 7])},
            r"test targets contain \[-2, 7\], but label_names has 2 classes, numbered from 0",
        ),
        ("classification", {"test": split([0.0])}, r"test targets are float64 of shape \(1,\), expected int64 \[N\]"),
        ("classification", {"train": split([[0]])}, r"training targets are int64 of shape \(1, 1\), expected int64"),
        (
            "token_classification",
            {"test": split([0, 1])},
            r"test targets are int64 of shape \(2,\), expected .*\[N, L\]",
        ),
        (
            "token_classification",
            {"test": split([[0, 1], [IGNORED, IGNORED]])},
            "test example 1 has no labeled position",
        ),
        ("token_classification", {"test": split([[IGNORED, 2]])}, r"test targets contain \[2\], but label_names has 2"),
        (
            "regression",
            {"train": split([1, 2])},
            r"training targets are int64 of shape \(2,\), expected float \[N, T\]",
        ),
        ("regression", {"test": split([[1.0]])}, "test targets have 1 columns, but training targets have 2"),
        (
            "regression",
            {"validation": split([[1.0, 2.0], [3.0, np.inf], [np.nan, 1.0]])},
            r"validation targets contain 2 values that are not finite, the first in row 1, column 1 \(counted from 0\)",
        ),
    ],
)
def test_check_raw_invalid_data_raises(objective: Objective, changes: dict[str, Split], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_raw(replace(raw(VALID[objective]), **changes), objective)


def test_prepare_data_invalid_data_never_reaches_the_task(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = load([TOY_REF])
    (spec,) = expand(Selection(tasks=("toy-regress",), backends=("toy-numpy",)), catalog)
    dataset, task = catalog.dataset(spec.dataset), catalog.task(spec.task)
    data = dataset.load(dataset.Options())
    monkeypatch.setattr(dataset, "load", lambda options: replace(data, test=data.test.take(np.arange(0))))
    monkeypatch.setattr(task, "prepare", lambda data, options: pytest.fail("prepared"))
    with pytest.raises(DataError, match="the test split is empty"):
        prepare_data(catalog, spec)
