"""Normalization of texts with long sequences of combining characters, such as accents.

Unicode normalization sorts each sequence of combining characters. The duration of `unicodedata.normalize` increases
with the square of the length of a sequence. Normalizing a sequence of a few million combining characters takes hours.
Texts in any language have at most 30 consecutive combining characters (Unicode Standard Annex #15, section 13).
"""

from __future__ import annotations

import re
import unicodedata

MAX_MARKS = 200
"""Maximum number of consecutive combining characters that are normalized together."""


def has_many_marks(text: str) -> bool:
    """Return whether a text has more than `MAX_MARKS` consecutive combining characters."""
    return bool(_pieces(text))


def nfc(text: str) -> str:
    """Return a text in Unicode NFC. Sequences of more than `MAX_MARKS` combining characters are divided into parts of
    this length, which are normalized separately."""
    return "".join(unicodedata.normalize("NFC", piece) for piece in _pieces(text) or (text,))


def _pieces(text: str) -> list[str]:
    """Return the parts of a text with many consecutive combining characters, or an empty list for any other text."""
    if len(text) <= MAX_MARKS or text.isascii():
        return []
    marks = re.escape("".join(character for character in set(text) if unicodedata.combining(character)))
    if not marks or not re.search(f"[{marks}]{{{MAX_MARKS + 1}}}", text):
        return []
    return re.findall(f"[^{marks}]*[{marks}]{{0,{MAX_MARKS}}}", text)
