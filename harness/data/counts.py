"""Totals of items that a task counts in addition to examples, such as tokens (see `harness.Task.counts`)."""

from __future__ import annotations

import re

import msgspec
import numpy as np

from harness.data.protect import read_only_split
from harness.errors import HarnessError, PluginError
from harness.interfaces import PreparedData, Split, Task
from harness.plugins.failures import described_with_place
from harness.records import DataInfo

_NAME = re.compile("[a-z][a-z0-9_]*", re.ASCII)


def with_counts(task: Task, data: PreparedData) -> DataInfo:
    """Return the data description with the totals of each split added.

    Raises `harness.PluginError` if `Task.count` raises an exception, if it does not return one finite, non-negative
    number for each example, or if the total of a split is 0.
    """
    if not task.counts:
        return data.info
    if not isinstance(task.counts, str) or _NAME.fullmatch(task.counts) is None:
        raise PluginError(
            f"the counts attribute of the task {task.name!r} is {task.counts!r}; use a name consisting of lowercase "
            "letters, digits and underscores, such as 'tokens'"
        )
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    facts = {
        name: msgspec.structs.replace(info, counted=_total(task, name, splits[name], data.info))
        for name, info in data.info.splits.items()
    }
    return msgspec.structs.replace(data.info, counts=task.counts, splits=facts)


def _total(task: Task, name: str, split: Split, info: DataInfo) -> float:
    subject = f"the count method of the task {task.name!r}"
    try:
        counts = np.asarray(task.count(read_only_split(split), info), np.float64)
    except (HarnessError, MemoryError):
        raise
    except Exception as error:
        raise PluginError(f"{subject} failed for the {name} split: {described_with_place(error)}") from error
    if counts.shape != (len(split),):
        raise PluginError(
            f"{subject} returned an array of shape {counts.shape} for the {name} split, expected ({len(split)},)"
        )
    if not np.isfinite(counts).all() or counts.min() < 0:
        raise PluginError(f"{subject} returned numbers that are negative or not finite for the {name} split")
    if not (total := float(counts.sum())):
        raise PluginError(f"{subject} returned only zeros for the {name} split; count all content except padding")
    return total
