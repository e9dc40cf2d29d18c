"""Limits on the list of members at the end of a zip archive. `zipfile` reads the whole list into memory at once."""

from __future__ import annotations

from typing import BinaryIO

_END_BYTES = 2**16 + 22 + 20 + 56
"""Maximum size of the zip records that follow the list of members (APPNOTE.TXT 6.3.10, sections 4.3.14 to 4.3.16)."""
_ENTRY = b"PK\1\2"
_CHUNK = 2**20


def index_problem(file: BinaryIO, max_bytes: int, max_members: int) -> str:
    """Return the reason why the list of members exceeds the limits, or an empty string if the list can be read.

    A reason is a phrase such as "it has more than 10 members". The members are counted, because the declared number of
    members may be wrong. `zipfile` needs about 500 bytes of memory for each member, even if the member's name and
    content are empty.
    """
    size = index_bytes(file)
    if size > max_bytes:
        return f"the list of members has more than {max_bytes} bytes"
    end = file.seek(0, 2)
    file.seek(max(0, end - size - _END_BYTES))
    count, before = 0, b""
    while count <= max_members and (chunk := file.read(_CHUNK)):
        count += (before + chunk).count(_ENTRY)
        before = chunk[1 - len(_ENTRY) :]
    file.seek(0)
    return f"it has more than {max_members} members" if count > max_members else ""


def index_bytes(file: BinaryIO) -> int:
    """Return the declared size of a zip archive's list of members, in bytes. Return 0 if the file is not an archive.

    If an archive has more than 65,535 members, the size in the ZIP64 record is returned (APPNOTE.TXT 6.3.10, sections
    4.3.14 and 4.3.16).
    """
    file.seek(0, 2)
    end = file.tell()
    file.seek(max(0, end - _END_BYTES))
    tail = file.read()
    file.seek(0)
    declared = [0]
    for mark, offset, width in ((b"PK\5\6", 12, 4), (b"PK\6\6", 40, 8)):
        place = tail.rfind(mark)
        field = tail[place + offset : place + offset + width]
        if place >= 0 and len(field) == width and field != b"\xff" * width:
            declared.append(int.from_bytes(field, "little"))
    return min(max(declared), end)
