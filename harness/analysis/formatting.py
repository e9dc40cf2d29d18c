"""Formatting of numbers and names, shared by all report formats."""

from __future__ import annotations


def rounded(value: float, ci95: float | None) -> tuple[str, str]:
    """Return a mean and the half-width of its interval as strings.

    The half-width is rounded to two significant digits, and the mean to the same decimal place. No number has more than
    seven significant digits. If the half-width is missing or rounds to zero, the second string is empty and the mean is
    rounded to four significant digits.
    """
    if ci95 is not None and not round(ci95, 6 - _exponent(max(abs(value), ci95), 7)):
        ci95 = None
    if ci95 is None:
        digits = 4
        place = digits - 1 - _exponent(value, digits)
    else:
        place = 1 - _exponent(ci95, 2)
        place = min(place, 6 - _exponent(max(abs(value), ci95), 7))
    if value and not 1e-4 <= max(abs(value), ci95 or 0) < 1e9:
        power = _exponent(max(abs(value), ci95 or 0), 7)
        digits_after = max(place + power, 0)
        return f"{value:.{digits_after}e}", "" if ci95 is None else f"{ci95:.1e}"
    return _fixed(value, place), "" if ci95 is None else _fixed(ci95, place)


def _exponent(value: float, digits: int) -> int:
    """Return the decimal exponent of `value` after rounding to `digits` digits. For example, 0.0996 rounds to 0.10."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2]) if value else 0


def _fixed(value: float, place: int) -> str:
    number = round(value, place)
    if not number:
        return "0"
    return f"{number:.{max(place, 0)}f}"


def short_commit(commit: str) -> str:
    """Return the first 12 characters of a commit's hash, followed by ``+dirty`` if there were uncommitted changes."""
    digest, plus, suffix = commit.partition("+")
    return f"{digest[:12]}{plus}{suffix}"


def one_line(text: str, limit: int = 200) -> str:
    """Return `text` without line breaks and control characters, truncated to `limit` characters."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
