"""Dataset options for the user's files. Each kind of raw input has a separate class."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from harness.data.resampling import Resampling
from harness.data.user_files.problems import OnBadRow
from harness.errors import UsageError

TEST_SHARE = 0.2
"""Default fraction of the rows in the test split."""


class UserOptions(Resampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options shared by text, tables, images and recordings."""

    target_column: str | tuple[str, ...] | None = None
    """Column with the label of each row or, for regression, one or more numeric columns. If None, the column is
    inferred.
    """
    split_column: str | None = None
    """Column with the split of each row: ``train``, ``validation`` (or ``val``, ``valid``, ``dev``) or ``test``.
    Validation and test splits that have no rows are drawn at random from the training rows. If None, the column named
    ``split`` is used. If this column does not exist, all splits are drawn.
    """
    group_column: str | None = None
    """Column with the group of each row, such as the speaker or patient. All rows of a group are in the same split."""
    time_column: str | None = None
    """Column with the date, time or number used to order the rows. The last rows form the test split, and the rows
    before the test split form the validation split. Rows with the same time are kept in the same split. With `folds`,
    the last rows are divided into consecutive folds, and the rows before a fold form its training and validation
    splits. This option cannot be combined with a split or group column."""
    date_format: str | None = None
    """Format of dates that are not in ISO 8601, in Python's ``strptime`` notation, such as ``%d/%m/%Y``."""
    fold_column: str | None = None
    """Column with the cross-validation fold of each row. If a fold column is set, `folds` is the number of distinct
    values in this column, and the folds are numbered in the order of the sorted values. This option cannot be combined
    with a split or time column."""
    encoding: str | None = None
    """Encoding of the file, such as ``windows-1252`` or ``utf-16``. If None, UTF-8 is used."""
    separator: str | None = None
    """Character that separates the cells of a CSV file. If None, the separator is inferred from the header."""
    weight_column: str | None = None
    """Column with the weight of each row in the training loss. Weights must be at least 0. The weights are divided by
    their mean over the training split. Scores are computed without weights.
    """
    slice_columns: tuple[str, ...] = ()
    """Columns that define slices of the test split, which are scored separately. Each value of a column forms a slice.
    In a numeric column, each quartile forms a slice. Names joined with ``*``, such as ``sex*region``, define the
    intersections of the slices of several columns. A slice column is a feature only if it is listed in the feature
    columns.
    """
    on_bad_row: OnBadRow = "error"
    """Handling of bad rows: ``error`` raises an error that lists the bad rows, and ``skip`` drops them.
    """
    copies: Literal["together", "independent"] = "together"
    """Handling of duplicates and near-duplicates when splits are drawn. With ``together``, duplicate rows are kept in
    the same split. With ``independent``, duplicate rows are treated like any other rows.
    """
    split_seed: int = 0
    """Seed for drawing splits."""
    validation_share: float = 0.1
    """Fraction of the rows to use as the validation split. If the test split is a fold or is defined by the data, the
    fraction refers to the rows outside the test split. Otherwise, the fraction refers to all rows. For folds in
    chronological order, the fraction refers to the rows before the fold. This option is ignored if the data define a
    validation split.
    """
    test_share: float = TEST_SHARE
    """Fraction of all rows to use as the test split. This option is ignored if the data define a test split, and cannot
    be combined with folds."""
    sha256: str = ""
    """SHA-256 digest of the content. The digest is part of the run's key. If empty, the digest is computed from the
    data.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_resampling()
        if self.time_column is not None and (self.split_column or self.group_column):
            raise ValueError("time_column cannot be combined with split_column or group_column; remove one of them")
        if self.date_format is not None:
            _check_date_format(self.date_format)
        if self.encoding is not None:
            _check_encoding(self.encoding)
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '"\r\n'):
            raise ValueError(
                f"separator must be a single character other than a quote, got {self.separator!r} (a tab is written as "
                "$'\\t' in the shell)"
            )
        if not 0 <= self.split_seed < 2**32:
            raise ValueError(f"split_seed must be between 0 and 2^32 - 1, got {self.split_seed}")
        if not (0 < self.validation_share < 1 and 0 < self.test_share < 1):
            raise ValueError(
                "validation_share and test_share must be between 0 and 1 (both exclusive), got "
                f"{self.validation_share} and {self.test_share}"
            )
        if self.validation_share + self.test_share > 0.9:
            raise ValueError(
                "validation_share and test_share must leave at least 0.1 of the rows for training, got "
                f"{self.validation_share} and {self.test_share}"
            )

    @property
    def is_resampled(self) -> bool:
        """True if the options define several folds or random splits."""
        return self.count is not None or self.fold_column is not None

    def check_no_given_splits(self, source: str, what: str) -> None:
        """Raise `harness.UsageError` if folds or random splits are requested, although the data define the splits.

        `what` names the column or the folders that define the splits.
        """
        if self.is_resampled:
            raise UsageError(
                f"{source}: the splits are defined by {what}, so folds or random splits cannot be used; remove the "
                "option, or pass data without splits, such as the training data"
            )

    def _check_resampling(self) -> None:
        several = "fold_column" if self.fold_column is not None else "folds" if self.folds else "random_splits"
        if not self.is_resampled:
            if self.split is not None:
                raise ValueError("split selects one of several folds or random splits; also set folds or random_splits")
            return
        if self.fold_column is not None and self.random_splits is not None:
            raise ValueError("fold_column and random_splits cannot be combined; remove one of them")
        if self.time_column is not None and several != "folds":
            raise ValueError(
                f"{several} cannot be combined with time_column, because training rows would be later than test rows; "
                "remove one of them"
            )
        if self.split_column is not None:
            raise ValueError(
                f"{several} cannot be combined with split_column, which defines the test split; remove one of them"
            )
        if self.random_splits is None and self.test_share != TEST_SHARE:
            raise ValueError(f"test_share has no effect with {several}, because each fold is a test split; remove it")
        if self.split_seed + (self.random_splits or 1) > 2**32:
            raise ValueError("split_seed plus the number of random splits must be at most 2^32")


class TextOptions(UserOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for text."""

    text_column: str | None = None
    """Column with the text. If None, the column is inferred."""


class TableOptions(UserOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for tables."""

    feature_columns: tuple[str, ...] = ()
    """Columns used as features. If empty, all columns without another role are used."""
    categorical_columns: tuple[str, ...] = ()
    """Feature columns whose numbers are categories, such as postal codes. Text columns are categorical by default."""
    date_columns: tuple[str, ...] = ()
    """Feature columns with dates or times. Each of them is split into year, month, day, weekday and hour."""
    decimal: Literal[".", ","] = "."
    """Decimal separator in numbers stored as text."""
    thousands: str = ""
    """Separator between groups of digits, such as ``,`` in 1,250 or a space in 1 250. Use an empty string if there is
    no separator.
    """
    missing_values: tuple[str, ...] = ()
    """Words that denote a missing value in all feature columns. In numeric columns, ``NA``, ``?`` and similar words
    always denote a missing value. Letter case is ignored.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.thousands) > 1 or self.thousands.isdigit() or self.thousands in ("+", "-", "\u2212"):
            raise ValueError(
                f"thousands must be a single character that is neither a digit nor a sign, got {self.thousands!r}"
            )
        if self.thousands == self.decimal:
            raise ValueError(f"thousands and decimal must differ, got {self.decimal!r} for both; also set decimal")


class AudioOptions(UserOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for recordings."""

    path_column: str | None = None
    """Column of the metadata file with the file paths, which are relative to the metadata file.

    If None, the column is inferred.
    """
    class_level: int | None = None
    """Level of the class folders:

    1 for the folders directly inside the dataset folder, and 2 for the folders one level below. If None, the level is
    inferred from the folders.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_level not in (None, 1, 2):
            raise ValueError(f"class_level must be 1 or 2, got {self.class_level}")


class ImageOptions(AudioOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for images."""

    shorter_side: int = 256
    """Maximum length of the shorter side of an image, in pixels. Larger images are scaled down during decoding to limit
    memory use."""

    image_range: tuple[float, float] | None = None
    """Smallest and largest pixel values of grayscale images with more than 8 bits, which are scaled to 8 bits.

    If None, the range of the training images is used.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shorter_side < 1:
            raise ValueError(f"shorter_side must be at least 1, got {self.shorter_side}")
        if self.image_range is not None and not self.image_range[0] < self.image_range[1]:
            raise ValueError(f"image_range must be an increasing pair of numbers, got {self.image_range}")


def _check_date_format(text: str) -> None:
    example = datetime(2021, 11, 23, 14, 5, 6, tzinfo=UTC)
    try:
        parsed = datetime.strptime(example.strftime(text), text)
    except ValueError:
        raise ValueError(f"date_format {text!r} is not a valid strptime format, such as %d/%m/%Y") from None
    if (parsed.year, parsed.month) != (2021, 11):
        raise ValueError(f"date_format {text!r} does not have both a year and a month; use a format such as %d/%m/%Y")


def _check_encoding(name: str) -> None:
    try:
        "".encode(name)
    except (LookupError, UnicodeError, ValueError):
        raise ValueError(f"encoding {name!r} is unknown; use a name such as windows-1252 or utf-16") from None


OPTIONS: dict[str, type[UserOptions]] = {
    "text": TextOptions,
    "table": TableOptions,
    "image": ImageOptions,
    "audio": AudioOptions,
}
"""Mapping from each kind of raw input to its options class."""
