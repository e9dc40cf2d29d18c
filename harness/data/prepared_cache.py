"""On-disk cache of prepared splits. Runs can reuse data that an earlier run prepared.

An entry is a folder that contains ``.npy`` files and a ``meta.json`` file. The name of the folder consists of two
digests. The first digest identifies the raw data, and the names and options of the dataset and the task. The second
digest identifies the code and packages that prepared the data. Entries are created atomically. When a process first
uses an entry, the checksums of the arrays and of ``meta.json`` are verified. Damaged entries are replaced. Data
embedded in a package is not cached, because it has no declared digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from harness.data.cache import cache_dir, dataset_dir, install_dir
from harness.data.stored_rows import StoredRows
from harness.data.user_files.dataset import UserDataset
from harness.interfaces import Dataset, PreparedData, Split
from harness.plugins.catalog import Catalog
from harness.plugins.requirements import DISTRIBUTION
from harness.records import DataInfo, RunSpec
from harness.records.files import write_new
from harness.records.printing import note
from harness.records.reading import MAX_JSON_BYTES, read_named

IN_MEMORY_BYTES = 256 * 2**20
"""Maximum size of an entry that is read into memory, in bytes. The inputs of larger entries are `StoredRows`."""
MAX_HEADER_BYTES = 2**16
"""Maximum size of a ``.npy`` file's header."""
_CHUNK = 2**20
_verified: set[tuple[str, int, int, int]] = set()
"""Path, inode, size and modification time of the large files that this process has verified."""
META = "meta.json"
SPLITS = ("train", "validation", "test")


class StoredArray(Struct, frozen=True, kw_only=True):
    """Metadata of an array in a cache entry."""

    split: Literal["train", "validation", "test"]
    role: Literal["inputs", "targets", "groups", "rows", "weights"]
    name: str
    file: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    crc32: int


class Meta(Struct, frozen=True, kw_only=True):
    """Contents of an entry's ``meta.json``."""

    digest: str
    info: DataInfo
    arrays: list[StoredArray]
    fitted: dict[str, Any] = {}
    reading: dict[str, Any] = {}


def entry(spec: RunSpec, dataset: Dataset, catalog: Catalog) -> Path | None:
    """Return the cache folder for the prepared data of `spec`. Return None if the dataset's content has no digest."""
    content = _content(spec, dataset)
    if content is None:
        return None
    data = _digest([content, spec.task, spec.dataset, spec.task_options, spec.dataset_options, _tokenizer(spec)])
    parent = cache_dir() / "own" if isinstance(dataset, UserDataset) else dataset_dir(dataset)
    return parent / "prepared" / f"{data}-{_code(spec, dataset, catalog)}"


def load(folder: Path) -> PreparedData | None:
    """Return the prepared data in `folder`. Return None if the entry does not exist or is damaged."""
    try:
        if not (folder / META).exists():
            return None
        meta = _meta(read_named(folder / META, MAX_JSON_BYTES))
        large = sum(stored.bytes for stored in meta.arrays) > IN_MEMORY_BYTES
        parts: dict[str, dict[str, dict[str, NDArray[Any]]]] = {
            split: {"inputs": {}, "targets": {}, "groups": {}, "rows": {}, "weights": {}} for split in SPLITS
        }
        for stored in meta.arrays:
            parts[stored.split][stored.role][stored.name] = _read(folder, stored, large)
        train, validation, test = (
            Split(
                inputs=part["inputs"],
                targets=part["targets"][""],
                groups=part["groups"],
                rows=part["rows"].get(""),
                weights=part["weights"].get(""),
            )
            for part in parts.values()
        )
    except Exception as error:  # numpy raises many types of exceptions for damaged files
        note(f"{folder}: the cached data are damaged ({error}); preparing them again")
        return None
    return PreparedData(
        train=train,
        validation=validation,
        test=test,
        info=meta.info,
        digest=meta.digest,
        fitted=meta.fitted,
        reading=meta.reading,
    )


def save(folder: Path, data: PreparedData) -> bool:
    """Write `data` and its digest to `folder`, and return True on success.

    An existing entry is replaced. Entries prepared from the same data by older code are removed. If writing fails, a
    warning is printed to stderr, and the incomplete entry is deleted.
    """
    try:
        _save(folder, data)
    except OSError as error:
        note(f"{folder}: cannot cache the prepared data: {error.strerror}")
        return False
    return True


def _save(folder: Path, data: PreparedData) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
    try:
        stored = [
            _write(scratch, number, split, role, name, array)
            for number, (split, role, name, array) in enumerate(_arrays(data))
        ]
        meta = Meta(
            digest=data.digest, info=data.info, arrays=stored, fitted=dict(data.fitted), reading=dict(data.reading)
        )
        encoded = msgspec.json.encode(meta)
        write_new(scratch / META, b"%b\n%b" % (encoded, _sha256(encoded)))
        for old in folder.parent.glob(folder.name.partition("-")[0] + "-*"):
            # Rename before deleting, so that no process sees an incomplete entry; open files remain readable.
            with contextlib.suppress(OSError):
                shutil.rmtree(old.rename(scratch / old.name))
        scratch.chmod(0o755)
        with contextlib.suppress(OSError):  # another process has created the same entry
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _meta(content: bytes) -> Meta:
    """Return the metadata in a file's content. The content ends with the SHA-256 digest (hex) of the metadata. Raises
    ValueError if the digest does not match.
    """
    encoded, _, digest = content.rpartition(b"\n")
    if _sha256(encoded) != digest:
        raise ValueError(f"the checksum of {META} does not match")
    return msgspec.json.decode(encoded, type=Meta)


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _content(spec: RunSpec, dataset: Dataset) -> str | None:
    if isinstance(dataset, UserDataset):
        return str(spec.dataset_options["sha256"])
    verified = all(file.sha256 or file.members for file in dataset.files)
    return install_dir(dataset).name if dataset.files and verified else None


def _tokenizer(spec: RunSpec) -> list[str]:
    """Return digests of the checkpoint's text files, which may affect how the data are prepared."""
    if spec.pretrained is None:
        return []
    files = sorted(path for path in Path(spec.pretrained.path).iterdir() if path.suffix in (".json", ".txt"))
    return [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]


def _code(spec: RunSpec, dataset: Dataset, catalog: Catalog) -> str:
    """Return a digest of the code that prepares the data. The digest covers the source code of this package and of the
    task and dataset plugins, and the versions of their requirements.
    """
    provided = [catalog.tasks[spec.task].plugin]
    if not isinstance(dataset, UserDataset):
        provided.append(catalog.datasets[spec.dataset].plugin)
    roots = {Path(__file__).parent}
    for provider in (catalog.task(spec.task), dataset):
        package = sys.modules[type(provider).__module__.partition(".")[0]]
        if package.__name__ != "harness" and package.__file__:
            source = Path(package.__file__)
            roots.add(source.parent if source.name == "__init__.py" else source)
    sources = [
        hashlib.sha256(path.read_bytes()).hexdigest()
        for root in sorted(roots)
        for path in (sorted(root.rglob("*.py")) if root.is_dir() else [root])
    ]
    return _digest([sources, _versions({DISTRIBUTION, *(ref.distribution for ref in provided)})])


def _versions(distributions: set[str]) -> dict[str, str]:
    """Return the versions of Python, the distributions and their installed requirements. The requirements of extras are
    excluded.
    """
    names = set(distributions)
    for distribution in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            for line in importlib.metadata.requires(distribution) or []:
                requirement = re.match(r"[\w.-]+", line)
                if requirement and "extra ==" not in line:
                    names.add(requirement[0])
    versions = {"python": sys.version.split()[0]}
    for name in sorted(names):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:16]


def _arrays(data: PreparedData) -> Iterator[tuple[Any, Any, str, NDArray[Any]]]:
    for name in SPLITS:
        split: Split = getattr(data, name)
        yield name, "targets", "", split.targets
        for key, array in split.inputs.items():
            yield name, "inputs", key, array
        for key, array in split.groups.items():
            yield name, "groups", key, array.astype(str) if array.dtype == object else array
        if split.rows is not None:
            yield name, "rows", "", split.rows
        if split.weights is not None:
            yield name, "weights", "", split.weights


def _write(folder: Path, number: int, split: Any, role: Any, name: str, array: NDArray[Any]) -> StoredArray:
    file = f"{number}.npy"
    array = np.ascontiguousarray(array)
    np.save(folder / file, array, allow_pickle=False)
    return StoredArray(
        split=split,
        role=role,
        name=name,
        file=file,
        shape=array.shape,
        dtype=array.dtype.str,
        bytes=array.nbytes,
        crc32=_crc32(array),
    )


def _read(folder: Path, stored: StoredArray, large: bool) -> NDArray[Any]:
    path = folder / stored.file
    if not path.is_file():  # reject pipes, because opening a pipe would wait forever
        raise ValueError(f"{stored.file} is not a regular file")
    if (
        not 0 <= path.stat().st_size - stored.bytes <= MAX_HEADER_BYTES
    ):  # check the size first, because loading allocates the array
        raise ValueError(
            f"{stored.file} has {path.stat().st_size} bytes, but should contain an array of {stored.bytes} bytes"
        )
    array: Any = StoredRows(path) if large and stored.role == "inputs" else np.load(path, allow_pickle=False)
    if (array.shape, array.dtype.str) != (stored.shape, stored.dtype):
        raise ValueError(
            f"{stored.file} contains {array.dtype.str} {array.shape}, expected {stored.dtype} {stored.shape}"
        )
    actual = _crc32_of_rows(array, stored.crc32) if isinstance(array, StoredRows) else _crc32(array)
    if actual != stored.crc32:
        raise ValueError(f"the checksum of {stored.file} does not match")
    return array  # type: ignore[no-any-return]  # `StoredRows` has the part of the array interface that batches use


def _crc32(array: NDArray[Any]) -> int:
    return zlib.crc32(array.reshape(-1).view(np.uint8).data) if array.size else 0


def _crc32_of_rows(array: StoredRows, expected: int) -> int:
    """Return the checksum of an array that is not read into memory. If this process has already verified the checksum,
    return `expected`.
    """
    state = array.path.stat()
    key = (str(array.path), state.st_ino, state.st_size, state.st_mtime_ns)
    if key in _verified:
        return expected
    value = 0
    for chunk in array.chunks(_CHUNK):
        value = zlib.crc32(chunk, value)
    if value == expected:
        _verified.add(key)
    return value
