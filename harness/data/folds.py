"""Assignment of rows to cross-validation folds, and warnings about unsuitable folds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Index = NDArray[np.int64]

UNEVEN = 1.5
"""Ratio of the largest to the smallest fold size above which a warning is issued."""


def assign_folds(
    count: int,
    rows: int,
    classes: NDArray[np.int64] | None,
    groups: NDArray[Any] | None,
    duplicates: NDArray[Any] | None,
    seed: int,
    names: Sequence[str],
) -> Index:
    """Return the fold index of each row, starting at 0, as an array ``[N]``.

    The folds are stratified by `classes` (int64 ``[N]``, or None for regression). The rows of each group in `groups`
    (``[N]``) are in the same fold, as are rows with equal values in `duplicates` (``[N]``). If `groups` is given, rows
    with equal values in `duplicates` must be in the same group. `names` contains the class names.

    Raises `harness.DataError` if there are too few rows, groups or examples of a class.
    """
    if groups is None:
        unit, what = (
            np.arange(rows) if duplicates is None else duplicates,
            "rows" if duplicates is None else "distinct rows",
        )
    else:
        unit, what = groups, "groups"
    distinct, first, number = np.unique(unit, return_index=True, return_inverse=True)
    _check_units(count, len(distinct), what, classes, number, names)
    if groups is None:
        found = _folds_of_units(count, len(distinct), None if classes is None else classes[first], seed)[number]
    else:
        found = _balanced(number, np.zeros(rows, np.int64) if classes is None else classes, count, seed)[number]
    empty = sorted(set(range(count)) - set(found.tolist()))
    if empty:
        raise DataError(
            f"fold {empty[0] + 1} of {count} has no rows, because the sizes of the groups differ too much; use fewer "
            "folds"
        )
    return found


def _folds_of_units(count: int, units: int, classes: NDArray[np.int64] | None, seed: int) -> Index:
    """Return the fold of each distinct row. `classes` (``[units]``) are used for stratification."""
    from sklearn.model_selection import KFold, StratifiedKFold

    found = np.zeros(units, np.int64)
    if classes is not None and np.bincount(classes).max() < count:  # possible if duplicates have different classes
        classes = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rare classes are reported by fold_warnings()
        chosen = KFold if classes is None else StratifiedKFold
        for number, (_, members) in enumerate(chosen(count, shuffle=True, random_state=seed).split(found, classes)):
            found[members] = number
    return found


def _balanced(groups: Index, classes: Index, count: int, seed: int) -> Index:
    """Return the fold of each group.

    `groups` and `classes` contain the group and the class of each row (``[N]``). Groups are assigned in order of
    decreasing size, and groups of equal size in random order. Each group is assigned to the fold where it causes the
    smallest increase in the sum of squared class frequencies, so the classes and the rows are distributed evenly. This
    is the greedy rule of scikit-learn's ``StratifiedGroupKFold``, with variances instead of standard deviations, which
    makes it fast enough for many groups.
    """
    width = int(classes.max()) + 1
    pairs, rows = np.unique(groups * width + classes, return_counts=True)
    ends = np.searchsorted(pairs // width, np.arange(int(groups.max()) + 2))  # the pairs of each group
    weights = rows / np.bincount(classes)[pairs % width] ** 2
    group_rows = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(group_rows))
    order = order[np.argsort(-group_rows[order], kind="stable")]
    held, sizes = np.zeros((count, width)), np.zeros(count, np.int64)
    found = np.zeros(len(group_rows), np.int64)
    for group in order.tolist():
        part = slice(ends[group], ends[group + 1])
        members = pairs[part] % width
        increase = (held[:, members] * weights[part]).sum(axis=1)
        # Round, so that the order of equal values does not depend on the machine's floating-point arithmetic.
        increase = np.round(increase / (increase.max() or 1.0), 9)
        fold = int(np.lexsort((sizes, increase))[0])
        held[fold, members] += rows[part]
        sizes[fold] += group_rows[group]
        found[group] = fold
    return found


def _check_units(
    count: int,
    units: int,
    what: str,
    classes: NDArray[np.int64] | None,
    number: Index,
    names: Sequence[str],
) -> None:
    """Raise `harness.DataError` if there are fewer units, such as groups, than folds, if a class occurs in fewer than
    three units, or if every class occurs in fewer units than there are folds. `number` (``[N]``)
    maps each row to the index of its unit.
    """
    if units < count:
        what = what.removesuffix("s") if units == 1 else what
        raise DataError(f"{units} {what} cannot be divided into {count} folds; use fewer folds")
    if classes is None:
        return
    what = what.replace("rows", "examples")
    pairs = np.unique(number * (int(classes.max()) + 1) + classes)
    numbers, counted = np.unique(pairs % (int(classes.max()) + 1), return_counts=True)
    few = [f"{_name(n, names)} has {u}" for n, u in zip(numbers.tolist(), counted.tolist(), strict=True) if u < 3]
    if few:
        shown = ", ".join(few[:5]) + (f" and {len(few) - 5} more classes" if len(few) > 5 else "")
        raise DataError(
            f"cross-validation needs at least 3 {what} of each class, one each for training, validation and test, but "
            f"{shown}; add rows, or remove the class"
        )
    if counted.max() < count:
        raise DataError(f"every class has fewer than {count} {what}; use at most {counted.max()} folds")


def fold_warnings(
    folds: Index, titles: Sequence[str], classes: Index | None, groups: NDArray[Any] | None, names: Sequence[str]
) -> list[str]:
    """Return warnings about folds of very different sizes, groups larger than a fold, and classes without rows in a
    fold.

    `folds` contains the fold index of each row, starting at 0, and `titles` contains the title of each fold.
    """
    count, found = len(titles), []
    sizes = np.bincount(folds, minlength=count)
    if groups is not None:
        members, counted = np.unique(groups, return_counts=True)
        large = [(str(members[n]), int(counted[n])) for n in np.argsort(-counted) if counted[n] > len(folds) / count]
        if large:
            shown = ", ".join(f"{name!r} ({rows:,} rows)" for name, rows in large[:3])
            more = f" and {len(large) - 3} more" if len(large) > 3 else ""
            found.append(f"groups larger than a fold of average size ({len(folds) / count:,.0f} rows): {shown}{more}")
    if sizes.max() > UNEVEN * sizes.min():
        found.append(f"the folds differ considerably in size: they have {_range(sizes)} rows")
    if classes is not None:
        for number in np.unique(classes).tolist():
            without = [titles[fold] for fold in range(count) if not ((folds == fold) & (classes == number)).any()]
            if without:
                shown = ", ".join(without[:3]) + (f" and {len(without) - 3} more" if len(without) > 3 else "")
                rows = int((classes == number).sum())
                found.append(f"class {_name(number, names)} ({rows:,} rows) has no test examples in {shown}")
    return found


def drawn_by(grouped: bool, classes: Index | None, duplicates: NDArray[Any] | None) -> str:
    """Return a description of how folds were drawn, such as `` by group and class, duplicates kept in one fold``."""
    by = " and ".join([*(["group"] if grouped else []), *(["class"] if classes is not None else [])])
    return (f" by {by}" if by else "") + (", duplicates kept in one fold" if duplicates is not None else "")


def sizes_of(folds: Index) -> str:
    """Return the number of rows in each fold as text, such as ``26, 25, 25``."""
    return ", ".join(f"{size}" for size in np.bincount(folds).tolist())


def _name(number: int, names: Sequence[str]) -> str:
    """Return the name of a class in quotes, or its number if the classes have no names."""
    return repr(names[number]) if names else str(number)


def _range(sizes: NDArray[Any]) -> str:
    low, high = int(sizes.min()), int(sizes.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
