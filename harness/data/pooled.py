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
from harness.data.user_files.splitting import SPLITS, check_classes, split
from harness.interfaces import RawData, Split
from harness.records import Objective

VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
"""Fraction of the examples in the validation split (of the examples outside the test split, for folds), and in the test
split of a random split."""


def resplit(raw: RawData, options: PooledResampling, objective: Objective, split_seed: int) -> RawData:
    """Merge the splits of a dataset, and return the fold or random split that the options select.

    Classes are stratified, and examples with equal inputs are kept in the same split. Raises `harness.DataError` if the
    examples cannot be split in this way.
    """
    everything = _joined([raw.train, raw.validation, raw.test])
    classes = np.asarray(everything.targets) if objective == "classification" else None
    copies = _contents(everything)
    number, given, seed, found = options.split or 1, None, split_seed, list(raw.warnings)
    details = dict(raw.details)
    if options.folds is not None:
        names = raw.label_names
        folds = assign_folds(options.folds, len(everything), classes, None, copies, seed, names)
        given = ["test" if fold == number - 1 else "train" for fold in folds.tolist()]
        titles = [f"fold {fold}" for fold in range(1, options.folds + 1)]
        found += fold_warnings(folds, titles, classes, None, names)
        start = f"fold {number} of {options.folds} drawn at random{drawn_by(False, classes, copies)}; "
        details["fold_rows"] = sizes_of(folds)
    else:
        seed, start = split_seed + number - 1, f"random split {number} of {options.random_splits}: "
    parts, description = split(
        given,
        classes,
        None,
        rows=len(everything),
        seed=seed,
        validation_share=VALIDATION_SHARE,
        test_share=TEST_SHARE,
        label_names=raw.label_names,
        copies=copies,
    )
    lacking, few = ({}, []) if classes is None else check_classes(parts, classes, raw.label_names)
    train, validation, test = (everything.take(parts[name]) for name in SPLITS)
    details |= {"splits": start + description, **lacking}
    return dataclasses.replace(
        raw, train=train, validation=validation, test=test, details=details, warnings=(*found, *few)
    )


def _joined(splits: list[Split]) -> Split:
    """Return one split with the examples of all splits, in this order.

    If the dataset does not identify its examples, they are numbered from 1.
    """
    first = splits[0]
    rows = _all([each.rows for each in splits])
    return Split(
        inputs={name: _concatenated([each.inputs[name] for each in splits]) for name in first.inputs},
        targets=np.concatenate([each.targets for each in splits]),
        groups={name: np.concatenate([each.groups[name] for each in splits]) for name in first.groups},
        rows=np.arange(1, sum(map(len, splits)) + 1) if rows is None else rows,
        weights=_all([each.weights for each in splits]),
    )


def _all(arrays: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    known = [array for array in arrays if array is not None]
    return np.concatenate(known) if len(known) == len(arrays) else None


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
    """Return an identifier of each example's inputs, or None if all inputs differ, or if at least half of a table's
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
