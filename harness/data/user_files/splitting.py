"""Assignment of rows to training, validation and test splits. Splits are either specified by the user or drawn
deterministically from a seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.user_files.spelling import ascii_or_plain, skeleton
from harness.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Index = NDArray[np.int64]

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
}
"""Splits, keyed by the lowercase names that denote a split in columns and folders. Hugging Face Datasets recognizes the
same names.
"""


def same_split(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names that denote the same split, or None. Apart from letter case, all names must occur in
    `NAMES`."""
    meaning: dict[str, str] = {}
    for name in names:
        other = meaning.setdefault(NAMES[name.lower()], name)
        if other != name:
            return other, name
    return None


def split(
    given: Sequence[str] | None,
    classes: NDArray[np.int64] | None,
    groups: NDArray[Any] | None,
    *,
    rows: int,
    seed: int,
    validation_share: float,
    test_share: float,
    label_names: Sequence[str] = (),
    duplicates: NDArray[Any] | None = None,
) -> tuple[dict[str, Index], str]:
    """Return the row indices of each split in ascending order, and a description of the splits.

    `given` contains the split of each row, which is a member of `SPLITS`. If the validation or test split contains no
    rows, it is drawn at random from the training rows, stratified by `classes` (int64 ``[N]``, or None for regression).
    Rows with equal values in `groups` (``[N]``) are kept in the same split. Rows with equal values in `duplicates`
    (``[N]``) have the same or nearly the same content, and are also kept in the same split.

    Raises `harness.DataError` if the rows cannot be split as requested.
    """
    parts: dict[str, Index] = {TRAIN: np.arange(rows)}
    if given is not None:
        names = np.array(given)
        parts = {name: np.flatnonzero(names == name) for name in SPLITS if (names == name).any()}
        if TRAIN not in parts:
            raise DataError(f"the training split has no rows (given splits: {', '.join(parts)}); add training rows")
        if groups is not None:
            _check_apart(parts, groups)
    missing = [name for name in (TEST, VALIDATION) if name not in parts]
    shares = {TEST: test_share, VALIDATION: validation_share}
    if missing and duplicates is not None and groups is not None:
        count = len(np.unique(groups))
        groups = connected(groups, duplicates)
        left_over = len(np.unique(groups))
        if left_over <= len(missing) < count:
            raise DataError(
                f"{count:,} groups cannot be divided into {len(missing) + 1} splits, because groups that share "
                f"duplicate rows are treated as one group, which reduces their number to {left_over}; remove the "
                "duplicates, or allow them in different splits with --set dataset.copies=independent"
            )
    if missing:
        apart = duplicates if groups is None else None
        _check_enough(
            _firsts(parts[TRAIN], apart, classes), classes, len(missing) + 1, label_names, distinct=apart is not None
        )
    left = sum(shares[name] for name in missing)
    for number, name in enumerate(missing):
        # Rescale the fraction, which refers to all rows: rows drawn earlier are no longer among the training rows.
        share = shares[name] / (1 - (left - sum(shares[later] for later in missing[number:])))
        rows_left = parts[TRAIN]
        firsts = _firsts(rows_left, apart, classes)
        kept, drawn = _draw(firsts, classes, groups, share, seed, leave=len(missing) - number, duplicates=apart)
        if apart is not None:
            chosen = np.isin(apart[rows_left], apart[drawn])
            kept, drawn = rows_left[~chosen], rows_left[chosen]
        parts[TRAIN], parts[name] = kept, drawn
    method = (
        "at random by group" if groups is not None else "at random by class" if classes is not None else "at random"
    )
    together = ", duplicates kept in one split" if duplicates is not None else ""
    drawn_names = " and ".join(reversed(missing))
    description = "given" if not missing else f"{drawn_names} drawn {method}{together}, seed {seed}"
    return {name: parts[name] for name in SPLITS}, description


def split_by_time(
    times: NDArray[np.float64], *, validation_share: float, test_share: float
) -> tuple[dict[str, Index], str]:
    """Return the row indices of each split in ascending order, and a description of the splits.

    According to `times` (``[N]``), the latest rows form the test split, and the rows before them form the validation
    split. Rows with the same time are kept together, so the fractions are only approximate.

    Raises `harness.DataError` if there are fewer than three distinct times.
    """
    distinct, before = _distinct_times(times, 3, "3 splits")
    wanted = [len(times) * (1 - test_share - validation_share), len(times) * (1 - test_share)]
    second = int(np.clip(np.abs(before - wanted[1]).argmin(), 2, len(distinct) - 1))
    first = int(np.clip(np.abs(before - wanted[0]).argmin(), 1, second - 1))
    place = np.searchsorted(distinct, times)
    masks = (place < first, (first <= place) & (place < second), second <= place)
    return {name: np.flatnonzero(mask) for name, mask in zip(SPLITS, masks, strict=True)}, "by time, test last"


def folds_by_time(times: NDArray[np.float64], count: int) -> Index:
    """Return the fold index of each row (``[N]``), starting at 0, or -1 for rows that are earlier than the first fold.

    As in scikit-learn's ``TimeSeriesSplit``, the folds are consecutive, and each of them contains about
    N / (`count` + 1) rows. Rows with the same time are in the same fold. At least two distinct times precede the
    first fold, one each for training and validation.

    Raises `harness.DataError` if there are too few distinct times.
    """
    distinct, before = _distinct_times(times, count + 2, f"{count} folds by time")
    size = len(times) // (count + 1)
    starts: list[int] = []
    for number in range(count):
        wanted = len(times) - (count - number) * size
        lowest, highest = (starts[-1] + 1 if starts else 2), len(distinct) - (count - number)
        starts.append(int(np.clip(np.abs(before - wanted).argmin(), lowest, highest)))
    return np.searchsorted(starts, np.searchsorted(distinct, times), side="right") - 1


def split_fold_by_time(
    times: NDArray[np.float64], folds: Index, number: int, *, validation_share: float
) -> dict[str, Index]:
    """Return the row indices of each split in ascending order, with a fold of `folds_by_time` as the test split.

    The latest rows before the fold form the validation split, which contains approximately the fraction
    `validation_share` of the rows before the fold. All earlier rows are training rows.
    """
    early = np.flatnonzero(folds < number)
    distinct, before = _distinct_times(times[early], 2, "a training and a validation split")
    first = int(np.clip(np.abs(before - len(early) * (1 - validation_share)).argmin(), 1, len(distinct) - 1))
    is_late = times[early] >= distinct[first]
    return {TRAIN: early[~is_late], VALIDATION: early[is_late], TEST: np.flatnonzero(folds == number)}


def _distinct_times(
    times: NDArray[np.float64], needed: int, what: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the distinct times and the number of rows before each of them, followed by the total number of rows.

    Raises `harness.DataError` if there are fewer than `needed` distinct times.
    """
    distinct, counts = np.unique(times, return_counts=True)
    if len(distinct) < needed:
        raise DataError(
            f"{what} need at least {needed} different times, but there {'is' if len(distinct) == 1 else 'are'} "
            f"{len(distinct)}; specify another time column"
        )
    return distinct, np.concatenate([[0], np.cumsum(counts)])


def _firsts(rows: Index, duplicates: NDArray[Any] | None, classes: NDArray[Any] | None) -> Index:
    """Return the first row for each combination of content and class, in ascending order. Return all rows if
    `duplicates` is None.
    """
    if duplicates is None:
        return rows
    contents = duplicates[rows] if classes is None else np.stack([duplicates[rows], classes[rows]], axis=1)
    return np.sort(rows[np.unique(contents, axis=0, return_index=True)[1]])


def connected(groups: NDArray[Any], duplicates: NDArray[Any]) -> NDArray[np.int64]:
    """Return a group number for each row. Rows with the same group or the same content are assigned the same number."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(groups)
    nodes = [np.unique(values, return_inverse=True)[1] for values in (groups, duplicates)]
    offsets = (count, count + int(nodes[0].max(initial=0)) + 1)
    ends = np.concatenate([node + offset for node, offset in zip(nodes, offsets, strict=True)])
    size = int(ends.max(initial=count)) + 1
    starts = np.tile(np.arange(count), 2)
    graph = coo_array((np.ones(len(ends), np.int8), (starts, ends)), shape=(size, size))
    labels: NDArray[np.int64] = connected_components(graph, directed=False)[1][:count].astype(np.int64)
    return labels


def _draw(
    rows: Index,
    classes: NDArray[np.int64] | None,
    groups: NDArray[Any] | None,
    share: float,
    seed: int,
    *,
    leave: int,
    duplicates: NDArray[Any] | None = None,
) -> tuple[Index, Index]:
    """Draw approximately a fraction `share` of `rows`, and return the remaining rows and the drawn rows.

    At least one row of each class is drawn, and at least `leave` rows of each class are left. If `groups` is given,
    whole groups are drawn. Without `groups`, rows with equal values in `duplicates` are drawn together. Rows of the
    same class must have different values in `duplicates`.
    """
    if groups is not None:
        return _draw_groups(rows, classes, groups, share, seed, leave)
    rng = np.random.default_rng([seed, leave])
    strata = np.zeros(len(rows), np.int64) if classes is None else classes[rows]
    contents = (rows if duplicates is None else duplicates[rows]).tolist()
    members = {stratum: rng.permutation(np.flatnonzero(strata == stratum)) for stratum in np.unique(strata).tolist()}
    strata_of: dict[Any, list[int]] = {}
    for content, stratum in zip(contents, strata.tolist(), strict=True):
        strata_of.setdefault(content, []).append(stratum)
    drawn: set[Any] = set()
    taken = dict.fromkeys(members, 0)
    for stratum in sorted(members, key=lambda each: len(members[each])):
        wanted = min(max(1, round(share * len(members[stratum]))), len(members[stratum]) - leave)
        for place in members[stratum].tolist():
            content = contents[place]
            if taken[stratum] >= wanted:
                break
            if content in drawn or any(len(members[each]) - taken[each] <= leave for each in strata_of[content]):
                continue
            drawn.add(content)
            for each in strata_of[content]:
                taken[each] += 1
    chosen = np.array([content in drawn for content in contents], bool)
    return rows[~chosen], rows[chosen]


def _draw_groups(
    rows: Index, classes: NDArray[np.int64] | None, groups: NDArray[Any], share: float, seed: int, leave: int
) -> tuple[Index, Index]:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    count = len(np.unique(groups[rows]))
    if count < leave + 1:
        raise DataError(
            f"{count} group{'s' * (count != 1)} cannot be divided into {leave + 1} splits; add groups, specify a split "
            "column, or omit the group column"
        )
    folds = min(max(2, round(1 / share)), count)
    if classes is None:
        parts = GroupKFold(folds, shuffle=True, random_state=seed).split(rows, groups=groups[rows])
        kept, drawn = next(iter(parts))
        return rows[kept], rows[drawn]
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small classes are checked by check_classes()
        stratified = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        try:
            candidates = list(stratified.split(rows, classes[rows], groups[rows]))
        except ValueError:  # every class has fewer examples than there are folds
            parts = GroupKFold(folds, shuffle=True, random_state=seed).split(rows, groups=groups[rows])
            candidates = list(parts)

    def classes_in(index: Index) -> int:
        return len(np.unique(classes[rows[index]]))

    kept, drawn = max(candidates, key=lambda fold: (len(fold[1]) > 0, classes_in(fold[0]), classes_in(fold[1])))
    return rows[kept], rows[drawn]


def _check_enough(
    rows: Index, classes: NDArray[np.int64] | None, splits: int, names: Sequence[str], *, distinct: bool
) -> None:
    """Raise `harness.DataError` if a class has too few examples to put at least one in each split.

    `distinct` is True if `rows` contains only one row for each combination of content and class.
    """
    kind = "distinct examples" if distinct else "examples"
    if classes is None:
        if len(rows) < splits:
            what = f"{'distinct ' * distinct}row{'s' * (len(rows) != 1)}"
            raise DataError(f"{len(rows)} {what} cannot be divided into {splits} splits; add rows")
        return
    numbers, counts = np.unique(classes[rows], return_counts=True)
    few = [f"{names[n]!r} has {c}" for n, c in zip(numbers, counts, strict=True) if c < splits]
    if few:
        shown = ", ".join(few[:5]) + (f" and {len(few) - 5} more classes" if len(few) > 5 else "")
        advice = ", or allow duplicates in different splits with --set dataset.copies=independent" if distinct else ""
        raise DataError(
            f"{splits} splits need at least {splits} {kind} of each class, but {shown}; add examples, or remove the "
            f"class{advice}"
        )


def _check_apart(parts: dict[str, Index], groups: NDArray[Any]) -> None:
    """Raise `harness.DataError` if a group is in two splits."""
    seen: dict[Any, str] = {}
    for name, rows in parts.items():
        for group in np.unique(groups[rows]):
            if group in seen:
                raise DataError(
                    f"group {str(group)!r} is in both the {seen[group]} and the {name} split; assign each group to one "
                    "split, or omit the group column"
                )
            seen[group] = name


def check_classes(
    parts: dict[str, Index], classes: NDArray[np.int64], names: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Return the classes that are missing from the validation or test split, for inclusion in the record, and warnings
    about classes with few examples.

    Raises `harness.DataError` if a class in the validation or test split is missing from the training split, because a
    model could not learn this class.
    """
    present = {split: set(classes[rows].tolist()) for split, rows in parts.items()}
    for split_name in (VALIDATION, TEST):
        untrained = sorted(present[split_name] - present[TRAIN])
        if untrained:
            trained = {skeleton(names[n]): names[n] for n in present[TRAIN]}
            similar = [(names[n], trained[skeleton(names[n])]) for n in untrained if skeleton(names[n]) in trained]
            hint = "".join(f"; {ascii_or_plain(one)} looks like {ascii_or_plain(two)}" for one, two in similar[:3])
            raise DataError(
                f"the {split_name} split has examples of {', '.join(repr(names[n]) for n in untrained[:5])}, but the "
                f"training split has none{hint}; {'use one spelling in all splits' if hint else 'change the splits'}"
            )
    details, warnings = {}, []
    for split_name in (VALIDATION, TEST):
        missing = [names[n] for n in sorted(present[TRAIN] - present[split_name])]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            details[f"{split_name}_lacks_classes"] = ", ".join(missing[:5]) + more
            warnings.append(
                f"the {split_name} split has no examples of {len(missing):,} of {len(names):,} classes "
                f"({', '.join(map(repr, missing[:5]))}{more}), so its scores do not cover them"
            )
    single = int((np.bincount(classes[parts[TRAIN]], minlength=len(names)) == 1).sum())
    if 2 * single > len(names):
        warnings.append(f"{single:,} of {len(names):,} classes have only one training example; check the target column")
    return details, warnings
