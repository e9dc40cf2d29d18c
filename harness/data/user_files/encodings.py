"""Decoding of text files. If a file is not encoded in UTF-8, an error names the encoding that it seems to have."""

from __future__ import annotations

import codecs
import re

from harness.errors import DataError

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks. The marks of UTF-32 come first, because a mark of UTF-16 is a prefix of one of them."""
GARBLED = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac[\u2122\u0153\u009d\u201c\u201d\u02dc\u00a2\u00a6]")
"""Characters of UTF-8 that were decoded as Windows-1252, such as those of an e with an acute accent or of a dash."""
WESTERN = "windows-1252"
"""Encoding that is suggested for files with single-byte characters.

It agrees with ISO 8859-1 on all printable characters.
"""


def decoded(source: str, data: bytes, encoding: str | None) -> tuple[str, list[str]]:
    """Return the text of a file, and warnings about it.

    Without an `encoding`, the file is UTF-8. If most of its characters beyond ASCII are valid, the other bytes are
    decoded with ``surrogateescape``, so that errors can name the rows with invalid bytes. Otherwise, the file is
    assumed to have another encoding, and `harness.DataError` is raised.
    """
    if encoding is not None:
        text, warnings = _as_declared(source, data, encoding)
    else:
        text, warnings = _as_utf8(source, data), []
    replaced = text.count("\ufffd")
    if replaced:
        warnings.append(
            f"{replaced:,} replacement characters (U+FFFD) mark characters that were lost when the file was written"
        )
    garbled = GARBLED.findall(text)
    if garbled:
        warnings.append(
            f"{len(garbled):,} sequences of characters, such as {garbled[0]!r}, look like UTF-8 that was read in "
            "another encoding and saved again"
        )
    return text.removeprefix("\ufeff"), warnings


def is_utf8(text: str) -> bool:
    """Return whether a string decoded with ``surrogateescape`` was valid UTF-8."""
    return text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text)


def _as_declared(source: str, data: bytes, encoding: str) -> tuple[str, list[str]]:
    name = codecs.lookup(encoding).name
    if data.startswith(codecs.BOM_UTF8) and not name.startswith("utf-8"):
        raise DataError(f"{source}: the file starts with the mark of UTF-8, not {encoding}; remove dataset.encoding")
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, UnicodeError) as error:
        line = data.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise DataError(
            f"{source}: the file is not encoded as {encoding} (dataset.encoding): invalid bytes near line {line}; "
            "state another encoding"
        ) from None
    if not data.isascii() and not name.startswith(("utf", "ascii")):
        try:
            plain = data.decode()
        except UnicodeDecodeError:
            return text, []
        shown = re.search(r"\w*[^\W\x00-\x7f]\w*", plain)
        example = f" (there, {shown[0]!r} is a word)" if shown else ""
        return text, [f"the file was read as {encoding} as declared, but it is also valid UTF-8{example}"]
    return text, []


def _as_utf8(source: str, data: bytes) -> str:
    for mark, name in MARKS:
        if data.startswith(mark):
            raise DataError(_advice(source, f"the file is encoded as {name.upper()}", name))
    unmarked = _unmarked_utf16(data)
    if unmarked is not None:
        raise DataError(_advice(source, "the file seems to be encoded as UTF-16 (every other byte is 0)", unmarked))
    try:
        return data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="surrogateescape")
    invalid = len(re.findall("[\udc80-\udcff]", text))
    valid = len(re.findall("[^\x00-\x7f\udc80-\udcff]", text))
    if valid >= invalid:
        return text
    word = re.search(rb"[\w.-]*[\x80-\xff][\w.\x80-\xff-]*", data)
    assert word is not None
    line = len(re.findall(rb"\r\n|\r|\n", data[: word.start()])) + 1
    problem = f"the file is not encoded as UTF-8: line {line} contains the bytes {_shown(word[0])}"
    try:
        data.decode(WESTERN)
    except UnicodeDecodeError:
        raise DataError(
            f"{source}: {problem}; state its encoding with --encoding (dataset.encoding), or save the file as UTF-8"
        ) from None
    meant = word[0].decode(WESTERN)
    raise DataError(_advice(source, problem, WESTERN, f"if they mean {meant[:30]!r}, "))


def _advice(source: str, problem: str, name: str, condition: str = "") -> str:
    other = ", otherwise state its encoding" if condition else ""
    advice = f"pass --encoding {name} (dataset.encoding){other}, or save the file as UTF-8"
    return f"{source}: {problem}; {condition}{advice}"


def _unmarked_utf16(data: bytes) -> str | None:
    """Return the variant of UTF-16 if most even or most odd bytes are 0, as in Western text without a mark."""
    sample = data[:4096]
    half = max(1, len(sample) // 2)
    even, odd = sample[::2].count(0) / half, sample[1::2].count(0) / half
    if odd > 0.5 and even < 0.1:
        return "utf-16-le"
    return "utf-16-be" if even > 0.5 and odd < 0.1 else None


def _shown(data: bytes) -> str:
    return repr(data[:30])
