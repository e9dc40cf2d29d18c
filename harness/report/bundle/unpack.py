"""Safe extraction of bundles from untrusted sources.

Nothing in a bundle is executed, and no file is written outside the given directory.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath

import msgspec

from harness.errors import RecordError
from harness.records.reading import open_named
from harness.records.zip_index import index_problem
from harness.report.bundle.manifest import BUNDLE_VERSION, MANIFEST, BundleEntry, BundleManifest

MAX_FILES = 200_000
MAX_BYTES = 16 * 2**30
"""Maximum total size of the extracted files."""
EXPANSION = 200
"""Maximum ratio of extracted size to archive size. The compression ratio of logs and records is rarely above 20."""
MIN_LIMIT_BYTES = 64 * 2**20
"""Extracted size, in bytes, up to which the compression ratio of an archive is not checked."""
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_INDEX_BYTES = 256 * 2**20
"""Maximum size of the archive's list of files, which `zipfile` reads into memory."""
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK = 2**20
_DAMAGE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    IndexError,
    struct.error,
)
"""Exceptions raised by `zipfile` for a damaged archive."""
_PART = re.compile(r"[A-Za-z0-9._+-][A-Za-z0-9._+ -]*")


def unpack(path: Path, folder: Path) -> tuple[BundleManifest, str]:
    """Verify a bundle against its manifest and extract its files into the empty directory `folder`.

    Returns the manifest and its SHA-256 digest. Raises `harness.RecordError` if a file was changed, removed or added,
    or if its path is outside the directory. The error message names the file.
    """
    try:
        with open_named(path, MAX_BYTES) as file:
            if problem := index_problem(file, MAX_INDEX_BYTES, MAX_FILES):
                raise RecordError(f"{path}: the archive was not read, because {problem}")
            with zipfile.ZipFile(file) as archive:
                return _unpack(archive, path, folder, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise RecordError(f"{error.filename or path}: {error.strerror or error}") from None
    except _DAMAGE as error:
        raise RecordError(f"{path}: not a readable zip archive: {error}") from None


def _unpack(archive: zipfile.ZipFile, path: Path, folder: Path, size: int) -> tuple[BundleManifest, str]:
    infos = archive.infolist()
    compressed = next((info for info in infos if info.compress_type not in _COMPRESSIONS), None)
    if compressed is not None:
        raise RecordError(f"{path}: {compressed.filename!r} uses a compression method that is not allowed in bundles")
    members = {info.filename: info for info in infos}
    if len(members) < len(infos):
        duplicate = Counter(info.filename for info in infos).most_common(1)[0][0]
        raise RecordError(f"{path}: the archive contains {duplicate!r} more than once")
    if MANIFEST not in members:
        raise RecordError(
            f"{path}: not a bundle, because it has no {MANIFEST}; pass a file written by `harness bundle`"
        )
    if members[MANIFEST].file_size > MAX_MANIFEST_BYTES:
        raise RecordError(f"{path}: {MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes")
    encoded = _read(archive, members.pop(MANIFEST), MAX_MANIFEST_BYTES)
    manifest = _manifest(encoded, path)
    for name in members:
        if not _is_inside(name):
            raise RecordError(f"{path}: the path {name!r} is outside the bundle; nothing was extracted")
        if name not in manifest.files:
            raise RecordError(f"{path}: {name!r} is not in the manifest; it was added after the bundle was created")
    missing = manifest.files.keys() - members.keys()
    if missing:
        raise RecordError(f"{path}: {min(missing)!r} is in the manifest, but not in the archive; it was removed")
    total, limit = sum(entry.bytes for entry in manifest.files.values()), min(MAX_BYTES, _limit(size))
    if total > limit:
        raise RecordError(f"{path}: the extracted files would occupy {total} bytes, but the limit is {limit}")
    for name, info in members.items():
        _extract(archive, info, manifest.files[name], path, folder / PurePosixPath(name))
    return manifest, hashlib.sha256(encoded).hexdigest()


def _limit(size: int) -> int:
    """Return the maximum total size of the files extracted from an archive of size `size`."""
    return max(MIN_LIMIT_BYTES, EXPANSION * size)


def _manifest(encoded: bytes, path: Path) -> BundleManifest:
    try:
        manifest = msgspec.json.decode(encoded, type=BundleManifest)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: {MANIFEST} is not valid: {error}") from None
    if manifest.bundle_version > BUNDLE_VERSION:
        raise RecordError(
            f"{path}: the bundle was written by a newer version of harness ({manifest.harness_version}); "
            "upgrade harness to read it"
        )
    return manifest


def _is_inside(name: str) -> bool:
    """Return True for a relative path without ``..``, backslashes, drive letters or special characters."""
    parts = name.split("/")
    return len(name) <= 1024 and all(_PART.fullmatch(part) and part.strip(".") for part in parts)


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: BundleEntry, path: Path, place: Path) -> None:
    changed = RecordError(
        f"{path}: {info.filename!r} does not match the manifest; it was changed after the bundle was created"
    )
    if info.file_size != entry.bytes or info.is_dir():
        raise changed
    place.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), entry.bytes
    with place.open("xb") as target:
        try:
            with archive.open(info) as source:
                while left and (chunk := source.read(min(_CHUNK, left))):
                    left -= len(chunk)
                    digest.update(chunk)
                    target.write(chunk)
        except _DAMAGE as error:
            raise changed from error
    if left or digest.hexdigest() != entry.sha256:
        raise changed


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    with archive.open(info) as source:
        return source.read(limit)
