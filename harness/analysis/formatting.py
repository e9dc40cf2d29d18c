"""How numbers and names are printed, the same in every format."""

from __future__ import annotations


def rounded(value: float, ci95: float | None) -> tuple[str, str]:
    """A mean and its half-width as text: two significant digits of the half-width, and the mean to the same place.

    Without a half-width, or with one of zero, four significant digits; never more than seven.
    """
    if not ci95:
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
    """Decimal exponent of the leading digit once rounded to `digits` significant ones (0.0996 to two is 0.10)."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2]) if value else 0


def _fixed(value: float, place: int) -> str:
    number = round(value, place)
    if not number:
        return "0"
    return f"{number:.{max(place, 0)}f}"


def one_line(text: str, limit: int = 200) -> str:
    """`text` without line breaks and control characters, at most `limit` characters long."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
