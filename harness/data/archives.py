"""Archives opened with distrust: regular files inside the folder, no more bytes than an honest archive holds."""

from __future__ import annotations

import errno
import gzip
import hashlib
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, cast

from harness.errors import DataError

EXPANSION = 200
"""How many times its own size an archive may hold; text rarely compresses beyond 20, a bomb of deflate reaches 1000."""
LEAST_LIMIT_BYTES = 64 * 2**20
"""What any archive may hold, however small it is."""
MAX_MEMBERS = 1_000_000
_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)$", re.IGNORECASE)
_CHUNK = 1 << 20

Entry = tuple[str, str, Callable[[], "IO[bytes]"]]
"""Name, kind (``file``, ``directory`` or the name of what is refused), and how its bytes are read."""


def extract(archive: Path, name: str, into: Path, wanted: dict[str, str]) -> dict[str, str]:
    """Write what the archive holds into the empty folder `into`; returns path -> SHA-256 (hex) of each file.

    `name`, as the publisher calls it, tells the format: zip, tar (plain, gz, bz2, xz), or one file in gz. With `wanted`
    (see `harness.RemoteFile.members`) only these members are written, and must be what it says.

    Raises `harness.DataError` for a damaged archive, a missing or different member, a name that leads out of the
    folder, anything but files and folders, two members of one name, and more data than an honest archive holds.
    """
    with _damage_explained(archive), _entries(archive, name) as entries:
        limit = max(LEAST_LIMIT_BYTES, EXPANSION * archive.stat().st_size)
        found: dict[str, str] = {}
        for count, (member, kind, opened) in enumerate(entries, start=1):
            if count > MAX_MEMBERS:
                raise DataError(f"refused: it has more than {MAX_MEMBERS} members")
            if wanted and not any(_matches(member, key) for key in wanted):
                continue
            target = into.joinpath(*_safe_parts(member))
            if kind == "directory":
                target.mkdir(parents=True, exist_ok=True)
                continue
            if kind != "file":
                raise DataError(f"refused: the member {member!r} is a {kind}; only files and folders are extracted")
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened() as source:
                written, digest = _copy(source, target, limit)
            limit -= written
            found[target.relative_to(into).as_posix()] = digest
    _check_members(found, wanted)
    if not found:
        raise DataError("it holds no files")
    return found


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: IO[bytes], target: Path, limit: int) -> tuple[int, str]:
    digest, written = hashlib.sha256(), 0
    with target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > limit:
                raise DataError(f"refused: it unpacks to more than {EXPANSION} times its size, as a bomb does")
            digest.update(chunk)
            file.write(chunk)
    return written, digest.hexdigest()


def _safe_parts(member: str) -> list[str]:
    """The parts of a member's name. Raises where they could lead out of the folder."""
    parts = member.removesuffix("/").split("/")
    while parts[0] == "." and len(parts) > 1:  # tar writes ./name
        parts = parts[1:]
    drive = re.match(r"[A-Za-z]:", member)
    if drive or "\\" in member or "\0" in member or any(part in ("", "..") for part in parts):
        raise DataError(f"refused: the member {member!r} could be written outside of the dataset's folder")
    return [part for part in parts if part != "."]


def _matches(member: str, key: str) -> bool:
    name = member.removeprefix("./")
    return fnmatchcase(name, key) if _is_pattern(key) else name == key


def _is_pattern(key: str) -> bool:
    return any(sign in key for sign in "*?[")


def _check_members(found: dict[str, str], wanted: dict[str, str]) -> None:
    for key, expected in wanted.items():
        matching = sorted(name for name in found if _matches(name, key))
        if not matching:
            raise DataError(f"it has no member {key!r}")
        if _is_pattern(key):
            listing = "".join(f"{found[name]}  {name}\n" for name in matching)
            came = hashlib.sha256(listing.encode()).hexdigest()
            what = f"the listing of its {len(matching)} members {key!r}"
        else:
            came, what = found[key], f"its member {key!r}"
        if came != expected.lower():
            raise DataError(f"{what} has SHA-256 {came}, expected {expected}")


@contextmanager
def _damage_explained(archive: Path) -> Iterator[None]:
    """The many ways in which the standard library says that an archive is damaged, as one."""
    try:
        yield
    except FileExistsError as error:
        raise DataError(f"refused: two members are called {Path(error.filename).name!r}") from error
    except (NotADirectoryError, IsADirectoryError) as error:
        raise DataError(f"refused: {Path(error.filename).name!r} is a file and a folder at once") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO):
            raise
        raise DataError(f"it is damaged: {error}") from error  # gzip and bz2 say it so
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise DataError(f"it is damaged: {error}") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile, of encryption and rare compressions
        raise DataError(f"it cannot be unpacked: {error}") from error


@contextmanager
def _entries(archive: Path, name: str) -> Iterator[Iterator[Entry]]:
    if name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            yield _of_zip(opened)
    elif _TAR.search(name):
        with tarfile.open(archive, "r:*") as tar:
            yield _of_tar(tar)
    elif name.lower().endswith(".gz"):
        yield iter([(name[:-3], "file", lambda: cast("IO[bytes]", gzip.GzipFile(archive)))])
    else:
        raise DataError(f"{name!r} is no archive that can be unpacked: zip, tar, tar.gz, tar.bz2, tar.xz, gz")


def _of_zip(archive: zipfile.ZipFile) -> Iterator[Entry]:
    for info in archive.infolist():
        mode = info.external_attr >> 16  # 0 where the archive was not made on Unix
        if info.is_dir():
            kind = "directory"
        elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
            kind = "file"
        else:
            kind = "link" if stat.S_ISLNK(mode) else "device"

        def opened(info: zipfile.ZipInfo = info) -> IO[bytes]:
            return archive.open(info)

        yield info.orig_filename.replace("\0", "\\0"), kind, opened


def _of_tar(archive: tarfile.TarFile) -> Iterator[Entry]:
    for info in archive:
        if info.isdir():
            kind = "directory"
        elif info.isreg():
            kind = "file"
        else:
            kind = "link" if info.issym() or info.islnk() else "device"

        def opened(info: tarfile.TarInfo = info) -> IO[bytes]:
            file = archive.extractfile(info)
            assert file is not None  # it is for regular files
            return file

        yield info.name, kind, opened
