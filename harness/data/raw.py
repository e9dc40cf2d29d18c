"""Task-independent checks of a dataset's raw data."""

from __future__ import annotations

import numpy as np

from harness.errors import DataError
from harness.interfaces import RawData, Split
from harness.records import IGNORED, Objective


def check_raw(data: RawData, objective: Objective) -> None:
    """Raise `harness.DataError` if a split is invalid for every task.

    A split is invalid if it is empty, if its arrays have different lengths, if the names of its inputs differ from
    those of the training split, or if its targets are not valid for `objective`.
    """
    for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        check_lengths(name, split)
        check_weights(name, split)
        if set(split.inputs) != set(data.train.inputs):
            raise DataError(
                f"the {name} split has inputs {', '.join(sorted(split.inputs))}, "
                f"but the training split has {', '.join(sorted(data.train.inputs))}"
            )
        check_targets(name, split, objective, len(data.label_names))
        if objective == "regression" and split.targets.shape[1:] != data.train.targets.shape[1:]:
            raise DataError(
                f"{name} targets have {split.targets.shape[1]} columns, but training targets have "
                f"{data.train.targets.shape[1]}"
            )


def check_lengths(name: str, split: Split) -> None:
    """Raise `harness.DataError` if the split is empty, or if an input or group does not contain one entry per
    example.
    """
    if len(split) == 0:
        raise DataError(f"the {name} split is empty")
    for kind, arrays in (("input", split.inputs), ("group", split.groups)):
        for key, array in arrays.items():
            if len(array) != len(split):
                raise DataError(f"{name} {kind} {key!r} has {len(array)} entries for {len(split)} examples")
    if split.rows is not None and (split.rows.shape != (len(split),) or split.rows.dtype.kind not in "iU"):
        raise DataError(
            f"the rows of the {name} split are {split.rows.dtype} of shape {split.rows.shape}, expected int64 or str "
            f"({len(split)},)"
        )


def check_weights(name: str, split: Split) -> None:
    """Raise `harness.DataError` if the weights of a split are not finite numbers ``[N]``, if any weight is negative, or
    if all weights are zero.
    """
    weights = split.weights
    if weights is None:
        return
    if weights.shape != (len(split),) or weights.dtype.kind not in "fiu":
        raise DataError(
            f"the weights of the {name} split are {weights.dtype} of shape {weights.shape}, expected float "
            f"({len(split)},)"
        )
    bad = ~np.isfinite(weights) | (weights < 0)
    if bad.any():
        number = int(bad.argmax())
        raise DataError(
            f"{name} weights must be finite and at least 0, but example {number} (counted from 0) has the weight "
            f"{weights[number]}"
        )
    if not weights.any():
        raise DataError(f"all weights of the {name} split are 0; at least one must be positive")


def check_targets(name: str, split: Split, objective: Objective, classes: int) -> None:
    """Raise `harness.DataError` unless the targets are valid for `objective`.

    Class indices are integers from 0 to `classes` - 1 with shape ``[N]``. For token classification, the targets have
    shape ``[N, L]``, and each row must contain at least one class. Regression targets have shape ``[N, T]`` and must be
    finite.
    """
    targets = split.targets
    kinds, axes, expected = {
        "classification": ("iu", 1, "int64 [N]"),
        "token_classification": ("iu", 2, "int64 [N, L]"),
        "regression": ("fiu", 2, "float [N, T]"),
    }[objective]
    if targets.dtype.kind not in kinds or targets.ndim != axes:
        raise DataError(f"{name} targets are {targets.dtype} of shape {targets.shape}, expected {expected}")
    if objective == "regression":
        bad = ~np.isfinite(targets)
        if bad.any():
            row, column = np.argwhere(bad)[0].tolist()
            raise DataError(
                f"{name} targets contain {int(bad.sum())} values that are not finite, the first in row {row}, column "
                f"{column} (counted from 0); remove these rows or fill in the values"
            )
        return
    if objective == "token_classification":
        labeled = targets != IGNORED
        if not labeled.any(axis=1).all():
            number = int(labeled.any(axis=1).argmin())
            raise DataError(f"{name} example {number} has no labeled position: all targets are IGNORED ({IGNORED})")
        targets = targets[labeled]
    outside = targets[(targets < 0) | (targets >= classes)]
    if outside.size:
        raise DataError(
            f"{name} targets contain {np.unique(outside)[:5].tolist()}, but label_names has {classes} classes, "
            "numbered from 0"
        )
