"""Search for duplicates and near-duplicates among the rows of the user's data. Duplicate rows are kept in the same
split."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data import near_duplicates
from harness.data.near_duplicates import NearDuplicates
from harness.data.user_files.examples import Examples
from harness.data.user_files.splitting import connected

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """Duplicates and near-duplicates among the rows of a source."""

    kind: str
    exact: Index | None
    """Identifier of each row's content, int64 ``[N]``, or None if rows with equal content are not considered
    duplicates."""
    near: NearDuplicates | None
    """Near-duplicates of images or recordings, or None if there are none."""
    independent: bool
    """True if duplicates are treated as independent rows."""

    @property
    def together(self) -> Index | None:
        """Group of each row, int64 ``[N]``, or None if there are no groups. The rows of a group are kept in the same
        split."""
        groups: Index | None = self.exact if self.near is None else self.near.groups
        if groups is None or self.independent or len(np.unique(groups)) == len(groups):
            return None
        return groups

    def joins(self, groups: NDArray[Any] | None) -> list[str]:
        """Return a warning if some of the groups ``[N]`` specified by the user share duplicate rows."""
        if groups is None or self.together is None:
            return []
        count, joined = len(np.unique(groups)), len(np.unique(connected(groups, self.together)))
        return [
            "groups that share duplicate rows are treated as one group, which reduces the number of groups from "
            f"{count:,} to {joined:,}"
        ] * (joined < count)

    def between(self, parts: Mapping[str, Index]) -> list[str]:
        """Return a warning for each evaluation split that contains near-duplicates of training rows."""
        if self.near is None or self.exact is None:
            return []
        named = {"training" if name == "train" else name: rows for name, rows in parts.items()}
        return near_duplicates.shared(self.near, self.exact, named, self.kind)


def find_duplicates(
    examples: Examples, rows: Sequence[int], decoded: Mapping[str, NDArray[Any]], kind: str
) -> Duplicates:
    """Return the duplicates and near-duplicates among the good `rows`, and add warnings about them to `examples`.

    `decoded` contains the decoded images or recordings of all rows. If this dictionary is empty, near-duplicates are
    not detected.
    """
    independent = examples.options.copies == "independent"
    contents = examples.contents()
    if contents is None:
        return Duplicates(kind, None, None, independent)
    numbers: dict[Hashable, int] = {}
    exact = np.array([numbers.setdefault(contents[row], len(numbers)) for row in rows], np.int64)
    near = None
    media = decoded.get({"image": "image", "audio": "waveform"}.get(kind, ""))
    if media is not None and len(rows):
        rates_hz = decoded["sample_rate_hz"][rows].tolist() if kind == "audio" else ()
        near = near_duplicates.find(kind, [media[row] for row in rows], rates_hz, exact)
    duplicates = Duplicates(kind, exact, near, independent)
    if not independent:
        examples.warnings += _exact_warnings(examples, rows, len(numbers))
        if near is not None:
            labels = None if examples.labels is None else [examples.labels[row] for row in rows]
            examples.warnings += near_duplicates.joined(
                near, exact, [examples.where[row] for row in rows], labels, kind
            )
    return duplicates


def _exact_warnings(examples: Examples, rows: Sequence[int], distinct: int) -> list[str]:
    count = len(rows) - distinct
    if not count:
        return []
    what = "rows are duplicates of other rows" if count > 1 else "rows is a duplicate of another row"
    files = len(rows) - len({examples.bytes_digests[row] for row in rows}) if examples.bytes_digests else count
    encoded = f" ({count - files:,} in another format or with other metadata)" if files < count else ""
    return [f"{count:,} of {len(rows):,} {what}{encoded}"]
