"""The result of a check."""

from __future__ import annotations

from msgspec import Struct


class Finding(Struct, frozen=True, kw_only=True):
    """The result of one check of an audit."""

    check: str
    """Name of the check, as a statement that should hold."""
    passed: bool | None
    """True if the statement holds; None if the check could not be made."""
    detail: str
    """Observed values, or the reason why the check could not be made."""
