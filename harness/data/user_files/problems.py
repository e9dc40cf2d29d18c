"""What is wrong with rows and files: collected, then either an error that names the first few, or a count."""

from __future__ import annotations

from typing import Literal

from harness.errors import DataError

OnBadRow = Literal["error", "skip"]
NAMED = 5
"""So many problems are named."""


class Problems:
    """The bad rows of one source. A row counts once, however much is wrong with it."""

    def __init__(self, source: str, policy: OnBadRow) -> None:
        self.source, self.policy = source, policy
        self._found: dict[str, str] = {}

    def add(self, where: str, what: str) -> None:
        """`where`: ``row 3 (line 4)`` or the path of a file."""
        self._found.setdefault(where, what)

    def __contains__(self, where: str) -> bool:
        return where in self._found

    def settle(self, left: int) -> None:
        """Raise `harness.DataError` if there are bad rows and they are not to be skipped, or if none is `left`."""
        if self._found and self.policy == "error":
            count = len(self._found)
            one = count == 1
            raise DataError(
                f"{self.source}: {count} bad row{'' if one else 's'}: {self._first()}; mend {'it' if one else 'them'}, "
                f"or leave {'it' if one else 'them'} out with --on-bad-row skip (dataset.on_bad_row=skip)"
            )
        if not left:
            raise DataError(f"{self.source}: {f'no row is left: {self._first()}' if self._found else 'it has no rows'}")

    def details(self) -> dict[str, bool | int | float | str]:
        """For the record: how many rows were skipped, and the first few."""
        if not self._found:
            return {"skipped_rows": 0}
        return {"skipped_rows": len(self._found), "skipped": self._first()}

    def _first(self) -> str:
        named = [f"{where}: {what}" for where, what in list(self._found.items())[:NAMED]]
        more = len(self._found) - len(named)
        return "; ".join([*named, *([f"and {more} more"] if more else [])])
