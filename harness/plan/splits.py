"""Data settings of each selected split: a published split, a fold or a random split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from harness.data.resampling import PooledResampling, divided
from harness.data.user_files.dataset import UserDataset
from harness.data.user_files.options import OPTIONS
from harness.errors import CombinationError, DataError, UsageError
from harness.interfaces import Dataset, SeededSplit
from harness.plan.overrides import merge
from harness.plan.settings import DataSettings, plain

Selected = Sequence[int] | Literal["all"]
"""Numbers of the selected splits. If empty, the split given in the options is used or, if none is given, every fold or
random split."""


def data_settings(dataset: Dataset, overrides: Mapping[str, Any], selected: Selected = ()) -> list[DataSettings]:
    """Return the data settings for each selected split of a dataset. For the user's own data, the files are read to
    infer the settings.

    Raises `harness.UsageError` if an option is unknown, a value is invalid or the data cannot be used.
    """
    if selected and "split" in overrides:
        raise CombinationError("--split and --set dataset.split both select the split; use only one of them")
    numbers = () if selected == "all" else tuple(dict.fromkeys(selected))
    if isinstance(dataset, UserDataset):
        return _of_user_data(dataset, overrides, numbers, every=selected == "all")
    fields = dataset.Options.__struct_fields__
    own, added = divided(overrides, fields)
    user_options = {field for kind in OPTIONS.values() for field in kind.__struct_fields__}
    foreign = [key for key in own if key in user_options and key not in fields]
    if foreign:
        names = ", ".join(f"dataset.{key}" for key in foreign)
        raise UsageError(
            f"dataset {dataset.name!r} does not support {names}, because these options apply only to your own data "
            f"files; remove {', '.join('--' + key.replace('_', '-') for key in foreign)}, or pass the path of an "
            "existing file or directory as the dataset"
        )
    if added.get("folds") is not None or added.get("random_splits") is not None:
        return _resampled(dataset, own, merge(PooledResampling, "dataset", added), numbers)
    if added:
        names = ", ".join(f"dataset.{name}" for name in added)
        raise UsageError(
            f"{names}: dataset {dataset.name!r} has no numbered splits; also pass --folds or --random-splits"
        )
    if not selected:
        return [_published(dataset, own)]
    if not dataset.splits:
        advice = ", or pass --folds or --random-splits" if issubclass(dataset.Options, SeededSplit) else ""
        raise CombinationError(f"dataset {dataset.name!r} has no numbered splits; remove --split{advice}")
    return [_published(dataset, {**own, "split": number}) for number in numbers or dataset.splits]


def _of_user_data(
    dataset: UserDataset, overrides: Mapping[str, Any], numbers: Sequence[int], *, every: bool
) -> list[DataSettings]:
    options = merge(dataset.Options, "dataset", overrides)
    if every and not options.is_resampled:
        raise CombinationError(
            f"{dataset.name}: there are no numbered splits; remove --split, or pass --folds, --fold-column or "
            "--random-splits"
        )
    try:
        settled = dataset.settle_splits(options, numbers)
    except DataError as error:  # Raise a usage error, because no run has started yet.
        raise UsageError(str(error)) from None
    return [
        DataSettings(dataset_options=plain(completed), source=source, rows=rows) for completed, source, rows in settled
    ]


def _published(dataset: Dataset, overrides: Mapping[str, Any]) -> DataSettings:
    """Return the settings of a plugin's dataset with the splits that the dataset provides."""
    options = merge(dataset.Options, "dataset", overrides)
    number = getattr(options, "split", None)
    if dataset.splits and number not in dataset.splits:
        raise UsageError(f"unknown split {number}; dataset {dataset.name!r} has the splits {_range(dataset.splits)}")
    return DataSettings(dataset_options=plain(options))


def _resampled(
    dataset: Dataset, own: Mapping[str, Any], options: PooledResampling, numbers: Sequence[int]
) -> list[DataSettings]:
    """Return the settings of the folds or random splits of a plugin's dataset."""
    if dataset.splits:
        raise CombinationError(
            f"dataset {dataset.name!r} has {len(dataset.splits)} published splits; pass --split all to use them "
            "instead of --folds or --random-splits"
        )
    if issubclass(dataset.Options, SeededSplit):
        options = msgspec.structs.replace(options, pool_splits=False)  # all of its splits are drawn
    elif not options.pool_splits:
        raise CombinationError(
            f"dataset {dataset.name!r} has a published test split, and scores on other splits cannot be compared with "
            "published ones; remove --folds or --random-splits, or merge the published splits with --set "
            "dataset.pool_splits=true"
        )
    if clashing := [name for name in PooledResampling.__struct_fields__ if name in dataset.Options.__struct_fields__]:
        names = ", ".join(f"dataset.{name}" for name in clashing)
        raise CombinationError(
            f"dataset {dataset.name!r} defines {names}, which conflicts with the options for folds and random splits; "
            "remove --folds or --random-splits, or rename the option in the dataset's plugin"
        )
    base = _published(dataset, own).dataset_options
    count = options.count or 0
    chosen = [options.split] if options.split is not None else numbers or range(1, count + 1)
    if unknown := [number for number in chosen if not 1 <= number <= count]:
        kind = "folds" if options.folds else "random splits"
        raise UsageError(f"unknown split {unknown[0]}; the {count} {kind} are numbered from 1 to {count}")
    added = {name: value for name, value in plain(options).items() if value}
    return [DataSettings(dataset_options={**base, **added, "split": number}) for number in chosen]


def _range(numbers: Sequence[int]) -> str:
    gapless = list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]} to {numbers[-1]}" if gapless else ", ".join(map(str, numbers))
