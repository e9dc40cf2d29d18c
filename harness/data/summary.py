"""`DataSummary`, a description of loaded and prepared data that can be inspected before a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from harness.data.user_files.column_info import ColumnInfo
from harness.interfaces import PreparedData, RawData, Split
from harness.records import IGNORED, DataInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLES = 3
"""Number of training examples to include in a summary."""
SHOWN = 100
"""Maximum number of characters shown per example. Longer content is truncated."""


class Spread(Struct, frozen=True, kw_only=True):
    """Smallest, median and largest of several values."""

    min: float
    median: float
    max: float


class ExampleInfo(Struct, frozen=True, kw_only=True):
    """One training example, as text."""

    content: dict[str, str]
    """Description of each raw input."""
    target: str
    """Class or target values of the example, or the class of each position for token classification."""


class DataSummary(Struct, frozen=True, kw_only=True):
    """Description of loaded and prepared data, as printed by ``harness data info --task``."""

    dataset: str
    task: str
    path: str | None
    """Path of the user's data, or None for a dataset from a plugin."""
    inferred: tuple[str, ...]
    """Names of the options that were inferred."""
    dataset_options: dict[str, Any]
    task_options: dict[str, Any]
    columns: tuple[ColumnInfo, ...]
    """Columns of the user's table, or an empty tuple if the data do not include a table."""
    sizes: dict[str, dict[str, Spread]]
    """Sizes of the examples, keyed by kind of size, such as ``characters``, and then by split."""
    targets: dict[str, dict[str, Spread]]
    """Values of each regression target, keyed by split."""
    info: DataInfo
    """Description of the prepared data, as stored in the record of a run."""
    examples: tuple[ExampleInfo, ...]
    """The first training examples."""


def summarize(
    raw: RawData,
    data: PreparedData,
    *,
    dataset: str,
    task: str,
    dataset_options: Mapping[str, Any],
    task_options: Mapping[str, Any],
    path: str | None = None,
    inferred: Sequence[str] = (),
    columns: Sequence[ColumnInfo] = (),
) -> DataSummary:
    """Return a summary of the raw data and the prepared data."""
    splits = {"train": raw.train, "validation": raw.validation, "test": raw.test}
    prepared = {"train": data.train, "validation": data.validation, "test": data.test}
    sizes: dict[str, dict[str, Spread]] = {}
    for name in splits:
        measured = _sizes(splits[name]) | _measured_by_task(splits[name], prepared[name])
        for what, values in measured.items():
            sizes.setdefault(what, {})[name] = _spread(values)
    targets: dict[str, dict[str, Spread]] = {}
    if data.info.objective == "regression":
        for name, split in splits.items():
            for number, column in enumerate(np.asarray(split.targets).T):
                label = raw.label_names[number] if number < len(raw.label_names) else f"target {number + 1}"
                targets.setdefault(label, {})[name] = _spread(column)
    return DataSummary(
        dataset=dataset,
        task=task,
        path=path,
        inferred=tuple(inferred),
        dataset_options=dict(dataset_options),
        task_options=dict(task_options),
        columns=tuple(columns),
        sizes=sizes,
        targets=targets,
        info=data.info,
        examples=tuple(_example(raw, number) for number in range(min(EXAMPLES, len(raw.train)))),
    )


def _spread(values: NDArray[Any]) -> Spread:
    return Spread(min=float(np.min(values)), median=float(np.median(values)), max=float(np.max(values)))


def _sizes(split: Split) -> dict[str, NDArray[Any]]:
    """Return the sizes of the raw examples, such as the number of characters or the height, keyed by name."""
    sizes: dict[str, NDArray[Any]] = {}
    for name, array in split.inputs.items():
        first = array[0]
        if isinstance(first, str):
            sizes["characters"] = np.array([len(item) for item in array])
        elif name == "image":
            for axis, side in enumerate(("height", "width", "channels")):
                sizes[side] = np.array([item.shape[axis] for item in array])
        elif array.dtype == object and isinstance(first, list | tuple):
            sizes[name] = np.array([len(item) for item in array])
        elif array.dtype == "float64" and array.ndim == 2:
            sizes[f"missing values in {name}"] = np.isnan(array).sum(axis=1)
    return sizes


def _measured_by_task(raw: Split, prepared: Split) -> dict[str, NDArray[Any]]:
    """Return the numeric group columns added by the task, such as the number of tokens."""
    return {
        name: values
        for name, values in prepared.groups.items()
        if name not in raw.groups and np.asarray(values).dtype.kind in "fiu"
    }


def _example(raw: RawData, number: int) -> ExampleInfo:
    content = {name: _shown(array[number]) for name, array in raw.train.inputs.items()}
    return ExampleInfo(content=content, target=_target(raw, raw.train.targets[number]))


def _target(raw: RawData, target: Any) -> str:
    values = np.atleast_1d(target)
    if values.dtype.kind == "f" or not raw.label_names:
        return ", ".join(f"{value:g}" for value in values.tolist())
    labels = [raw.label_names[value] for value in values.tolist() if value != IGNORED]
    return _cut(" ".join(labels))


def _shown(item: Any) -> str:
    if isinstance(item, str):
        return _cut(" ".join(item.split()))
    if isinstance(item, list | tuple):
        return _cut(" ".join(map(str, item)))
    array = np.asarray(item)
    if array.dtype != object and array.size > 12:
        shape = " x ".join(map(str, array.shape))
        return f"{array.dtype} [{shape}], values from {array.min():g} to {array.max():g}"
    values = array.reshape(-1).tolist()
    return _cut(", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
