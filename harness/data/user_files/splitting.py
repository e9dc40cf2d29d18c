"""Training, validation and test: as given, or drawn, the same for the same data and seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Index = NDArray[np.int64]

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    "test": TEST,
}
"""What a split is called in a column or a folder, in lower case -> which one it is."""


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
) -> tuple[dict[str, Index], str]:
    """The places of the `rows` in each split, in their own order, and how they came about.

    `given`: `SPLITS` member of each row; a split that no row has is drawn from the training rows. `classes`: int64
    ``[N]``, by which a drawn split is stratified; None for regression. `groups`: ``[N]``; no group is in two splits.

    Raises `harness.DataError` where a split cannot be had.
    """
    parts: dict[str, Index] = {TRAIN: np.arange(rows)}
    if given is not None:
        names = np.array(given)
        parts = {name: np.flatnonzero(names == name) for name in SPLITS if (names == name).any()}
        if TRAIN not in parts:
            raise DataError(f"no row is in the training split; there are: {', '.join(parts)}")
        if groups is not None:
            _check_apart(parts, groups)
    missing = [name for name in (TEST, VALIDATION) if name not in parts]
    shares = {TEST: test_share, VALIDATION: validation_share}
    if missing:
        _check_enough(parts[TRAIN], classes, len(missing) + 1, label_names)
    left = sum(shares[name] for name in missing)
    for number, name in enumerate(missing):
        # A share is one of all rows; what was drawn before is gone from the rows that it is drawn from.
        share = shares[name] / (1 - (left - sum(shares[later] for later in missing[number:])))
        kept, drawn = _draw(parts[TRAIN], classes, groups, share, seed, leave=len(missing) - number)
        parts[TRAIN], parts[name] = kept, drawn
    how = "stratified" if classes is not None else "at random"
    how = f"by group, seed {seed}" if groups is not None else f"{how}, seed {seed}"
    told = "given" if not missing else f"{' and '.join(reversed(missing))} drawn {how}"
    return {name: parts[name] for name in SPLITS}, told


def _draw(
    rows: Index, classes: NDArray[np.int64] | None, groups: NDArray[Any] | None, share: float, seed: int, *, leave: int
) -> tuple[Index, Index]:
    """(kept, drawn): about `share` of the `rows` drawn, of each class at least one and at least `leave` kept; by whole
    groups where there are `groups`."""
    if groups is not None:
        return _draw_groups(rows, classes, groups, share, seed, leave)
    rng = np.random.default_rng([seed, leave])
    strata = np.zeros(len(rows), np.int64) if classes is None else classes[rows]
    drawn = [
        rng.permutation(members)[: min(max(1, round(share * len(members))), len(members) - leave)]
        for members in (rows[strata == stratum] for stratum in np.unique(strata))
    ]
    chosen = np.sort(np.concatenate(drawn))
    return np.setdiff1d(rows, chosen), chosen


def _draw_groups(
    rows: Index, classes: NDArray[np.int64] | None, groups: NDArray[Any], share: float, seed: int, leave: int
) -> tuple[Index, Index]:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    count = len(np.unique(groups[rows]))
    if count < leave + 1:
        raise DataError(
            f"{count} group{'s' * (count != 1)} cannot be put into {leave + 1} splits; give more groups, or splits "
            "by a column, or leave the group column out"
        )
    folds = min(max(2, round(1 / share)), count)
    if classes is None:
        parts = GroupKFold(folds, shuffle=True, random_state=seed).split(rows, groups=groups[rows])
        kept, drawn = next(iter(parts))
        return rows[kept], rows[drawn]
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer examples than folds: what is missing is told below
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


def _check_enough(rows: Index, classes: NDArray[np.int64] | None, splits: int, names: Sequence[str]) -> None:
    """Raise unless each class has an example for each split."""
    if classes is None:
        if len(rows) < splits:
            raise DataError(f"{len(rows)} rows cannot be put into {splits} splits")
        return
    numbers, counts = np.unique(classes[rows], return_counts=True)
    few = [f"{names[n]!r} has {c}" for n, c in zip(numbers, counts, strict=True) if c < splits]
    if few:
        shown = ", ".join(few[:5]) + (f" and {len(few) - 5} more classes" if len(few) > 5 else "")
        raise DataError(
            f"too few examples of a class for {splits} splits, which need {splits} or more: {shown}; add examples, or "
            "leave the class out"
        )


def _check_apart(parts: dict[str, Index], groups: NDArray[Any]) -> None:
    seen: dict[Any, str] = {}
    for name, rows in parts.items():
        for group in np.unique(groups[rows]):
            if group in seen:
                raise DataError(f"group {str(group)!r} is in the {seen[group]} split and in the {name} split")
            seen[group] = name


def check_classes(parts: dict[str, Index], classes: NDArray[np.int64], names: Sequence[str]) -> dict[str, str]:
    """For the record: the classes that the validation or test split lacks.

    Raises `harness.DataError` for a class that the training split lacks: it could not be learned.
    """
    present = {split: set(classes[rows].tolist()) for split, rows in parts.items()}
    for split_name in (VALIDATION, TEST):
        untaught = sorted(present[split_name] - present[TRAIN])
        if untaught:
            raise DataError(
                f"the training split has no example of {', '.join(repr(names[n]) for n in untaught[:5])}, which the "
                f"{split_name} split has; change the splits"
            )
    found = {}
    for split_name in (VALIDATION, TEST):
        lacking = [names[n] for n in sorted(present[TRAIN] - present[split_name])]
        if lacking:
            more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
            found[f"{split_name}_lacks_classes"] = ", ".join(lacking[:5]) + more
    return found
