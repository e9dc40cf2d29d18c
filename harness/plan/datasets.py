"""A dataset of a selection: whether it suits, its splits and its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.data.cache import out_of_reach
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.options import OPTIONS
from harness.errors import CombinationError, DataError, UsageError
from harness.interfaces import Dataset, Task
from harness.plan.overrides import merge
from harness.plan.selection import Selection
from harness.plan.settings import plain
from harness.plugins.requirements import missing


def check_dataset(task: Task, dataset: Dataset) -> None:
    if (dataset.kind, dataset.objective) != (task.kind, task.objective):
        raise CombinationError(
            f"dataset {dataset.name!r} ({dataset.kind}, {dataset.objective}) does not suit task {task.name!r} "
            f"({task.kind}, {task.objective}); its default is {task.default_dataset!r}"
        )
    reason = missing(dataset.requires) or out_of_reach(dataset)
    if reason:
        raise UsageError(f"dataset {dataset.name!r} is not available here: {reason}")


def splits(selection: Selection, dataset: Dataset, changes: Mapping[str, Any]) -> list[dict[str, int]]:
    """Changes to the dataset's options, one for each split that is asked for."""
    if not selection.splits:
        return [{}]
    if not dataset.splits:
        raise CombinationError(f"dataset {dataset.name!r} has no numbered splits; leave --split out")
    if "split" in changes:
        raise CombinationError("--split and --set dataset.split say the same thing; give one of them")
    return [{"split": number} for number in (dataset.splits if selection.splits == "all" else selection.splits)]


def _named(numbers: Sequence[int]) -> str:
    gapless = list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]} to {numbers[-1]}" if gapless else ", ".join(map(str, numbers))


def dataset_options(dataset: Dataset, overrides: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(dataset, UserDataset):
        own = {field for kind in OPTIONS.values() for field in kind.__struct_fields__}
        foreign = [key for key in overrides if key in own and key not in dataset.Options.__struct_fields__]
        if foreign:
            raise UsageError(
                f"{', '.join(foreign)} describe data of your own; dataset {dataset.name!r} knows its columns, leave "
                "them out (or is this a path that does not exist?)"
            )
    options = merge(dataset.Options, "dataset", overrides)
    if not isinstance(dataset, UserDataset):
        number = getattr(options, "split", None)
        if dataset.splits and number not in dataset.splits:
            raise UsageError(f"dataset {dataset.name!r} has the splits {_named(dataset.splits)}, not {number}")
        return {"dataset_options": plain(options)}
    try:
        settled, source = dataset.settle(options)
    except DataError as error:  # nothing has run: the request is wrong
        raise UsageError(str(error)) from None
    return {"dataset_options": plain(settled), "source": source}
