"""Detection of characters that control a terminal."""

from __future__ import annotations

import unicodedata


def harmful(text: str) -> list[str]:
    """Return the characters of a text that control a terminal: category Cc, except line feeds, and bidi controls."""
    formats = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    return [
        character
        for character in text
        if (unicodedata.category(character) == "Cc" and character != "\n")
        or unicodedata.bidirectional(character) in formats
        or character in "\u200e\u200f\u061c"
    ]
