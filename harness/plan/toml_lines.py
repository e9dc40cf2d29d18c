"""Line numbers of keys and array elements in a TOML file.

The line numbers are used in error messages. `tomllib` does not provide line numbers.
"""

from __future__ import annotations

import bisect
import re
import tomllib
from typing import Any

Place = tuple[str | int, ...]
"""Keys and array positions that lead to a value, such as ``("run", 0, "seed", 1)``."""

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
)
_KEY = re.compile(r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[ \t.])+""")
_SCALAR = re.compile(r"[^,\]}\n#]+")


def lines_of(text: str) -> dict[Place, int]:
    """Return the 1-based line number of each table, key and array element in a valid TOML document.

    The result is unspecified for a document that `tomllib` rejects.
    """
    return _Scanner(text.replace("\r\n", "\n")).document()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._found: dict[Place, int] = {}
        self._tables: dict[Place, int] = {}
        """Number of elements in each array of tables."""

    def document(self) -> dict[Place, int]:
        table: Place = ()
        while self._skip():
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
        return self._found

    def _skip(self) -> bool:
        """Skip whitespace and comments. Return False at the end of the text."""
        self._at = self._match(_SPACE)
        return self._at < len(self._text)

    def _match(self, pattern: re.Pattern[str]) -> int:
        """Return the end of a pattern's match at the current position.

        If there is no match, return the current position.
        """
        found = pattern.match(self._text, self._at)
        return found.end() if found else self._at

    def _note(self, place: Place) -> None:
        line = bisect.bisect_left(self._ends, self._at) + 1
        for length in range(1, len(place) + 1):  # A dotted key also defines the tables that contain it.
            self._found.setdefault(place[:length], line)

    def _header(self) -> Place:
        """Read ``[table]`` or ``[[array of tables]]`` and return the path of the table."""
        start = self._at
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        *parents, last = self._key()
        place: Place = ()
        for key in parents:
            place = self._last_element((*place, key))
        place = (*place, last)
        if is_array:
            self._tables[place] = self._tables.get(place, -1) + 1
            place = (*place, self._tables[place])
        end, self._at = self._at, start
        self._note(place)
        self._at = end + (2 if is_array else 1)
        return place

    def _last_element(self, place: Place) -> Place:
        return (*place, self._tables[place]) if place in self._tables else place

    def _key(self) -> list[str]:
        end = self._match(_KEY)
        nested: Any = tomllib.loads(f"{self._text[self._at : end]} = 0")
        self._at = end
        parts = []
        while isinstance(nested, dict):
            ((part, nested),) = nested.items()
            parts.append(part)
        return parts

    def _pair(self, table: Place) -> None:
        start = self._at
        place = (*table, *self._key())
        end, self._at = self._at, start
        self._note(place)
        self._at = end + 1  # Skip the equals sign.
        self._skip()
        self._value(place)

    def _value(self, place: Place) -> None:
        opening = self._text[self._at : self._at + 1]
        if opening == "[":
            self._list(place, "]")
        elif opening == "{":
            self._list(place, "}")
        else:
            self._at = self._match(_STRING if opening in ('"', "'") else _SCALAR)

    def _list(self, place: Place, closing: str) -> None:
        """Read an array or, if `closing` is a brace, an inline table."""
        self._at += 1
        number = 0
        while self._skip() and not self._text.startswith(closing, self._at):
            if closing == "}":
                self._pair(place)
            else:
                self._note((*place, number))
                self._value((*place, number))
                number += 1
            self._skip()
            if self._text.startswith(",", self._at):
                self._at += 1
        self._at += 1
