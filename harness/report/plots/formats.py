"""The file formats of plots."""

from __future__ import annotations

from harness.errors import UsageError

FORMATS = (".svg", ".png", ".pdf", ".html", ".json")
"""File name suffixes of the available plot formats."""


def check_suffix(suffix: str) -> None:
    """Raise `harness.UsageError` if plots cannot be written to a file with this suffix."""
    if suffix not in FORMATS:
        raise UsageError(f"unknown plot format {suffix!r}; use an output file that ends in {', '.join(FORMATS)}")
