"""Tests of reading files in which line numbers are significant."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.lines import read_lines

BOUNDARIES = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r"]
"""Characters at which `str.splitlines` splits, although they do not end a line of a data file."""


@pytest.mark.parametrize("character", BOUNDARIES, ids=lambda character: f"U+{ord(character):04X}")
def test_read_lines_keeps_characters_that_only_python_treats_as_line_ends(tmp_path: Path, character: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(f"[PAD]\n{character}\nword\na{character}b\n".encode())
    assert read_lines(path) == ["[PAD]", character, "word", f"a{character}b"]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\nb\n\n", ["a", "", "b", ""]),
        (b"\xef\xbb\xbfa\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r\nb\n", ["a\r", "b"]),
        (b"\n", [""]),
    ],
)
def test_read_lines_ends_lines_at_line_feeds(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(content)
    assert read_lines(path) == lines


@given(st.lists(st.text(st.characters(exclude_characters="\n\r\ufeff", exclude_categories=["Cs"])), min_size=1))
def test_read_lines_returns_what_was_written(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("lines") / "lines.txt"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    assert read_lines(path) == lines


def test_read_lines_decodes_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"caf\xe9 \x85 1\nb\n")
    assert read_lines(path, "latin-1") == ["caf\u00e9 \x85 1", "b"]
    with pytest.raises(UnicodeDecodeError):
        read_lines(path)
