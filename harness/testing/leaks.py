"""Check that a task's preprocessing does not depend on the validation or test split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from harness.interfaces import PreparedData, RawData, Split, Task
from harness.records import IGNORED, DataInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray


def assert_nothing_leaks(task: Task, data: RawData, options: Any = None, *, reported: Iterable[str] = ()) -> None:
    """Assert that the prepared training split does not depend on the validation and test splits.

    The data are prepared three times: without changes, with a changed validation split, and with a changed test split.
    In the changed split, all inputs and targets are different, and one example is missing. The training arrays and the
    `DataInfo` must not change. Only the warnings in the `DataInfo` may change.

    Parameters
    ----------
    task : Task
        The task.
    data : RawData
        Raw data to prepare.
    options : Any, default: None
        Instance of the task's `Options`, or None for the default options.
    reported : iterable of str, default: ()
        Keys of `DataInfo.details` whose values may change, in addition to those in `Task.reported`.

    Raises
    ------
    AssertionError
        If a training array or a field of the `DataInfo` changes. The message lists all changes.

    Examples
    --------
    >>> def test_my_task_fits_the_training_split_only():
    ...     harness.testing.assert_nothing_leaks(MyTask(), MyDataset().load(MyOptions()))
    """
    options = task.Options() if options is None else options
    before = task.prepare(data, options)
    others = {
        "validation": dataclasses.replace(data, validation=_changed(data.validation)),
        "test": dataclasses.replace(data, test=_changed(data.test)),
    }
    for name, changed in others.items():
        differing = _differences(before, task.prepare(changed, options), frozenset((*task.reported, *reported)))
        if differing:
            raise AssertionError(
                f"task {task.name!r} uses the {name} split in its preprocessing: with a different {name} split, "
                f"{', '.join(differing)} of the training split change{'s' * (len(differing) == 1)}"
            )


def _differences(before: PreparedData, after: PreparedData, reported: frozenset[str]) -> list[str]:
    import numpy as np

    arrays = {
        "the targets": (before.train.targets, after.train.targets),
        **{
            f"input {name!r}": (array, after.train.inputs.get(name, np.empty(0)))
            for name, array in before.train.inputs.items()
        },
    }
    differing = [name for name, (old, new) in arrays.items() if not same(old, new)]
    for field in DataInfo.__struct_fields__:
        old, new = getattr(before.info, field), getattr(after.info, field)
        if field == "details":
            names = (old.keys() | new.keys()) - reported
            differing += [f"details[{name!r}]" for name in sorted(names) if old.get(name) != new.get(name)]
        elif old != new and field != "warnings":  # Warnings may describe all splits.
            differing.append(field)
    return differing


def same(old: NDArray[Any], new: NDArray[Any]) -> bool:
    """Return True if two arrays are equal in every element. NaN values are treated as equal."""
    import numpy as np

    return bool(np.array_equal(old, new, equal_nan=old.dtype.kind == new.dtype.kind == "f"))


def _changed(split: Split) -> Split:
    import numpy as np

    other = Split(
        inputs={name: _other(array) for name, array in split.inputs.items()},
        targets=_other_targets(split.targets),
        groups=split.groups,
    )
    return other.take(np.arange(max(1, len(split) - 1)))


def _other_targets(targets: NDArray[Any]) -> NDArray[Any]:
    if targets.dtype.kind not in "iu":
        return 3 * targets + 1
    if targets.ndim == 1:
        return targets[::-1]
    import numpy as np

    return np.where(targets == IGNORED, targets, targets.max() - targets)  # Positions without a target remain ignored.


def _other(array: NDArray[Any]) -> NDArray[Any]:
    """Return changed values with the same dtype. Integers are drawn between the minimum and maximum of the original
    values."""
    import numpy as np

    if array.dtype == object:
        changed = np.empty(array.shape, object)
        for number, (place, item) in enumerate(np.ndenumerate(array)):
            changed[place] = _other_item(item, longer=number % 2 == 0)
        return changed
    if array.dtype.kind == "f":
        return np.asarray(3 * array + 1, array.dtype)
    if array.dtype.kind in "iu" and array.size:
        return np.asarray(array.max() - array + array.min(), array.dtype)
    return array


def _other_item(item: Any, *, longer: bool) -> Any:
    import numpy as np

    if isinstance(item, str):
        return f"{item[::-1]} Ω {item if longer else ''}"
    if isinstance(item, np.ndarray):  # The element is an image or a waveform.
        resized = np.concatenate([item] * 4) if longer else item[: (len(item) + 1) // 2]
        return -resized / 2 if item.dtype.kind == "f" else _other(resized)
    if isinstance(
        item, list | tuple
    ):  # The element is a sequence of words, whose length must match the number of targets.
        return type(item)(f"{word[::-1]}Ω" if isinstance(word, str) else word for word in item)
    return "Ω" if item is None else item
