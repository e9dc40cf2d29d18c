"""What is refused of raw data before any task prepares them."""

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


SOUND: dict[Objective, Any] = {
    "classification": [0, 1, 1],
    "token_classification": [[0, IGNORED], [1, 0]],
    "regression": [[0.5, 2.0], [-1.0, 7.0]],
}


@pytest.mark.parametrize("objective", SOUND)
def test_sound_data_pass(objective: Objective) -> None:
    check_raw(raw(SOUND[objective]), objective)


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
        ("classification", {"test": split([0], y=[1.0])}, "the test split has the inputs y, the training split x"),
        ("classification", {"test": split([1, 7, -2, 7])}, r"test targets \[-2, 7\] are not among the 2 named classes"),
        ("classification", {"test": split([0.0])}, r"test targets are float64 of shape \(1,\); needed: int64 \[N\]"),
        ("classification", {"train": split([[0]])}, r"training targets are int64 of shape \(1, 1\); needed: int64"),
        (
            "token_classification",
            {"test": split([0, 1])},
            r"test targets are int64 of shape \(2,\); needed: .*\[N, L\]",
        ),
        (
            "token_classification",
            {"test": split([[0, 1], [IGNORED, IGNORED]])},
            "test example 1 has no position that counts",
        ),
        ("token_classification", {"test": split([[IGNORED, 2]])}, r"test targets \[2\] are not among the 2 named"),
        ("regression", {"train": split([1, 2])}, r"training targets are int64 of shape \(2,\); needed: float \[N, T\]"),
        ("regression", {"test": split([[1.0]])}, "test targets have 1 columns, those of the training split 2"),
        (
            "regression",
            {"validation": split([[1.0, 2.0], [3.0, np.inf], [np.nan, 1.0]])},
            r"validation targets have 2 values that are not finite, the first in row 1, column 1 \(counted from 0\)",
        ),
    ],
)
def test_unsound_data_are_refused(objective: Objective, changes: dict[str, Split], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_raw(replace(raw(SOUND[objective]), **changes), objective)


def test_no_task_sees_unsound_data(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = load([TOY_REF])
    (spec,) = expand(Selection(tasks=("toy-regress",), backends=("toy-numpy",)), catalog)
    dataset, task = catalog.dataset(spec.dataset), catalog.task(spec.task)
    data = dataset.load(dataset.Options())
    monkeypatch.setattr(dataset, "load", lambda options: replace(data, test=data.test.take(np.arange(0))))
    monkeypatch.setattr(task, "prepare", lambda data, options: pytest.fail("prepared"))
    with pytest.raises(DataError, match="the test split is empty"):
        prepare_data(catalog, spec)
