"""Detection of inconsistently spelled names, such as different spellings of a label."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

Name = TypeVar("Name", str, str | None)

LOOK_ALIKES = str.maketrans(
    "аеорсухіјѕԁһѵАВЕКМНОРСТХІЈЅ" + "αοινρυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" + "‘’“”‐‑‒–—−İ",  # noqa: RUF001
    "aeopcyxijsdhvABEKMHOPCTXIJS" + "aoivpuxABEZHIKMNOPTYX" + "''\"\"------I",
)
"""Cyrillic and Greek letters that look like Latin letters (Unicode Technical Standard 39), and typographic quotes and
dashes."""
SELECTORS = re.compile("[\ufe00-\ufe0f]")
"""Invisible characters that select a variant of the preceding character, such as its text or emoji form."""
JOINT = re.compile(r"(?<=\w)[_\s-]+(?=\w)")
"""Pattern that matches the characters between two words."""
TRUTHS = frozenset(
    (
        *("true", "false", "t", "f", "yes", "no", "y", "n", "1", "0", "1.0", "0.0", "on", "off", "wahr", "falsch"),
        *(
            "ja",
            "nein",
            "oui",
            "non",
            "vrai",
            "faux",
            "s\u00ed",
            "si",
            "verdadero",
            "falso",
            "sim",
            "n\u00e3o",
            "\u0434\u0430",
        ),
        *("\u043d\u0435\u0442", "\u662f", "\u5426"),
    )
)
"""Words for "true" and "false" in several languages."""


def composed(names: Sequence[Name], what: str) -> tuple[list[Name], list[str]]:
    """Return the names in Unicode Normalization Form C, and a warning if different spellings were merged by
    normalization.

    Canonically equivalent strings are the same text (Unicode Standard Annex 15). File systems and keyboards use
    different normalization forms.
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
    """Return a warning if some of the names look alike."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted({name for name in names if name}):
        groups[skeleton(name)].append(name)
    similar = [group for group in groups.values() if len(group) > 1]
    if not similar:
        return []
    shown = "; ".join(" and ".join(map(ascii_or_plain, group)) for group in similar[:3])
    more = f"; and {len(similar) - 3} more" if len(similar) > 3 else ""
    return [
        f"{plural(what)} that look alike are treated as different: {shown}{more}; "
        "correct the data if they mean the same thing"
    ]


def plural(what: str) -> str:
    """Return the plural of a description, such as ``label`` or ``category of column 'x'``."""
    noun, *rest = what.split(" of ", 1)
    return " of ".join([f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s", *rest])


def skeleton(name: str) -> str:
    """Return a key that is the same for names that look alike.

    The key does not depend on letter case, invisible characters, the kind and number of spaces, compatibility forms,
    surrounding quotes, trailing periods, or the characters that join words (``_``, ``-`` or a space). Similar letters
    from other alphabets are considered equal, and numbers are compared by value.
    """
    text = visible(unicodedata.normalize("NFKC", name.translate(LOOK_ALIKES)).translate(LOOK_ALIKES).casefold())
    text = SELECTORS.sub("", text)
    quoted = re.fullmatch(r"(['\"])(.+)\1", text)
    text = (quoted[2].strip() if quoted else text).rstrip(".") or text
    try:
        return repr(float(text) + 0.0) if text[:1] in "+-." or text[:1].isdecimal() else JOINT.sub(" ", text)
    except ValueError:
        return JOINT.sub(" ", text)


def visible(text: str) -> str:
    """Remove invisible characters from text, and replace each sequence of blanks with a single space."""
    if not text.isascii() or not text.isprintable():
        text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cf", "Cc"))
    return " ".join(text.split())


def is_invisible(text: str) -> bool:
    """Return whether text is empty or consists only of blanks and invisible characters."""
    return not text or text.isspace() or (not text.isprintable() and not visible(text))


def mixed_truths(names: Sequence[str | None], what: str) -> list[str]:
    """Return a warning if there are more than two names and all of them mean true or false, such as ``true``, ``1`` and
    ``no``.
    """
    words = sorted({name for name in names if name})
    if len(words) < 3 or not {word.casefold() for word in words} <= TRUTHS or len({*map(str.casefold, words)}) < 3:
        return []
    return [
        f"{plural(what)} seem to be spellings of true and false, but are treated as different values: {_listed(words)}"
    ]


def ascii_or_plain(name: str) -> str:
    """Return a name in quotes. Invisible and easily confused characters are replaced by escape sequences."""
    plain = name.isascii() or name == unicodedata.normalize("NFKC", name).translate(LOOK_ALIKES)
    visible = (
        name.isprintable() and not SELECTORS.search(name) and not any(unicodedata.category(c) == "Cf" for c in name)
    )
    return repr(name) if plain and visible else ascii(name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
