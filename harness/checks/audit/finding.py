"""What a check found."""

from __future__ import annotations

from msgspec import Struct


class Finding(Struct, frozen=True, kw_only=True):
    check: str
    passed: bool | None
    """None where it could not be made."""
    detail: str
    """What was seen, or why the check could not be made."""
