"""Assignment of the user's rows to predefined splits, chronological splits, random splits or cross-validation folds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from harness.data.user_files.examples import Examples
from harness.data.user_files.options import UserOptions
from harness.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Index = NDArray[np.int64]
    Parts = dict[str, Index]


def resampled(examples: Examples, numbers: Sequence[int] = ()) -> list[Examples]:
    """Return one copy of `examples` for each fold or random split, with the number of the split in its options.

    If the options select a split, or if there is only one split, the result has one item. `numbers` selects splits; by
    default, all splits are returned. Raises `harness.UsageError` if a selected split does not exist.
    """
    options = examples.options
    if options.count is None:
        if numbers:
            raise UsageError(
                f"{examples.problems.source}: there are no numbered splits; remove --split, or pass --folds, "
                "--fold-column or --random-splits"
            )
        return [examples]
    if options.split is not None:
        return [examples]
    kind = "folds" if options.folds else "random splits"
    for number in numbers:
        if not 1 <= number <= options.count:
            raise UsageError(
                f"unknown split {number}; the {options.count} {kind} are numbered from 1 to {options.count}"
            )
    return [
        dataclasses.replace(
            examples, options=msgspec.structs.replace(options, split=number), warnings=list(examples.warnings)
        )
        for number in numbers or range(1, options.count + 1)
    ]


def assigned(
    examples: Examples,
    rows: Sequence[int],
    classes: Index | None,
    names: Sequence[str],
    duplicates: Index | None,
) -> tuple[Parts, dict[str, str]]:
    """Return the row indices of each split and the details to record. The indices are positions in `rows`. The details
    are a description of how the splits were made (``splits``), the number of rows in each fold (``fold_rows``) and the
    times in each split (``times``).

    `rows` contains the indices of the good rows, and `classes` (``[N]``, or None for regression) contains their
    classes. Rows with equal values in `duplicates` (``[N]``, or None) must be in the same split. Warnings are added to
    `examples`. Raises `harness.DataError` if the rows cannot be split as requested.
    """
    import numpy as np

    from harness.data.folds import sizes_of
    from harness.data.user_files.splitting import split, split_by_time

    options = examples.options
    if examples.times is not None:
        times = np.array(examples.times)[rows]
        if options.folds is not None:
            return _fold_by_time(examples, rows, times, classes, names)
        parts, description = split_by_time(
            times, validation_share=options.validation_share, test_share=options.test_share
        )
        wanted = {"validation": options.validation_share, "test": options.test_share}
        examples.warnings += _uneven(parts, wanted)
        return parts, {"splits": description, "times": _times(examples, rows, parts)}
    given = None if examples.splits is None else [examples.splits[row] for row in rows]
    groups = None if examples.groups is None else np.array(examples.groups)[rows]
    number, start, seed, details = options.split or 1, "", options.split_seed, {}
    if options.folds is not None:
        folds, start = _folds(examples, rows, classes, names, duplicates)
        details["fold_rows"] = sizes_of(folds)
        given = ["test" if fold == number - 1 else "train" for fold in folds.tolist()]
    elif options.random_splits is not None:
        seed, start = seed + number - 1, f"random split {number} of {options.random_splits}: "
    try:
        parts, description = split(
            given,
            classes,
            groups,
            rows=len(rows),
            seed=seed,
            validation_share=options.validation_share,
            test_share=options.test_share,
            label_names=names,
            duplicates=duplicates,
        )
    except DataError as error:
        raise DataError(f"{options.title}: {error}" if options.title else str(error)) from None
    examples.warnings += drawn_despite_order(examples, start + description)
    return parts, {"splits": start + description, **details}


def planned_size(options: UserOptions, parts: Mapping[str, Index], rows: int) -> int:
    """Return the number of training examples, given the row indices of each split and the total number of rows.

    For folds and random splits, the result is computed from the total number of rows, so it is the same for every fold
    or split. For folds in chronological order, the result refers to the first fold, which has the fewest training
    examples.
    """
    if options.count is None:
        return len(parts["train"])
    if options.folds is None:
        share = 1 - options.test_share - options.validation_share
    elif options.time_column is not None:
        share = (1 - options.validation_share) / (options.folds + 1)
    else:
        share = (1 - 1 / options.folds) * (1 - options.validation_share)
    return max(1, int(rows * share))


def _fold_by_time(
    examples: Examples,
    rows: Sequence[int],
    times: NDArray[np.float64],
    classes: Index | None,
    names: Sequence[str],
) -> tuple[Parts, dict[str, str]]:
    """Return the row indices of each split for a chronological fold, and the details to record; see `assigned`."""
    from harness.data.folds import fold_warnings, sizes_of
    from harness.data.user_files.splitting import folds_by_time, split_fold_by_time

    options, count = examples.options, examples.options.folds or 0
    number = options.split or 1
    folds = folds_by_time(times, count)
    parts = split_fold_by_time(times, folds, number - 1, validation_share=options.validation_share)
    tested = folds >= 0
    titles = [f"fold {fold}" for fold in range(1, count + 1)]
    examples.warnings += fold_warnings(
        folds[tested], titles, classes if classes is None else classes[tested], None, names
    )
    earlier = {name: rows for name, rows in parts.items() if name != "test"}
    uneven = _uneven(earlier, {"validation": options.validation_share})
    examples.warnings += [f"fold {number}: {warning}" for warning in uneven]
    description = f"fold {number} of {count} by time, trained on all earlier rows; validation rows precede test rows"
    return parts, {
        "splits": description,
        "fold_rows": sizes_of(folds[tested]),
        "times": _times(examples, rows, parts),
    }


def _times(examples: Examples, rows: Sequence[int], parts: Parts) -> str:
    """Return the first and the last time in each split, as written in the time column."""
    assert examples.times is not None
    assert examples.table is not None
    times, cells = examples.times, examples.table.columns[str(examples.options.time_column)]
    found = []
    for name, index in parts.items():
        ordered = sorted((rows[row] for row in index.tolist()), key=lambda row: times[row])
        found.append(f"{name} {str(cells[ordered[0]])[:40]} to {str(cells[ordered[-1]])[:40]}")
    return ", ".join(found)


def _folds(
    examples: Examples, rows: Sequence[int], classes: Index | None, names: Sequence[str], duplicates: Index | None
) -> tuple[Index, str]:
    """Return the fold index of each row, starting at 0, and a description of the folds. Warnings are added to
    `examples`."""
    import numpy as np

    from harness.data.folds import assign_folds, drawn_by, fold_warnings
    from harness.data.names import in_order
    from harness.data.user_files.splitting import connected

    options, count = examples.options, examples.options.folds or 0
    number = options.split or 1
    groups = None if examples.groups is None else np.array(examples.groups)[rows]
    titles = [f"fold {fold}" for fold in range(1, count + 1)]
    if examples.folds is not None:
        cells = [examples.folds[row] for row in rows]
        values = in_order(filter(None, examples.folds))
        folds = np.array([values.index(cell) for cell in cells], np.int64)
        if missing := sorted(set(range(count)) - set(folds.tolist())):
            raise DataError(
                f"fold {values[missing[0]]!r} of column {options.fold_column!r} has only bad rows; fix these rows"
            )
        how = f" (column {options.fold_column!r}: {values[number - 1]!r})"
        if groups is not None:
            _check_groups(folds, groups, options)
        titles = [f"{title} ({value!r})" for title, value in zip(titles, values, strict=True)]
    else:
        together = groups if groups is None or duplicates is None else connected(groups, duplicates)
        folds = assign_folds(count, len(rows), classes, together, duplicates, options.split_seed, names)
        how = f" drawn at random{drawn_by(groups is not None, classes, duplicates)}"
    examples.warnings += fold_warnings(folds, titles, classes, groups, names)
    return folds, f"fold {number} of {count}{how}; "


def _check_groups(folds: Index, groups: NDArray[Any], options: UserOptions) -> None:
    """Raise `harness.DataError` if a group is in two folds."""
    fold_of: dict[str, int] = {}
    for fold, group in zip(folds.tolist(), groups.tolist(), strict=True):
        if fold_of.setdefault(group, fold) != fold:
            raise DataError(
                f"group {str(group)!r} is in several folds of column {options.fold_column!r}; assign each group to one "
                "fold, or omit the group column"
            )


def drawn_despite_order(examples: Examples, description: str) -> list[str]:
    """Return a warning if the rows are in chronological order, but the splits were drawn at random. `description`
    describes how the splits were drawn. There is no warning for folds from a fold column, because the user defined the
    test splits.
    """
    if not examples.ordered or examples.folds is not None or "drawn" not in description:
        return []
    shown, order = ", ".join(map(repr, list(examples.ordered)[:3])), min(examples.ordered.values(), key=len)
    return [
        f"the rows are {order} (column {shown}), but splits were drawn at random, so some training rows "
        "are later than some test rows; pass --time-column to split by time"
    ]


def _uneven(parts: Mapping[str, NDArray[Any]], wanted: Mapping[str, float]) -> list[str]:
    """Return a warning if the sizes of chronological splits differ considerably from the requested sizes.

    `wanted` contains the requested fraction of the rows in `parts`, keyed by split.
    """
    sizes = {name: len(rows) for name, rows in parts.items()}
    total = sum(sizes.values())
    if all(0.5 * share <= sizes[name] / total <= 2 * share for name, share in wanted.items()):
        return []
    shown = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    return [
        "rows with the same time are kept in one split, so the sizes of the splits differ considerably "
        f"from the requested sizes: {shown}"
    ]
