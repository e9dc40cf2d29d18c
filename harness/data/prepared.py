"""What the core checks and remembers of prepared data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError, PluginError
from harness.interfaces import PreparedData, Split
from harness.records import IGNORED, DataInfo
from harness.records.arrays import digest


def dataset_digest(data: PreparedData) -> str:
    """SHA-256 (hex) over every array of every split."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, split in _splits(data):
        arrays[f"{name}/targets"] = split.targets
        arrays.update({f"{name}/{key}": array for key, array in split.inputs.items()})
    return digest(arrays)


def check(data: PreparedData) -> None:
    """Raise `harness.DataError` (nothing to learn from, not finite) or `harness.PluginError` (not as declared)."""
    for field in ("label_names", "target_mean", "target_scale"):
        length = len(getattr(data.info, field))
        if length not in (0, data.info.outputs):
            raise PluginError(f"the prepared data have {length} {field} for {data.info.outputs} outputs")
    if not all(map(math.isfinite, (*data.info.target_mean, *data.info.target_scale))):
        raise DataError("the training targets are too large to be standardized: their mean or scale is not finite")
    for name, split in _splits(data):
        if len(split) == 0:
            raise DataError(f"the {name} split is empty")
        _check_inputs(name, split, data.info)
        _check_targets(name, split, data.info)


def _splits(data: PreparedData) -> list[tuple[str, Split]]:
    return [("train", data.train), ("validation", data.validation), ("test", data.test)]


def _check_inputs(name: str, split: Split, info: DataInfo) -> None:
    if set(split.inputs) != set(info.inputs):
        raise PluginError(f"the {name} split has the inputs {sorted(split.inputs)}, declared are {sorted(info.inputs)}")
    for key, array in split.inputs.items():
        declared = info.inputs[key]
        if array.shape != (len(split), *declared.shape) or array.dtype.name != declared.dtype:
            raise PluginError(
                f"{name} input {key!r} is {array.dtype.name} {array.shape}, declared is {declared.dtype} "
                f"({len(split)}, *{declared.shape})"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{name} input {key!r} holds values that are not finite")


def _check_targets(name: str, split: Split, info: DataInfo) -> None:
    targets = split.targets
    if info.objective == "classification":
        if targets.dtype != np.int64 or targets.ndim != 1:
            raise PluginError(f"the {name} targets are {targets.dtype} {targets.shape}; classes are int64 (N,)")
        if targets.min() < 0 or targets.max() >= info.outputs:
            seen = f"[{targets.min()}, {targets.max()}]"
            raise PluginError(f"the {name} targets lie in {seen}, the classes in [0, {info.outputs})")
    elif info.objective == "token_classification":
        if targets.dtype != np.int64 or targets.ndim != 2:
            raise PluginError(f"the {name} targets are {targets.dtype} {targets.shape}; wanted are int64 (N, L)")
        counted = targets != IGNORED
        if not counted.any(axis=1).all():
            number = int(counted.any(axis=1).argmin())
            raise PluginError(f"{name} example {number} has no position that counts: all are IGNORED, {IGNORED}")
        classes = targets[counted]
        if classes.min() < 0 or classes.max() >= info.outputs:
            seen = f"[{classes.min()}, {classes.max()}]"
            raise PluginError(
                f"the {name} targets lie in {seen}, the classes in [0, {info.outputs}); IGNORED is {IGNORED}"
            )
    else:
        if targets.dtype != np.float32 or targets.shape != (len(split), info.outputs):
            raise PluginError(
                f"the {name} targets are {targets.dtype} {targets.shape}; declared are float32 (N, {info.outputs})"
            )
        if not np.isfinite(targets).all():
            raise DataError(f"the {name} targets hold values that are not finite")
