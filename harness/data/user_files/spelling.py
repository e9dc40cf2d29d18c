"""Names that are spelled in several ways, such as the labels of one class."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

Name = TypeVar("Name", str, str | None)

LOOK_ALIKES = str.maketrans(
    "аеорсухіјѕԁһѵАВЕКМНОРСТХІЈЅ" + "αοινρυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" + "‘’“”–—−",  # noqa: RUF001
    "aeopcyxijsdhvABEKMHOPCTXIJS" + "aoivpuxABEZHIKMNOPTYX" + "''\"\"---",
)
"""Cyrillic and Greek letters that look like Latin ones (Unicode Technical Standard 39), and typographic quotes and
dashes."""


def composed(names: Sequence[Name], what: str) -> tuple[list[Name], list[str]]:
    """Return the names in Unicode Normalization Form C, and a warning if this merged different spellings.

    Canonically equivalent strings are the same text (Unicode Standard Annex 15). File systems and keyboards differ in
    the form that they use.
    """
    result: list[Name] = []
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in names:
        if name is None or name.isascii():
            result.append(name)
            continue
        normal = unicodedata.normalize("NFC", name)
        spellings[normal].add(name)
        result.append(normal)
    merged = sorted(normal for normal, found in spellings.items() if len(found) > 1)
    if not merged:
        return result, []
    return result, [f"composed and decomposed spellings of the {what} {_listed(merged)} were merged"]


def lookalikes(names: Sequence[str | None], what: str) -> list[str]:
    """Return a warning if there are names that a person may confuse."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted({name for name in names if name}):
        groups[skeleton(name)].append(name)
    similar = [group for group in groups.values() if len(group) > 1]
    if not similar:
        return []
    shown = "; ".join(" and ".join(map(ascii_or_plain, group)) for group in similar[:3])
    more = f"; and {len(similar) - 3} more" if len(similar) > 3 else ""
    return [f"{what}s that look alike are treated as different: {shown}{more}; correct the data if they are the same"]


def skeleton(name: str) -> str:
    """Return a string that is equal for names that look alike.

    Letter case, invisible characters, the kind and number of spaces, compatibility forms and similar letters of other
    alphabets are ignored, and numbers are compared by value.
    """
    text = unicodedata.normalize("NFKC", name).translate(LOOK_ALIKES).casefold()
    visible = [" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) not in ("Cf", "Cc")]
    text = " ".join("".join(visible).split())
    try:
        return repr(float(text)) if text[:1] in tuple("+-.0123456789") else text
    except ValueError:
        return text


def ascii_or_plain(name: str) -> str:
    """Return a name in quotes, with escape sequences for characters that are invisible or easily confused."""
    plain = name.isascii() or name == unicodedata.normalize("NFKC", name).translate(LOOK_ALIKES)
    visible = name.isprintable() and not any(unicodedata.category(c) == "Cf" for c in name)
    return repr(name) if plain and visible else ascii(name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
