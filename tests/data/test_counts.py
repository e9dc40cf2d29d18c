"""Counts in addition to examples, such as tokens, and errors for counts that are not valid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.data.counts import with_counts
from harness.errors import PluginError
from harness.interfaces import PreparedData, RawData, Split, Task
from harness.records import DataInfo, SplitInfo

MASK = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
SPLIT = Split(inputs={"mask": MASK}, targets=np.zeros(3, np.int64))
INFO = DataInfo(
    kind="words",
    inputs={},
    objective="classification",
    outputs=2,
    splits={name: SplitInfo(examples=3) for name in ("train", "validation", "test")},
)
DATA = PreparedData(train=SPLIT, validation=SPLIT, test=SPLIT, info=INFO)


def task(count: Callable[[Split], Any] | None, counts: Any = "words") -> Task:
    class Words(Task):
        name = "words"

        def prepare(self, data: RawData, options: Any) -> PreparedData:
            raise AssertionError

    own = Words()
    own.counts = counts  # type: ignore[misc]
    if count is not None:
        own.count = lambda split, info: count(split)  # type: ignore[method-assign]
    return own


def test_counts_are_totals_of_each_split() -> None:
    info = with_counts(task(lambda split: split.inputs["mask"].sum(axis=1)), DATA)
    assert info.counts == "words"
    assert info.splits == {name: SplitInfo(examples=3, counted=6.0) for name in INFO.splits}


def test_task_without_counts_changes_nothing() -> None:
    assert with_counts(task(None, counts=""), DATA) is INFO


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (
            lambda split: split.inputs["mask"],
            r"returned an array of shape \(3, 3\) for the train split, expected \(3,\)",
        ),
        (lambda split: split.inputs["mask"].sum(), r"returned an array of shape \(\) for the train split"),
        (lambda split: None, r"returned an array of shape \(\) for the train split"),
        (lambda split: [1, -1, 2], "returned numbers that are negative or not finite"),
        (lambda split: [1, np.nan, 2], "returned numbers that are negative or not finite"),
        (lambda split: np.zeros(3), "returned only zeros"),
        (lambda split: split.inputs["masks"], "failed for the train split: .*KeyError"),
        (lambda split: split.inputs["mask"].sort(), "failed for the train split: .*read-only"),
        (None, "failed for the train split: .*does not implement the count method"),
    ],
)
def test_counts_that_are_not_valid_raise(count: Callable[[Split], Any] | None, message: str) -> None:
    with pytest.raises(PluginError, match=f"the count method of the task 'words' {message}"):
        with_counts(task(count), DATA)


@pytest.mark.parametrize("counts", ["Tokens", "audio seconds", "3d", 7, "tokens/s"])
def test_name_of_the_unit_that_is_not_valid_raises(counts: Any) -> None:
    with pytest.raises(PluginError, match="use a name consisting of lowercase letters"):
        with_counts(task(lambda split: np.ones(3), counts=counts), DATA)
