"""Options for evaluating a model on cross-validation folds or repeated random splits of the same examples.

`harness.data.folds` draws the folds. This module imports no third-party libraries except msgspec, so that planning is
fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

MAX_SPLITS = 100
"""Maximum number of folds or random splits."""


class Resampling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for evaluating a model on several splits of the same examples. Each split is a separate run."""

    folds: int | None = None
    """Number of cross-validation folds. Each fold is the test split of one run; the remaining rows are divided into
    training and validation splits. The folds are drawn at random, stratified by class, unless the user's data have a
    time column."""
    random_splits: int | None = None
    """Number of random splits. Split i is drawn with the seed ``split_seed`` + i - 1."""
    split: int | None = None
    """Number of the run's fold or random split, starting at 1. If None, every fold or split is evaluated in a separate
    run.
    """

    @property
    def count(self) -> int | None:
        """Number of folds or random splits, or None if there is only one split."""
        return self.folds or self.random_splits

    @property
    def title(self) -> str:
        """Name of the fold or random split, such as ``fold 2/5``, or an empty string if there is only one split."""
        kind = "fold" if self.folds else "random split"
        return "" if self.count is None else f"{kind} {self.split or 1}/{self.count}"

    def __post_init__(self) -> None:
        """Raise `ValueError` if a number is out of range or if two options contradict each other."""
        for name, number in (("folds", self.folds), ("random_splits", self.random_splits)):
            if number is not None and not 2 <= number <= MAX_SPLITS:
                raise ValueError(f"{name} must be between 2 and {MAX_SPLITS}, got {number}")
        if self.folds is not None and self.random_splits is not None:
            raise ValueError("folds and random_splits cannot be combined; remove one of them")
        if self.split is not None and self.count is not None and not 1 <= self.split <= self.count:
            what = "folds" if self.folds else "random splits"
            raise ValueError(f"split must be between 1 and {self.count}, the number of {what}, got {self.split}")


class PooledResampling(Resampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resampling options for datasets provided by plugins."""

    pool_splits: bool = False
    """True to allow folds or random splits of a dataset that has a published test split. The examples of the published
    test split are merged with the other examples before the folds or random splits are drawn. Scores on folds or random
    splits are not comparable with published scores."""


def divided(options: Mapping[str, Any], fields: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide the options of a plugin's dataset into those that the dataset defines (`fields`) and those of
    `PooledResampling`.

    If the dataset defines an option named ``split``, the option is not treated as a resampling option.
    """
    added = {name for name in PooledResampling.__struct_fields__ if name not in fields}
    return (
        {name: value for name, value in options.items() if name not in added},
        {name: value for name, value in options.items() if name in added},
    )
