"""Results of audit checks."""

from __future__ import annotations

from msgspec import Struct


class Finding(Struct, frozen=True, kw_only=True):
    """Result of one audit check."""

    check: str
    """Name of the check, which is the statement that the check verifies."""
    passed: bool | None
    """True if the check passed, False if it failed, or None if it could not be performed."""
    detail: str
    """Observed values, or the reason why the check could not be performed."""
    fields: tuple[str, ...] = ()
    """Fields of the record that the check verifies."""
