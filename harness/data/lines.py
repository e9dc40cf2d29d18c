"""Reading of text files whose line numbers must be preserved."""

from __future__ import annotations

from pathlib import Path


def read_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    r"""Return the lines of a text file, without their line endings.

    The text is split at ``\n``, or at ``\r\n`` if every line ends with it. A leading byte order mark is removed. Other
    line boundaries of `str.splitlines`, such as U+2028 and U+0085, do not end a line. The vocabularies of published
    checkpoints contain line boundary characters as tokens. Splitting the text at these characters would shift the ids
    of all later tokens.

    Parameters
    ----------
    path : Path
        Path of the file.
    encoding : str, default="utf-8"
        Encoding of the file.

    Returns
    -------
    list of str
        The lines. The last line of the file may or may not end with ``\n``.

    Raises
    ------
    OSError
        If the file cannot be read.
    UnicodeDecodeError
        If the file is not encoded in `encoding`.
    """
    lines = path.read_bytes().decode(encoding).removeprefix("\ufeff").split("\n")
    if lines[-1] == "":
        del lines[-1]
    if lines and all(line.endswith("\r") for line in lines):
        lines = [line[:-1] for line in lines]
    return lines
