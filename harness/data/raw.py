"""Checks of what a dataset loads, made once for all tasks."""

from __future__ import annotations

import numpy as np

from harness.errors import DataError
from harness.interfaces import RawData, Split
from harness.records import IGNORED, Objective


def check_raw(data: RawData, objective: Objective) -> None:
    """Raise `harness.DataError` for splits that no task could prepare: empty ones, arrays of several lengths, inputs
    that differ from the training split's, and targets that do not suit `objective`."""
    for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        check_lengths(name, split)
        if set(split.inputs) != set(data.train.inputs):
            raise DataError(
                f"the {name} split has the inputs {', '.join(sorted(split.inputs))}, "
                f"the training split {', '.join(sorted(data.train.inputs))}"
            )
        check_targets(name, split, objective, len(data.label_names))
        if objective == "regression" and split.targets.shape[1:] != data.train.targets.shape[1:]:
            raise DataError(
                f"{name} targets have {split.targets.shape[1]} columns, those of the training split "
                f"{data.train.targets.shape[1]}"
            )


def check_lengths(name: str, split: Split) -> None:
    """Raise `harness.DataError` where the split `name` is empty, or an input or group lacks an entry for an example."""
    if len(split) == 0:
        raise DataError(f"the {name} split is empty")
    for kind, arrays in (("input", split.inputs), ("group", split.groups)):
        for key, array in arrays.items():
            if len(array) != len(split):
                raise DataError(f"{name} {kind} {key!r} has {len(array)} entries for {len(split)} examples")


def check_targets(name: str, split: Split, objective: Objective, classes: int) -> None:
    """Raise `harness.DataError` unless the targets are numbers of the named `classes`, integers ``[N]``, or ``[N, L]``
    for token classification with a class in each row; or for regression finite numbers ``[N, T]``."""
    targets = split.targets
    kinds, axes, needed = {
        "classification": ("iu", 1, "int64 [N]"),
        "token_classification": ("iu", 2, "int64 [N, L]"),
        "regression": ("fiu", 2, "float [N, T]"),
    }[objective]
    if targets.dtype.kind not in kinds or targets.ndim != axes:
        raise DataError(f"{name} targets are {targets.dtype} of shape {targets.shape}; needed: {needed}")
    if objective == "regression":
        bad = ~np.isfinite(targets)
        if bad.any():
            row, column = np.argwhere(bad)[0].tolist()
            raise DataError(
                f"{name} targets have {int(bad.sum())} values that are not finite, the first in row {row}, column "
                f"{column} (counted from 0); remove those rows or fill the values in"
            )
        return
    if objective == "token_classification":
        counted = targets != IGNORED
        if not counted.any(axis=1).all():
            number = int(counted.any(axis=1).argmin())
            raise DataError(f"{name} example {number} has no position that counts: all are IGNORED, {IGNORED}")
        targets = targets[counted]
    outside = targets[(targets < 0) | (targets >= classes)]
    if outside.size:
        raise DataError(f"{name} targets {np.unique(outside)[:5].tolist()} are not among the {classes} named classes")
