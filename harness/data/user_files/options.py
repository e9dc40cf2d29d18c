"""Dataset options for the user's files. Each kind of raw input has its own class."""

from __future__ import annotations

from msgspec import Struct

from harness.data.user_files.problems import OnBadRow


class OwnOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options shared by text, tables, images and recordings."""

    target_column: str | tuple[str, ...] | None = None
    """Column with the label of each row, or one or several numeric columns for regression. None to infer it."""
    split_column: str | None = None
    """Column with the split of each row: ``train``, ``validation`` (or ``val``, ``valid``, ``dev``) or ``test``. Splits
    without rows are drawn from the training rows. If None, the column named ``split`` is used if it exists; otherwise,
    all splits are drawn."""
    group_column: str | None = None
    """Column with the group of each row, such as the speaker or patient; the rows of a group are always in the same
    split."""
    slice_columns: tuple[str, ...] = ()
    """Columns that define slices of the test split, which are scored separately: one slice for each value, or for each
    quartile of a numeric column. They can also be features."""
    on_bad_row: OnBadRow = "error"
    """Handling of bad rows: ``error`` raises an error that lists them; ``skip`` drops them."""
    split_seed: int = 0
    """Seed for drawing splits."""
    validation_share: float = 0.1
    """Fraction of all rows that form the validation split, if it is drawn."""
    test_share: float = 0.2
    """Fraction of all rows that form the test split, if it is drawn."""
    sha256: str = ""
    """SHA-256 digest of the content. It is part of the run's key, and computed if empty."""

    def __post_init__(self) -> None:
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


class TextOptions(OwnOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for text."""

    text_column: str | None = None
    """Column with the text. None to infer it."""


class TableOptions(OwnOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for tables."""

    feature_columns: tuple[str, ...] = ()
    """Columns used as features. If empty, all columns without another role are used."""
    categorical_columns: tuple[str, ...] = ()
    """Feature columns whose numbers are categories, such as postal codes. Text columns are categorical by default."""


class AudioOptions(OwnOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for recordings."""

    path_column: str | None = None
    """Column of the metadata file that contains the file paths, relative to the metadata file. None to infer it."""


class ImageOptions(AudioOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for images."""

    shorter_side: int = 256
    """Maximum length, in pixels, of the shorter side. Larger images are scaled down while decoding to limit memory
    use."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shorter_side < 1:
            raise ValueError(f"shorter_side must be at least 1, got {self.shorter_side}")


OPTIONS: dict[str, type[OwnOptions]] = {
    "text": TextOptions,
    "table": TableOptions,
    "image": ImageOptions,
    "audio": AudioOptions,
}
"""Class of options for each kind of raw input."""
