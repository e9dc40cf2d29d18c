"""Parsing of numbers in tables. The numbers may have different separators, signs and units."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from harness.data.user_files.spelling import is_invisible

MISSING = frozenset(
    (
        *(
            "",
            "na",
            "n/a",
            "n.a.",
            "#n/a",
            "<na>",
            "nan",
            "nat",
            "null",
            "none",
            "-",
            "--",
            "?",
            ".",
            "\u2013",
            "\u2014",
        ),
        *("(null)", "(none)", "(blank)", "\\n"),
    )
)
"""Words (in lower case) that denote a missing value in a numeric column."""
ERRORS = frozenset(("#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!"))
"""Error values of spreadsheet programs (in lower case), which are neither numbers nor categories."""
BLANKS = " \u00a0\u2009\u202f"
"""Space characters that separate groups of digits: the ordinary, no-break, thin and narrow no-break spaces."""
APOSTROPHES = "'\u2019"
MINUS = "-\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"
"""Signs of negative numbers. Word processors replace hyphens with dashes."""
CURRENCIES = "$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9\u20ba\u20aa\u0e3f\u20ab\u20b4\u20a6\u00a2"
CODES = "USD|EUR|GBP|JPY|CHF|CAD|AUD|CNY|INR|SEK|NOK|DKK|PLN|CZK|BRL|MXN|ZAR|KRW|RUB|TRY|NZD|HKD|SGD"
UNITS = frozenset(
    (
        *(
            "%",
            "\u2030",
            "\u00b0",
            "\u00b0c",
            "\u00b0f",
            "kg",
            "mg",
            "\u00b5g",
            "lb",
            "lbs",
            "oz",
            "km",
            "cm",
            "mm",
            "nm",
        ),
        *("mi", "ft", "in", "yd", "ms", "sec", "min", "mins", "hr", "hrs", "days", "ml", "cl", "dl", "gal", "kb", "mb"),
        *("gb", "tb", "kib", "mib", "gib", "hz", "khz", "mhz", "ghz", "kw", "kwh", "mw", "mph", "kmh", "km/h", "m/s"),
        *(
            "pa",
            "hpa",
            "kpa",
            "bar",
            "psi",
            "kcal",
            "kj",
            "mio",
            "bn",
            "mn",
            "m2",
            "m3",
            "m\u00b2",
            "m\u00b3",
            "k",
            "m",
            "b",
        ),
        *("g", "t", "l", "s", "h"),
    )
)
"""Common units, in lower case."""
LETTER = "[^\\W\\d_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2080-\u2089\u2150-\u215f]"
"""Pattern that matches a letter. Word characters also include superscripts and fractions, such as ``\u00bd``."""
SHAPE = re.compile(
    rf"(?P<open>\()?\s*(?P<sign>[{MINUS}+])?\s*(?P<prefix>[{CURRENCIES}]|[A-Z]{{1,2}}\$|(?:{CODES})(?=[\s\d]))?\s*"
    rf"(?P<inner>[{MINUS}+])?(?P<core>[.,]?\d(?:[\d.,_{BLANKS}{APOSTROPHES}]*\d)?[.,]?)(?P<power>[eE][+-]?\d+)?"
    rf"(?P<gap>[{BLANKS}]*)(?P<suffix>{LETTER}(?:{LETTER})*\.?(?:/(?:{LETTER})+)?[23\u00b2\u00b3]?|[%\u2030]|\u00b0[CFcf]?|"
    rf"[{CURRENCIES}])?(?P<trail>[-\u2212])?\s*(?P<close>\))?"
)
LONGEST = 40
"""Maximum length of text that can be parsed as a number."""


@dataclass(frozen=True)
class Notation:
    """The notation used for the numbers in a column."""

    decimal: str = "."
    thousands: str = ""
    missing: frozenset[str] = MISSING
    """Words that denote a missing value, in lower case."""
    affix: str = ""
    """Currency or unit that precedes or follows each number."""
    signs: bool = False
    """True if negative numbers may be written as ``(5)``, as ``5-``, or with a typographic minus sign or dash."""

    def as_json(self) -> dict[str, Any]:
        """Return the notation as JSON values, which `from_json` reads."""
        missing = sorted(self.missing - MISSING)
        return {
            "decimal": self.decimal,
            "thousands": self.thousands,
            "missing": missing,
            "affix": self.affix,
            "signs": self.signs,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Notation:
        """Create a notation from the output of `as_json`."""
        declared = with_missing(values["missing"], values["decimal"], values["thousands"])
        return replace(declared, affix=values["affix"], signs=values["signs"])

    @cached_property
    def codes(self) -> frozenset[float]:
        """Numbers that the user declared as missing values, which may be written in several ways, such as -99 and
        -99.0."""
        if self.missing is MISSING:
            return frozenset()
        plain = Notation(self.decimal, self.thousands)
        return frozenset(value for word in self.missing if (value := plain.number(word)) is not None and value == value)

    @property
    def is_standard(self) -> bool:
        """True for the default notation, which has a decimal point, no thousands separator and the usual words for
        missing values.
        """
        return self.decimal == "." and not self.thousands and self.missing is MISSING

    def number(self, cell: Any) -> float | None:
        """Return the cell as a number, NaN if it is missing, or None if it is not a number."""
        if isinstance(cell, str):
            if self.is_standard and "_" not in cell:  # plain numbers, which are most common, are parsed faster
                try:
                    return float(cell)
                except ValueError:
                    pass
            value = self._parsed(cell.strip())
            return math.nan if value in self.codes else value
        if isinstance(cell, bool):
            return None
        if isinstance(cell, int | float):
            if cell in self.codes:
                return math.nan
            try:
                return float(cell)
            except OverflowError:  # integers in JSON may be arbitrarily large
                return math.inf if cell > 0 else -math.inf
        if cell is None:
            return math.nan
        try:
            return float(cell)  # such as decimal.Decimal from Parquet files
        except (TypeError, ValueError):
            return None

    def is_missing(self, cell: Any) -> bool:
        """Return whether a cell is empty or contains a word that denotes a missing value."""
        if isinstance(cell, str):
            text = cell.strip()
            is_empty = text.lower() in self.missing or is_invisible(text)
            return is_empty or (bool(self.codes) and self._parsed(text) in self.codes)
        if cell is None or (isinstance(cell, float) and math.isnan(cell)) or _word(cell) in self.missing:
            return True
        return isinstance(cell, int | float) and cell in self.codes

    def _parsed(self, text: str) -> float | None:
        if text.lower() in self.missing or is_invisible(text):
            return math.nan
        value = self._plain(text)
        if value is not None or not (self.affix or self.signs):
            return value
        shape = SHAPE.fullmatch(text)
        if shape is None or not self._fits(shape):
            return None
        size = separated(shape["core"], self.decimal, self.thousands)
        return None if size is None else float(f"{'-' * is_negative(shape)}{size}{shape['power'] or ''}")

    def _fits(self, shape: re.Match[str]) -> bool:
        marks = bool(shape["open"]) + bool(shape["sign"] or shape["inner"]) + bool(shape["trail"])
        if affix(shape) not in ("", self.affix) or bool(shape["open"]) != bool(shape["close"]) or marks > 1:
            return False
        return not (shape["sign"] and shape["inner"])

    def _plain(self, text: str) -> float | None:
        if "_" in text and self.thousands != "_":  # float() accepts 1_000, which is Python syntax
            return None
        if self.decimal != "." or self.thousands:
            found = re.fullmatch(r"([+-]?)(.*?)([eE][+-]?\d+)?", text)
            size = separated(found[2], self.decimal, self.thousands) if found else None
            if found is not None and size is not None:
                return float(f"{found[1]}{size}{found[3] or ''}")
            if any(mark in text for mark in ",._"):
                return None
        try:
            return float(text)
        except ValueError:
            return None


PLAIN = Notation()


def _word(cell: Any) -> str:
    return str(cell).strip().lower()


def separated(digits: str, decimal: str, thousands: str) -> str | None:
    """Return an unsigned number, such as ``1.250,5``, in plain notation, or None if the number contains other
    separators.

    Each group of digits has three digits. In Indian notation, all groups of digits except the last have two.
    """
    same = BLANKS if thousands in BLANKS else APOSTROPHES if thousands in APOSTROPHES else thousands
    mark = f"[{re.escape(same)}]"
    groups = rf"|\d{{1,3}}(?:{mark}\d{{3}})+|\d{{1,2}}(?:{mark}\d\d)+{mark}\d{{3}}" if thousands else ""
    found = re.fullmatch(rf"(\d+{groups})?(?:{re.escape(decimal)}(\d*))?", digits, re.ASCII)
    if found is None or not (found[1] or found[2]):
        return None
    return f"{re.sub('[^0-9]', '', found[1] or '0')}.{found[2] or '0'}"


def affix(shape: re.Match[str]) -> str:
    """Return the currency or unit of a number, or an empty string."""
    return shape["prefix"] or shape["suffix"] or ""


def is_negative(shape: re.Match[str]) -> bool:
    """Return whether a number has a minus sign or is in parentheses, as in accounting."""
    signs = (shape["sign"], shape["inner"], shape["trail"])
    return bool(shape["open"]) or any(sign and sign in MINUS for sign in signs)


@dataclass(frozen=True)
class Finding:
    """Notation of a column in which some numbers are not in plain decimal notation."""

    count: int
    """Number of cells that contain a number, in any notation."""
    odd: int
    """Number of cells with a number that is not in plain decimal notation."""
    example: str
    """First cell with a number that is not in plain decimal notation, such as ``1,000`` or ``5%``."""
    notation: Notation | None = None
    """Notation in which the cells are read, or None if the column is rejected."""
    what: str = ""
    """Description of the notation."""
    of_separators: bool = False
    """True if the column contains numbers with undeclared decimal or thousands separators."""
    options: tuple[tuple[str, str, str], ...] = ()
    """Combinations of decimal and thousands separators that fit all numbers. For each combination, the value of the
    example is also given.
    """


def examined(cells: Iterable[Any], notation: Notation) -> Finding | None:
    """Return the notation of the numbers in a column, or None if every number is in the declared notation.

    A column is unambiguous if all its numbers have the same unit or currency. A column is also unambiguous if only the
    notation of negative numbers differs from the declared notation. Decimal and thousands separators are never guessed.
    """
    texts = Counter(cell.strip() for cell in cells if isinstance(cell, str))
    plain = {}
    for text in list(texts):
        value = notation.number(text)
        if value is not None and (math.isnan(value) or notation.is_missing(text)):
            del texts[text]
        elif value is not None:
            plain[text] = texts[text]
    shapes = {text: shape for text in texts if text not in plain and (shape := _shape(text)) is not None}
    if not shapes:
        return None
    odd, count = sum(texts[text] for text in shapes), sum(texts[t] for t in shapes) + sum(plain.values())
    example = next(iter(shapes))
    found = Finding(count, odd, example)
    affixes = Counter(affix(shape) for shape in shapes.values())
    known = {name: n for name, n in affixes.items() if name}
    cores = [shape["core"] for text in texts if (shape := shapes.get(text) or _shape(text)) is not None]
    if len(known) > 1:
        magnitudes = {name.lower() for name in known} <= {"k", "m", "b"}
        if not all(map(_is_unit, known)) or (
            not magnitudes and all(map(str.isalpha, known)) and max(map(len, known)) < 2
        ):
            return None
        return replace(found, what=f"different units ({', '.join(map(repr, list(known)[:4]))})")
    unit = next(iter(known), "")
    if unit and (plain or affixes[""]):
        united = sum(texts[text] for text, shape in shapes.items() if affix(shape))
        if 2 * united <= count and not _is_unit(unit):
            return None
        return replace(found, what=f"{unit!r} in {united:,} of {count:,} cells")
    read = replace(notation, affix=unit, signs=any(is_negative(shape) for shape in shapes.values()))
    if all(read.number(text) is not None for text in shapes):
        return replace(found, notation=read, what=f"{unit!r}" if unit else "another notation for negative numbers")
    what = "decimal or thousands separators"
    return replace(found, what=what, of_separators=True, options=_readings(cores, shapes[example]))


def _is_unit(name: str) -> bool:
    return name.lower() in UNITS or name[-1] in CURRENCIES or re.fullmatch(CODES, name) is not None


def _shape(text: str) -> re.Match[str] | None:
    if len(text) > LONGEST:
        return None
    shape = SHAPE.fullmatch(text)
    if shape is None or bool(shape["open"]) != bool(shape["close"]):
        return None
    return shape if _readings([shape["core"]], shape) else None


def _readings(cores: Iterable[str], example: re.Match[str]) -> tuple[tuple[str, str, str], ...]:
    """Return the combinations of separators that fit all `cores`, and the value of `example` for each combination."""
    cores = list(cores)
    found: list[tuple[str, str, str]] = []
    for decimal in ".,":
        for thousands in ("", ",", ".", " ", "'", "_"):
            if thousands == decimal:
                continue
            if all(separated(core, decimal, thousands) is not None for core in cores):
                size = separated(example["core"], decimal, thousands)
                value = f"{'-' * is_negative(example)}{size}{example['power'] or ''}"
                if size is not None and not any(value == other[2] for other in found):
                    found.append((decimal, thousands, value))
    return tuple(found)


def with_missing(words: Iterable[str], decimal: str, thousands: str) -> Notation:
    """Return the notation declared by the user."""
    extra = frozenset(_word(word) for word in words)
    return Notation(decimal, thousands, MISSING | extra if extra else MISSING)


def words_for_missing(cells: Iterable[Any], missing: frozenset[str]) -> Mapping[str, int]:
    """Return how often each word for a missing value occurs in the cells."""
    return Counter(cell.strip() for cell in cells if isinstance(cell, str) and cell.strip() and _word(cell) in missing)
