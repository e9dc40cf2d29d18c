"""Collection of problems with rows and files. Bad rows are either all reported in a single error or skipped."""

from __future__ import annotations

from itertools import groupby
from typing import Literal

from harness.errors import DataError

OnBadRow = Literal["error", "skip"]
NAMED = 5
"""Maximum number of problems listed in a message."""


class TooManyRowsError(DataError):
    """Error for a file with more rows than the reader accepts."""

    def __init__(self, source: str, most: int, what: str = "rows") -> None:
        super().__init__(f"{source}: the file contains more than {most:,} {what}; pass a file with fewer {what}")


class Problems:
    """Bad rows of a single source, and the first problem found in each row."""

    def __init__(self, source: str, policy: OnBadRow) -> None:
        self.source, self.policy = source, policy
        self._found: dict[str, str] = {}

    def add(self, where: str, what: str) -> None:
        """Add a problem. `where` is the position of the row, such as ``row 3 (line 4)``, or the path of its file."""
        self._found.setdefault(where, what)

    def include(self, other: Problems, prefix: str) -> None:
        """Add the problems found in another file. `prefix` is prepended to the position of each problem."""
        for where, what in other._found.items():
            self.add(prefix + where, what)

    def by_position(self) -> dict[str, str]:
        """Return the first problem of each bad row, keyed by the row's position."""
        return dict(self._found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def __contains__(self, where: str) -> bool:
        return where in self._found

    def settle(self, left: int) -> None:
        """Raise `harness.DataError` if there are bad rows that must not be skipped, or if `left`, the number of good
        rows, is 0.
        """
        if self._found and self.policy == "error":
            count = len(self._found)
            rows, them = ("row", "it") if count == 1 else ("rows", "them")
            raise DataError(
                f"{self.source}: {count} bad {rows}: {self._first()}; fix the {rows}, or pass --on-bad-row skip "
                f"(dataset.on_bad_row=skip) to drop {them}"
            )
        if not left:
            raise DataError(
                f"{self.source}: {f'all rows are bad: {self._first()}' if self._found else 'the file has no rows'}"
            )

    def details(self) -> dict[str, bool | int | float | str]:
        """Return the number of skipped rows and a list of the first few, for the run's record."""
        if not self._found:
            return {"skipped_rows": 0}
        return {"skipped_rows": len(self._found), "skipped": self._first()}

    def warnings(self) -> list[str]:
        """Return a warning with the number of skipped rows, if any."""
        count = len(self._found)
        return [f"{count:,} bad {'row was' if count == 1 else 'rows were'} skipped: {self._first()}"] if count else []

    def _first(self) -> str:
        """Return the first few rows with their problems. Rows with the same problem are listed together."""
        rows = list(self._found.items())[:NAMED]
        named = [
            f"{', '.join(where for where, _ in group)}: {what}" for what, group in groupby(rows, key=lambda row: row[1])
        ]
        more = len(self._found) - len(rows)
        return "; ".join([*named, *([f"and {more} more"] if more else [])])
