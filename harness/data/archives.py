"""Safe extraction of archives. Only regular files inside the target folder are written, up to a maximum total size."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, cast

from harness.errors import DataError, HarnessError
from harness.records.zip_index import index_problem

EXPANSION = 200
"""Maximum ratio of extracted size to archive size. The ratio rarely exceeds 20 for text, but it can reach 1000 for a
decompression bomb.
"""
MIN_LIMIT_BYTES = 64 * 2**20
"""Maximum extracted size, in bytes, of archives that are accepted regardless of their compression ratio."""
MAX_MEMBERS = 1_000_000
MAX_INDEX_BYTES = 2**28
"""Maximum size of a zip archive's list of members. `zipfile` reads the whole list into memory."""
MAX_HEADER_BYTES = 2**24
"""Maximum size of a member's header in a tar archive. `tarfile` reads the whole header into memory."""
MAX_DICTIONARY_BYTES = 2**28
"""Maximum memory for xz and lzma decompression. ``xz -9`` needs 65 MiB, but the format allows up to 4 GiB."""
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
"""Supported compression methods for the members of zip archives. All of these methods need little memory."""
_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)$", re.IGNORECASE)
_CHUNK = 1 << 20

Entry = tuple[str, str, Callable[[], "IO[bytes]"]]
"""Name of an archive member, its type (``file``, ``directory``, ``link`` or ``device``), and a function that opens it.
Links and devices are rejected."""


def extract(archive: Path, name: str, into: Path, wanted: dict[str, str]) -> dict[str, str]:
    """Extract the archive into the empty folder `into` and return a mapping from file paths to SHA-256 digests (hex).

    `name` is the publisher's file name. Its suffix determines the format: zip, tar (uncompressed, gz, bz2 or xz) or a
    single gz file. If `wanted` is not empty (see `harness.RemoteFile.members`), only the members listed in it are
    written, and their digests must match.

    Raises `harness.DataError` if the archive is damaged or unsafe, or if a member is missing or has the wrong digest.
    An archive is unsafe if a member's name points outside the folder, if a member is not a file or folder, if two
    members have the same name, or if the extracted data are implausibly large.
    """
    with _as_data_errors(archive), _entries(archive, name) as entries:
        limit = _limit(archive)
        found: dict[str, str] = {}
        for count, (member, kind, open_member) in enumerate(entries, start=1):
            if count > MAX_MEMBERS:
                raise DataError(f"archive rejected: it has more than {MAX_MEMBERS} members")
            if wanted and not any(_matches(member, key) for key in wanted):
                continue
            target = into.joinpath(*_safe_parts(member))
            if kind == "directory":
                target.mkdir(parents=True, exist_ok=True)
                continue
            if kind != "file":
                raise DataError(
                    f"archive rejected: the member {member!r} is a {kind}; only files and folders are extracted"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as source:
                written, digest = _copy(source, target, limit)
            limit -= written
            found[target.relative_to(into).as_posix()] = digest
    _check_members(found, wanted)
    if not found:
        raise DataError("the archive contains no files")
    return found


def _limit(archive: Path) -> int:
    return max(MIN_LIMIT_BYTES, EXPANSION * archive.stat().st_size)


def sha256(path: Path) -> str:
    """Return the SHA-256 digest (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: IO[bytes], target: Path, limit: int) -> tuple[int, str]:
    digest, written = hashlib.sha256(), 0
    with target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > limit:
                raise DataError(
                    f"archive rejected: it expands to more than {EXPANSION} times its size, and may be a decompression "
                    "bomb"
                )
            digest.update(chunk)
            file.write(chunk)
    return written, digest.hexdigest()


def _safe_parts(member: str) -> list[str]:
    """Return the components of a member's path. Raises `harness.DataError` if the path points outside the folder."""
    parts = member.removesuffix("/").split("/")
    while parts[0] == "." and len(parts) > 1:  # tar stores names such as ./name
        parts = parts[1:]
    drive = re.match(r"[A-Za-z]:", member)
    if drive or "\\" in member or "\0" in member or any(part in ("", "..") for part in parts):
        raise DataError(f"archive rejected: the path of the member {member!r} may lead outside the dataset's folder")
    return [part for part in parts if part != "."]


def _matches(member: str, key: str) -> bool:
    name = member.removeprefix("./")
    return fnmatchcase(name, key) if _is_pattern(key) else name == key


def _is_pattern(key: str) -> bool:
    return any(character in key for character in "*?[")


def _check_members(found: dict[str, str], wanted: dict[str, str]) -> None:
    for key, expected in wanted.items():
        matching = sorted(name for name in found if _matches(name, key))
        if not matching:
            raise DataError(f"the archive has no member {key!r}")
        if _is_pattern(key):
            listing = "".join(f"{found[name]}  {name}\n" for name in matching)
            actual = hashlib.sha256(listing.encode()).hexdigest()
            subject = f"the list of the {len(matching)} members that match {key!r}"
        else:
            actual, subject = found[key], f"the member {key!r}"
        if actual != expected.lower():
            raise DataError(f"{subject} has SHA-256 {actual}, expected {expected}")


@contextmanager
def _as_data_errors(archive: Path) -> Iterator[None]:
    """Convert exceptions that the standard library raises for damaged archives to `harness.DataError`."""
    try:
        yield
    except FileExistsError as error:
        raise DataError(f"archive rejected: two members are named {Path(error.filename).name!r}") from error
    except (NotADirectoryError, IsADirectoryError) as error:
        raise DataError(f"archive rejected: {Path(error.filename).name!r} is both a file and a folder") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO):
            raise
        raise DataError(f"the archive is damaged: {error}") from error  # gzip and bz2 raise OSError without errno
    except (RuntimeError, NotImplementedError) as error:  # zipfile does not support encryption and rare compressions
        raise DataError(f"the archive cannot be extracted: {error}") from error
    except (HarnessError, MemoryError):
        raise
    except Exception as error:  # zipfile and tarfile raise many types of exceptions for damaged archives
        raise DataError(f"the archive is damaged: {error}") from error


@contextmanager
def _entries(archive: Path, name: str) -> Iterator[Iterator[Entry]]:
    if name.lower().endswith(".zip"):
        with archive.open("rb") as file:
            if problem := index_problem(file, MAX_INDEX_BYTES, MAX_MEMBERS):
                raise DataError(f"archive rejected: {problem}")
            with zipfile.ZipFile(file) as zipped:
                yield _zip_entries(zipped)
    elif _TAR.search(name):
        limit = _limit(archive) + _TAR_OVERHEAD_BYTES
        with _decompressed(archive) as content:
            bounded = cast("IO[bytes]", _Bounded(content, limit))
            with tarfile.open(fileobj=bounded, mode="r:") as tar:
                yield _tar_entries(tar)
    elif name.lower().endswith(".gz"):
        yield iter([(name[:-3], "file", lambda: cast("IO[bytes]", gzip.GzipFile(archive)))])
    else:
        raise DataError(
            f"cannot extract {name!r}: the supported archive formats are zip, tar, tar.gz, tar.bz2, tar.xz and gz"
        )


_TAR_OVERHEAD_BYTES = 2 * 512 * MAX_MEMBERS
"""Maximum overhead of a tar archive, in bytes. The overhead consists of a header and padding for each member."""


class _Xz(io.RawIOBase):
    """Content of an xz or lzma file, decompressed with a memory limit. `lzma.open` does not support a memory limit."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self._decompressor: lzma.LZMADecompressor | None = None
        self._unread, self._position = b"", 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = 0) -> int:
        if whence:
            raise io.UnsupportedOperation("seek supports absolute positions only")
        if position < self._position:
            self._restart()
        skipped = memoryview(bytearray(min(_CHUNK, position - self._position)))
        while self._position < position and self.readinto(skipped[: position - self._position]):
            pass
        return self._position

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._decompressor is None or self._decompressor.eof:  # a file may consist of several streams
                rest = self._decompressor.unused_data if self._decompressor else self._unread
                rest = (rest or self._file.read(_CHUNK)).lstrip(b"\0")  # remove the padding between streams
                if not rest and self._file.peek(1) == b"":
                    return 0
                if not rest:
                    continue
                self._decompressor, self._unread = lzma.LZMADecompressor(memlimit=MAX_DICTIONARY_BYTES), rest
            elif self._decompressor.needs_input and not self._unread:
                self._unread = self._file.read(_CHUNK)
                if not self._unread:
                    raise EOFError("the compressed file ends before its end-of-stream marker")
            data, self._unread = self._decompressor.decompress(self._unread, len(buffer)), b""
            if data:
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _open_xz(path: Path) -> IO[bytes]:
    return io.BufferedReader(_Xz(path), _CHUNK)


_OPENERS: tuple[tuple[bytes, Callable[[Path], Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ", _open_xz),
    (b"\x5d\x00\x00", _open_xz),
)
"""Leading bytes of each compression format, and the function that opens files in that format."""


def _decompressed(archive: Path) -> IO[bytes]:
    with archive.open("rb") as file:
        start = file.read(8)
    opener = next((opener for magic, opener in _OPENERS if start.startswith(magic)), None)
    return cast("IO[bytes]", archive.open("rb") if opener is None else opener(archive))


class _Bounded:
    """Contents of a tar archive, with limits on the position and on the size of each read.

    The read limit is needed because `tarfile` reads a whole header into memory, regardless of its declared size. The
    contents of members are read in smaller chunks.
    """

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._limit = file, limit

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise DataError(f"archive rejected: a header has {size} bytes; the limit is {MAX_HEADER_BYTES}")
        data = self._file.read(size)
        self._check(self._file.tell())
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        self._check(position)
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()

    def _check(self, position: int) -> None:
        if position > self._limit:
            raise DataError(
                f"archive rejected: it expands to more than {EXPANSION} times its size, and may be a decompression bomb"
            )


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[Entry]:
    for info in archive.infolist():
        mode = info.external_attr >> 16  # the mode is 0 if the archive was not created on Unix
        if info.filename.endswith("/"):  # ZipInfo.is_dir() raises for an empty name
            kind = "directory"
        elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
            kind = "file"
        else:
            kind = "link" if stat.S_ISLNK(mode) else "device"

        def open_member(info: zipfile.ZipInfo = info) -> IO[bytes]:
            if info.compress_type not in _COMPRESSIONS:
                raise DataError(
                    f"archive rejected: the member {info.filename!r} uses compression method {info.compress_type}; "
                    "only stored, deflated and bzip2 members are extracted"
                )
            return archive.open(info)

        yield info.orig_filename.replace("\0", "\\0"), kind, open_member


def _tar_entries(archive: tarfile.TarFile) -> Iterator[Entry]:
    for info in archive:
        if info.isdir():
            kind = "directory"
        elif info.isreg():
            kind = "file"
        else:
            kind = "link" if info.issym() or info.islnk() else "device"

        def open_member(info: tarfile.TarInfo = info) -> IO[bytes]:
            file = archive.extractfile(info)
            assert file is not None  # extractfile() returns None only for special files
            return file

        yield info.name, kind, open_member
