"""The dataset options of the user's own data, for each kind of raw input."""

from __future__ import annotations

from msgspec import Struct

from harness.data.user_files.problems import OnBadRow


class OwnOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What text, tables, images and recordings have in common."""

    target_column: str | tuple[str, ...] | None = None
    """The label of each row; for regression one number or several. None: the only column it can be."""
    split_column: str | None = None
    """``train``, ``validation`` (``val``, ``valid``, ``dev``) or ``test`` for each row; a split that no row has
    is drawn from the training rows. None: the column called ``split``, if there is one; else all splits are drawn."""
    group_column: str | None = None
    """Rows of one group, such as a speaker or a patient, stay in one split."""
    slice_columns: tuple[str, ...] = ()
    """Columns whose values are scored by themselves in the test split: names, or numbers by quarters. They may be
    features, too."""
    on_bad_row: OnBadRow = "error"
    split_seed: int = 0
    validation_share: float = 0.1
    test_share: float = 0.2
    """Of all rows, where the split is drawn."""
    sha256: str = ""
    """Digest of the content, which the run's identity takes in; filled in where it is not given."""

    def __post_init__(self) -> None:
        if not 0 <= self.split_seed < 2**32:
            raise ValueError(f"split_seed must lie between 0 and 2^32 - 1, got {self.split_seed}")
        if not (0 < self.validation_share < 1 and 0 < self.test_share < 1):
            raise ValueError("validation_share and test_share must lie between 0 and 1")
        if self.validation_share + self.test_share > 0.9:
            raise ValueError("validation_share and test_share must leave a tenth or more of the rows for training")


class TextOptions(OwnOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text_column: str | None = None
    """None: the only column it can be."""


class TableOptions(OwnOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    feature_columns: tuple[str, ...] = ()
    """Empty: all that are left."""
    categorical_columns: tuple[str, ...] = ()
    """Columns whose numbers are names, such as postal codes; columns of texts need not be said."""


class AudioOptions(OwnOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    path_column: str | None = None
    """Of a metadata file: the path of each file, relative to the metadata file. None: the only column it can be."""


class ImageOptions(AudioOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    shorter_side: int = 256
    """Pixels. Larger images are shrunk to it while they are decoded, which bounds the memory that they take."""

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
"""Kind of raw input -> its options."""
