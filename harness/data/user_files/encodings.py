"""Decoding of text files. Error messages suggest an encoding for files that are not UTF-8."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from harness.errors import DataError

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks. UTF-32 must be listed first, because its byte order mark starts with the mark of UTF-16."""
MARK = "\ufeff"
SURROGATE = re.compile("[\ud800-\udfff]")
INCOMPLETE = "an incomplete character (a lone surrogate)"
GARBLED = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac[\u2122\u0153\u009d\u201c\u201d\u02dc\u00a2\u00a6]")
"""Typical results of decoding UTF-8 as Windows-1252, such as two characters in place of an accented letter."""
COMMON = (
    *(
        "windows-1252",
        "windows-1250",
        "iso-8859-2",
        "windows-1251",
        "koi8-r",
        "iso-8859-5",
        "windows-1253",
        "windows-1254",
    ),
    *(
        "windows-1255",
        "windows-1256",
        "shift_jis",
        "euc_jp",
        "gb18030",
        "big5",
        "cp949",
        "mac-roman",
        "cp850",
        "cp866",
        "mac-cyrillic",
    ),
)
"""Encodings to suggest, in order of preference. Windows-1252 and ISO 8859-1 have the same printable characters, and GB
18030 includes GBK and GB 2312.
"""
PLAUSIBLE, WRONG = 0.9, 0.5
"""Minimum fraction of legible words to suggest an encoding, and minimum fraction of legible words to accept the
declared encoding without a warning.
"""
SHOWN = 8
"""Number of encodings to suggest in a message."""
SAMPLE_BYTES = 200_000
WORD = re.compile(r"[^\x00-\x40\x5b-\x60\x7b-\x7f]+")
PUNCTUATION = re.compile(
    "[\u00a0\u00a1\u00a3\u00a7\u00ab\u00b0\u00bb\u00bf\u2013\u2014\u2018-\u201e\u2026\u20ac"
    "\u3000-\u3003\u3008-\u3011\uff01-\uff0f\uff1a-\uff20]"
)


def decoded(source: str, data: bytes, encoding: str | None) -> tuple[str, list[str]]:
    """Return the text of a file, and warnings about it.

    If `encoding` is None, UTF-8 is assumed. If most non-ASCII characters are valid UTF-8, the remaining bytes are
    decoded with ``surrogateescape``. Error messages can then identify the rows with invalid bytes. If fewer characters
    are valid, `harness.DataError` is raised, because the file probably has another encoding.
    """
    if encoding is not None:
        text, warnings = _as_declared(source, data, encoding)
    else:
        text, warnings = _as_utf8(source, data), []
    replaced = text.count("\ufffd")
    if replaced:
        warnings.append(
            f"the file contains {replaced:,} replacement characters (U+FFFD) for characters that were lost "
            "when it was written"
        )
    garbled = GARBLED.findall(text)
    if garbled:
        warnings.append(
            f"{len(garbled):,} sequences of characters, such as {garbled[0]!r}, look like UTF-8 that was read in "
            "another encoding and saved again"
        )
    text = text.removeprefix(MARK)
    if MARK in text:
        warnings.append(
            f"the file contains {text.count(MARK):,} byte order marks (U+FEFF) after its start, as if files "
            "had been joined; those at the start of lines were ignored"
        )
        text = re.sub("(?m)^\ufeff+", "", text)
    return text, warnings


def is_utf8(text: str) -> bool:
    """Return whether a string decoded with ``surrogateescape`` was valid UTF-8."""
    return text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text)


def is_encodable(text: str) -> bool:
    """Return whether a string can be encoded as UTF-8, which is impossible for half of a surrogate pair."""
    return text.isascii() or SURROGATE.search(text) is None


def encodable(text: str) -> str:
    """Return a string in which halves of surrogate pairs are replaced with escape sequences, such as ``\\ud800``."""
    return text if is_encodable(text) else text.encode("utf-8", "backslashreplace").decode()


def _as_declared(source: str, data: bytes, encoding: str) -> tuple[str, list[str]]:
    name = codecs.lookup(encoding).name
    if data.startswith(codecs.BOM_UTF8) and not name.startswith("utf-8"):
        raise DataError(
            f"{source}: the file starts with the byte order mark of UTF-8, not of {encoding}; "
            "pass --encoding utf-8 (dataset.encoding)"
        )
    try:
        text = data.decode(encoding)
    except (UnicodeDecodeError, UnicodeError) as error:
        line = data.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise DataError(
            f"{source}: the file is not encoded as {encoding} (dataset.encoding): invalid bytes near line {line}; "
            "specify another encoding"
        ) from None
    if not data.isascii() and not name.startswith(("utf", "ascii")):
        try:
            plain = data.decode()
        except UnicodeDecodeError:
            return text, _doubts(data, encoding)
        shown = re.search(r"\w*[^\W\x00-\x7f]\w*", plain)
        example = f" (with words such as {shown[0]!r})" if shown else ""
        return text, [f"the file was read as {encoding}, as declared, but it is also valid UTF-8{example}"]
    return text, []


def _doubts(data: bytes, encoding: str) -> list[str]:
    """Return a warning if most words are illegible in the declared encoding, but legible in another encoding."""
    sample = _sample(data)
    other = next(iter(candidates(sample)), None)
    if other is None or _legible(sample.decode(encoding, "replace")) >= WRONG:
        return []
    word = _telling_word(sample, [encoding, other])
    return [
        f"the file was read as {encoding}, as declared, but looks like {other} (for example, "
        f"{word.decode(encoding, 'replace')[:30]!r} would be {word.decode(other, 'replace')[:30]!r})"
    ]


def candidates(sample: bytes) -> list[str]:
    """Return the common encodings in which nearly all words are legible, starting with the best one.

    If several encodings decode the sample to the same text, only the first is returned.
    """
    found: dict[str, tuple[float, str]] = {}
    for name in COMMON:
        try:
            text = sample.decode(name)
        except UnicodeDecodeError:
            continue
        share = _legible(text)
        if share >= PLAUSIBLE:
            found.setdefault(text, (-share, name))
    return [name for _, name in sorted(found.values(), key=lambda item: item[0])]


def _legible(text: str) -> float:
    """Return the fraction of non-ASCII words that look like words in a single script."""
    words = [word for word in set(WORD.findall(text)) if not word.isascii()]
    return sum(map(_is_word, words)) / len(words) if words else 0.0


def _is_word(word: str) -> bool:
    letters = PUNCTUATION.sub("", word)
    if not all(unicodedata.category(character)[0] in "LM" for character in letters):
        return False
    scripts = {unicodedata.name(character, "").split()[0] for character in letters}
    if scripts & {"CJK", "HIRAGANA", "KATAKANA", "FULLWIDTH", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"}:
        return not scripts & {"LATIN", "HALFWIDTH", "CYRILLIC", "GREEK", "HANGUL"}
    return len(scripts) < 2 and not any(a.islower() and b.isupper() for a, b in pairwise(letters))


def _sample(data: bytes) -> bytes:
    """Return the first lines that contain non-ASCII bytes."""
    lines = (line for line in data.split(b"\n") if not line.isascii())
    found, size = [], 0
    for line in lines:
        found.append(line)
        size += len(line)
        if size > SAMPLE_BYTES:
            break
    return b"\n".join(found)


def _telling_word(sample: bytes, names: Sequence[str]) -> bytes:
    """Return the word that decodes to the largest number of different strings. If there is a tie, the first of these
    words is returned.
    """
    words = [word for word in dict.fromkeys(re.split(rb'[\s,;"]+', sample)) if not word.isascii()][:1000]
    return max(words, key=lambda word: len({word.decode(name, "replace") for name in names}))


def _as_utf8(source: str, data: bytes) -> str:
    for mark, name in MARKS:
        if data.startswith(mark):
            raise DataError(_advice(source, f"the file is encoded as {name.upper()}", name))
    unmarked = _unmarked_utf16(data)
    if unmarked is not None:
        raise DataError(_advice(source, "the file seems to be encoded as UTF-16 (every other byte is 0)", unmarked))
    if data.isascii() and re.search(rb"\x1b\$[@B]", data):
        raise DataError(_advice(source, "the file contains escape sequences of ISO 2022", "iso2022_jp"))
    try:
        return data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="surrogateescape")
    invalid = len(re.findall("[\udc80-\udcff]", text))
    valid = len(re.findall("[^\x00-\x7f\udc80-\udcff]", text))
    if valid >= invalid:
        return text
    sample = _sample(data)
    names = candidates(sample)
    word = _telling_word(sample, names)
    line = len(re.findall(rb"\r\n|\r|\n", data[: data.index(word)])) + 1
    problem = f"the file is not encoded as UTF-8: line {line} contains the bytes {word[:30]!r}"
    meant: dict[str, str] = {}
    for name in names:
        meant.setdefault(word.decode(name, "replace")[:30], name)
    if not meant:
        raise DataError(
            f"{source}: {problem}; specify its encoding with --encoding (dataset.encoding), or save the file as UTF-8"
        )
    (first, name), *others = list(meant.items())[:SHOWN]
    other = "".join(f", {name} if the bytes represent {text!r}" for text, name in others)
    raise DataError(
        f"{source}: {problem}; pass --encoding {name} (dataset.encoding) if the bytes represent "
        f"{first!r}{other}; otherwise, specify the encoding of the file, or save the file as UTF-8"
    )


def _advice(source: str, problem: str, name: str) -> str:
    return f"{source}: {problem}; pass --encoding {name} (dataset.encoding), or save the file as UTF-8"


def _unmarked_utf16(data: bytes) -> str | None:
    """Return the UTF-16 encoding of a file without a byte order mark, or None if the file is not in UTF-16.

    In a UTF-16 file, one byte of each ASCII character is zero, so zero bytes occur only at even positions or only at
    odd positions.
    """
    sample = data[: SAMPLE_BYTES // 2 * 2]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    for name, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros < 2 or others > zeros // 100:
            continue
        lines = sample.decode(name, "replace")
        if "\n" in lines and "\ufffd" not in lines[:-1]:
            return name
    return None
