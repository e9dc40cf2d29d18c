"""Folds and random splits of datasets provided by plugins."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.folds import assign_folds, drawn_by, fold_warnings, sizes_of
from harness.data.resampling import PooledResampling
from harness.data.user_files.spelling import visible
from harness.data.user_files.splitting import SPLITS, check_classes, connected, split
from harness.errors import DataError
from harness.interfaces import RawData, Split
from harness.records import Objective

VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
"""Fractions of the examples that form the validation and test splits of a random split. For folds, the validation
fraction refers to the examples outside the test split."""


def resplit(raw: RawData, options: PooledResampling, objective: Objective, split_seed: int) -> RawData:
    """Merge the splits of a dataset, and return the fold or random split that the options select.

    Classes are stratified. Examples with equal inputs are kept in the same split. The examples of a group, such as a
    speaker, are also kept together, unless groups are divided between the test split and the other splits of the
    dataset. If a published test split is merged, a warning states which groups are kept together. Raises
    `harness.DataError` if the examples cannot be split in this way.
    """
    everything = _joined([raw.train, raw.validation, raw.test])
    classes = np.asarray(everything.targets) if objective == "classification" else None
    duplicates = _contents(everything)
    kept = _undivided(raw)
    groups, labels = _together(everything, kept, duplicates)
    if groups is not None and (count := len(np.unique(groups))) < len(SPLITS):
        raise DataError(
            f"{count} groups of examples with the same {' or '.join(kept)} cannot be divided into training, validation "
            "and test examples; remove --folds or --random-splits"
        )
    number, given, seed, found = options.split or 1, None, split_seed, list(raw.warnings)
    found += [_merged(kept)] if options.pool_splits else []
    details = dict(raw.details)
    if options.folds is not None:
        names = raw.label_names
        folds = assign_folds(options.folds, len(everything), classes, groups, duplicates, seed, names)
        given = ["test" if fold == number - 1 else "train" for fold in folds.tolist()]
        titles = [f"fold {fold}" for fold in range(1, options.folds + 1)]
        found += fold_warnings(folds, titles, classes, labels, names)
        start = f"fold {number} of {options.folds} drawn at random{drawn_by(bool(kept), classes, duplicates)}; "
        details["fold_rows"] = sizes_of(folds)
    else:
        seed, start = split_seed + number - 1, f"random split {number} of {options.random_splits}: "
    parts, description = split(
        given,
        classes,
        groups,
        rows=len(everything),
        seed=seed,
        validation_share=VALIDATION_SHARE,
        test_share=TEST_SHARE,
        label_names=raw.label_names,
        duplicates=duplicates,
    )
    lacking, few = ({}, []) if classes is None else check_classes(parts, classes, raw.label_names)
    train, validation, test = (everything.take(parts[name]) for name in SPLITS)
    details |= {"splits": start + description, **lacking}
    return dataclasses.replace(
        raw, train=train, validation=validation, test=test, details=details, warnings=(*found, *few)
    )


def _joined(splits: list[Split]) -> Split:
    """Return one split with the examples of all `splits`, in the given order.

    If the dataset does not identify its examples, they are numbered from 1.
    """
    first = splits[0]
    rows = [each.rows for each in splits if each.rows is not None]
    names = dict.fromkeys(name for each in splits for name in each.groups)
    return Split(
        inputs={name: _concatenated([each.inputs[name] for each in splits]) for name in first.inputs},
        targets=np.concatenate([each.targets for each in splits]),
        groups={name: _all([each.groups.get(name) for each in splits], f"group {name!r}") for name in names},
        rows=np.concatenate(rows) if len(rows) == len(splits) else np.arange(1, sum(map(len, splits)) + 1),
        weights=None
        if all(each.weights is None for each in splits)
        else _all([each.weights for each in splits], "weights"),
    )


def _all(arrays: list[NDArray[Any] | None], what: str) -> NDArray[Any]:
    """Concatenate the arrays of the splits. Raises `harness.DataError` if a split has no array."""
    missing = [name for name, array in zip(SPLITS, arrays, strict=True) if array is None]
    if missing:
        which = f"splits {' and '.join(missing)} have" if len(missing) > 1 else f"{missing[0]} split has"
        raise DataError(
            f"the splits cannot be merged, because the {which} no {what}, but other splits have; remove --folds or "
            "--random-splits"
        )
    return np.concatenate([array for array in arrays if array is not None])


def _undivided(raw: RawData) -> list[str]:
    """Return the names of the groups whose values in the test split do not occur in the other splits."""
    return [
        name
        for name, tested in raw.test.groups.items()
        if (values := _values(tested))
        and not values & (_values(raw.train.groups[name]) | _values(raw.validation.groups[name]))
    ]


def _values(groups: NDArray[Any]) -> set[Any]:
    return {value for value in groups.tolist() if not _is_missing(value)}


def _is_missing(group: Any) -> bool:
    """Return whether a value denotes a missing group. Such values are an empty string, None and NaN."""
    return group is None or group == "" or group != group


def _together(
    examples: Split, names: list[str], duplicates: NDArray[Any] | None
) -> tuple[NDArray[np.int64] | None, NDArray[Any] | None]:
    """Return the group number (int64 ``[N]``) and the group name (str ``[N]``) of each example.

    Examples are in the same group if they have the same value in `duplicates` or in any of the groups listed in
    `names`. An example without a group forms a separate group. Both results are None if `names` is empty.
    """
    if not names:
        return None, None
    number: NDArray[np.int64] = np.arange(len(examples)) if duplicates is None else duplicates
    titles = np.array([f"no group, example {row}" for row in range(1, len(examples) + 1)], object)
    for name in reversed(names):
        cells = examples.groups[name].tolist()
        titles = np.array(
            [title if _is_missing(cell) else f"{name} {cell}" for cell, title in zip(cells, titles, strict=True)]
        )
        number = connected(titles, number)
    _, first, inverse = np.unique(number, return_index=True, return_inverse=True)
    return number, titles[first][inverse]


def _merged(kept: list[str]) -> str:
    """Return a warning about related examples that may no longer be in the same split."""
    if kept:
        return (
            f"the published splits were merged; examples with the same {' or '.join(kept)} were kept in one split, but "
            "other related examples, which the published splits may keep together, may be in different splits"
        )
    return (
        "the published splits were merged; related examples, such as those of one speaker or one sentence, may be in "
        "different splits even if the published splits keep them together, because the dataset does not define such "
        "groups"
    )


def _concatenated(arrays: list[Any]) -> NDArray[Any]:
    """Concatenate arrays ``[N, ...]``. Arrays whose shapes or dtypes differ become one object array ``[N]``."""
    dense = [np.asarray(array) for array in arrays]
    if len({(array.shape[1:], array.dtype) for array in dense}) == 1:
        return np.concatenate(dense)
    items = [item for array in dense for item in array]
    joined = np.empty(len(items), object)
    for row, item in enumerate(items):
        joined[row] = item
    return joined


def _contents(examples: Split) -> NDArray[np.int64] | None:
    """Return an identifier of each example's inputs. Return None if all inputs differ, or if at least half of a table's
    rows are equal to other rows.

    Texts are compared without regard to letter case, invisible characters or repeated spaces.
    """
    numbers: dict[Hashable, int] = {}
    names = sorted(examples.inputs)
    found = np.array(
        [
            numbers.setdefault(tuple(_key(examples.inputs[name][row]) for name in names), len(numbers))
            for row in range(len(examples))
        ],
        np.int64,
    )
    few = "features" in names and 2 * len(numbers) <= len(found)
    return None if few or len(numbers) == len(found) else found


def _key(item: Any) -> Hashable:
    if isinstance(item, str):
        return visible(item.casefold())
    if isinstance(item, list | tuple):
        return tuple(map(str, item))
    array = np.asarray(item)
    return array.shape, str(array.dtype), array.tobytes() if array.dtype != object else tuple(map(str, array.tolist()))
