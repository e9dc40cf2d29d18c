"""Collection of the problems with rows and files, which are then reported as one error or skipped."""

from __future__ import annotations

from typing import Literal

from harness.errors import DataError

OnBadRow = Literal["error", "skip"]
NAMED = 5
"""Number of problems that a message lists."""


class Problems:
    """The bad rows of one source, with the first problem of each."""

    def __init__(self, source: str, policy: OnBadRow) -> None:
        self.source, self.policy = source, policy
        self._found: dict[str, str] = {}

    def add(self, where: str, what: str) -> None:
        """Add a problem with the row `where`, which is given as ``row 3 (line 4)`` or as the path of its file."""
        self._found.setdefault(where, what)

    def __contains__(self, where: str) -> bool:
        return where in self._found

    def settle(self, left: int) -> None:
        """Raise `harness.DataError` if there are bad rows that are not to be skipped, or if no good rows are `left`."""
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
        """Return the number of skipped rows and the first few of them, for the record."""
        if not self._found:
            return {"skipped_rows": 0}
        return {"skipped_rows": len(self._found), "skipped": self._first()}

    def _first(self) -> str:
        named = [f"{where}: {what}" for where, what in list(self._found.items())[:NAMED]]
        more = len(self._found) - len(named)
        return "; ".join([*named, *([f"and {more} more"] if more else [])])
