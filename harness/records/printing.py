"""Print text from untrusted sources, such as class labels, file names and logs, to terminals."""

from __future__ import annotations

import sys

_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the direction of text. A terminal would display text with these characters in a different
order (Unicode, UAX #9)."""
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
"""Control characters (Unicode category Cc), which can start escape sequences, move the cursor or ring the bell."""
REPLACEMENT = "\ufffd"
_CLEAN = (
    dict.fromkeys((*_CONTROLS, *map(ord, _BIDI)), REPLACEMENT)
    | {ord("\n"): "\n", ord("\t"): " "}
    | dict.fromkeys(range(0xD800, 0xE000), REPLACEMENT)  # surrogate code points, which cannot be encoded
)
_ESCAPED = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *map(ord, _BIDI), 0x2028, 0x2029)}


def clean(text: str) -> str:
    """Return `text` with control characters and direction marks replaced, so that printing it is safe.

    Line feeds are kept, and tabs are replaced by spaces.
    """
    return text.replace("\r\n", "\n").translate(_CLEAN)


def escape_json(text: str) -> str:
    """Replace control characters and direction marks in JSON with equivalent escape sequences."""
    return text.translate(_ESCAPED)


def show(text: str) -> None:
    """Print text to stdout."""
    print(clean(text))


def note(text: str) -> None:
    """Print a message to stderr, on a line that starts with the program's name."""
    print(clean(f"harness: {text}"), file=sys.stderr, flush=True)
