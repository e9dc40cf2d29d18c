"""Validation and digests of prepared data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, PluginError
from harness.interfaces import PreparedData, Split
from harness.records import IGNORED, DataInfo
from harness.records.arrays import digest


def dataset_digest(data: PreparedData) -> str:
    """Return the SHA-256 digest (hex) of the inputs, targets and weights of all splits."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, split in _splits(data):
        arrays[f"{name}/targets"] = split.targets
        arrays.update({f"{name}/{key}": array for key, array in split.inputs.items()})
        if split.weights is not None:
            arrays[f"{name}/weights"] = split.weights
    return digest(arrays)


def check(data: PreparedData, task: str) -> None:
    """Raise `harness.DataError` if a split is empty or contains non-finite values. Raise `harness.PluginError` if
    arrays do not match the declared shapes, dtypes or classes. The messages name the task that prepared the data.
    """
    for field in ("label_names", "target_mean", "target_scale"):
        length = len(getattr(data.info, field))
        if length not in (0, data.info.outputs):
            raise PluginError(
                f"the task {task!r} returned a DataInfo with {length} values in {field}, but "
                f"outputs={data.info.outputs}; the numbers must be equal"
            )
    if not all(map(math.isfinite, (*data.info.target_mean, *data.info.target_scale))):
        raise DataError("the training targets are too large to standardize: their mean or scale is not finite")
    for name, split in _splits(data):
        if len(split) == 0:
            raise DataError(f"the {name} split is empty")
        check_inputs(name, split.inputs, len(split), data.info, task)
        _check_targets(name, split, data.info, task)


def _splits(data: PreparedData) -> list[tuple[str, Split]]:
    return [("train", data.train), ("validation", data.validation), ("test", data.test)]


def check_inputs(name: str, inputs: Mapping[str, NDArray[Any]], examples: int, info: DataInfo, task: str) -> None:
    """Raise `harness.PluginError` if the inputs of a split do not have the declared names, shapes and dtypes, and
    `harness.DataError` if they contain non-finite values."""
    returned = f"the task {task!r} returned"
    if set(inputs) != set(info.inputs):
        raise PluginError(
            f"{returned} the {name} inputs {sorted(inputs)}, but DataInfo.inputs declares {sorted(info.inputs)}"
        )
    for key, array in inputs.items():
        declared = info.inputs[key]
        shape = (examples, *declared.shape)
        if array.shape[:1] != (examples,):
            raise PluginError(
                f"{returned} the {name} input {key!r} with shape {array.shape}, but the split has {examples} targets; "
                "return one entry per target"
            )
        if array.shape != shape or array.dtype.name != declared.dtype:
            raise PluginError(
                f"{returned} the {name} input {key!r} as {array.dtype.name} {array.shape}, but DataInfo.inputs "
                f"declares {declared.dtype} {shape}, with the {examples} examples as the first axis"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(
                f"{returned} the {name} input {key!r} with values that are not finite; replace them in the dataset "
                "or in the preprocessing"
            )


def _check_targets(name: str, split: Split, info: DataInfo, task: str) -> None:
    targets, returned = split.targets, f"the task {task!r} returned {name} targets"
    if info.objective == "classification":
        if targets.dtype != np.int64 or targets.ndim != 1:
            raise PluginError(f"{returned} of dtype {targets.dtype} and shape {targets.shape}, expected int64 (N,)")
        if targets.min() < 0 or targets.max() >= info.outputs:
            raise PluginError(f"{returned} from {targets.min()} to {targets.max()}, expected 0 to {info.outputs - 1}")
    elif info.objective == "token_classification":
        if targets.dtype != np.int64 or targets.ndim != 2:
            raise PluginError(f"{returned} of dtype {targets.dtype} and shape {targets.shape}, expected int64 (N, L)")
        labeled = targets != IGNORED
        if not labeled.any(axis=1).all():
            number = int(labeled.any(axis=1).argmin())
            raise PluginError(f"{name} example {number} has no labeled position: all targets are IGNORED ({IGNORED})")
        classes = targets[labeled]
        if classes.min() < 0 or classes.max() >= info.outputs:
            raise PluginError(
                f"{returned} from {classes.min()} to {classes.max()}, expected 0 to {info.outputs - 1}, "
                f"or IGNORED ({IGNORED})"
            )
    else:
        if targets.dtype != np.float32 or targets.shape != (len(split), info.outputs):
            raise PluginError(
                f"{returned} of dtype {targets.dtype} and shape {targets.shape}, expected float32 (N, {info.outputs})"
            )
        if not np.isfinite(targets).all():
            raise DataError(f"{returned} that are not finite")
