"""`DividedRows`, the user's rows and the splits to which they belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.interfaces import RawData, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class DividedRows:
    """The rows of the user's data, and the rows of each split. Several instances can share the same rows."""

    everything: Split
    """All rows."""
    parts: Mapping[str, NDArray[np.int64]]
    """Positions of the rows in the training, validation and test splits."""
    label_names: tuple[str, ...]
    details: Mapping[str, bool | int | float | str]
    warnings: Sequence[str]
    feature_names: tuple[str, ...]
    reading: Mapping[str, Any]

    def raw(self) -> RawData:
        """Return the data with a copy of the rows of each split."""
        train, validation, test = (self.everything.take(index) for index in self.parts.values())
        return RawData(
            train=train,
            validation=validation,
            test=test,
            label_names=self.label_names,
            details=self.details,
            warnings=self.warnings,
            feature_names=self.feature_names,
            reading=self.reading,
        )
