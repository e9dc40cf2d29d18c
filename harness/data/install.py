"""Installation of a dataset's verified files in the cache. A dataset's folder in the cache always contains all
of the dataset's files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness.data.cache import cache_dir, dataset_dir, install_dir, out_of_reach
from harness.errors import DataError, PluginError, RecordError, UsageError
from harness.interfaces import Dataset
from harness.interfaces.remote import megabytes, mirror_path, total_bytes
from harness.records.files import write_new, write_whole
from harness.records.printing import note
from harness.records.reading import load_named, open_named

if TYPE_CHECKING:
    from harness.data.download import Report

MANIFEST = ".manifest.json"
"""Name of the manifest file (see `Manifest`) in the folder of an installed dataset."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """List of the installed files. ``harness data verify`` compares this list with the contents of the folder."""

    dataset: str
    sources: tuple[str, ...]
    """URL or path from which each file of the dataset was obtained."""
    files: dict[str, str]
    """SHA-256 digest (hex) of each file. The keys are paths relative to the folder."""


def installed(dataset: Dataset) -> Path:
    """Return the folder of the dataset's verified files, downloading them first if necessary.

    Files are stored under their local names. If a file is declared with ``extract`` or ``members``, the folder contains
    the extracted files instead. A single ``.gz`` file is decompressed and stored under its name without ``.gz``. If
    several processes request the files at the same time, they are downloaded only once. Progress is printed to stderr.

    Parameters
    ----------
    dataset : Dataset
        Dataset whose declared files are installed.

    Returns
    -------
    pathlib.Path
        Cache folder that contains the verified files. Do not modify its contents.

    Raises
    ------
    DataError
        If a file cannot be downloaded or fails verification, or if the cache is not writable. The message gives the URL
        and the expected and actual content, and explains how to fix the problem.
    UsageError
        If the dataset declares no files, or if the directory ``HARNESS_DATA_MIRROR`` does not exist.
    PluginError
        If two of the dataset's files have the same name.

    Examples
    --------
    Read a file in the dataset's ``load`` method::

        def load(self, options):
            lines = harness.read_lines(harness.installed(self) / "train.tsv")
    """
    return install(dataset, reporter.get()(dataset))


def install(dataset: Dataset, report: Report) -> Path:
    """Return the folder of the dataset's files, like `installed`, but report the progress of downloads to `report`."""
    folder = install_dir(require_files(dataset))
    if folder.is_dir():
        return folder
    reason = out_of_reach(dataset)
    if reason:
        raise DataError(f"dataset {dataset.name!r} is not available: {reason}")
    with _explain_disk_errors(dataset), _lock(dataset):
        if not folder.is_dir():  # another process may have created the folder in the meantime
            _build(dataset, folder, report)
    return folder


def require_files(dataset: Dataset) -> Dataset:
    """Return `dataset`. Raises `harness.UsageError` if the dataset declares no files."""
    if not dataset.files:
        raise UsageError(f"dataset {dataset.name!r} has no files to download; it can be used directly")
    return dataset


def require_installed(dataset: Dataset) -> Path:
    """Return the folder of the verified files, without downloading them. Raises `harness.DataError` if the folder does
    not exist.
    """
    folder = install_dir(require_files(dataset))
    if not folder.is_dir():
        raise DataError(f"dataset {dataset.name!r} is not installed; run `harness data fetch {dataset.name}`")
    return folder


def verify(dataset: Dataset) -> list[str]:
    """Return one line for each installed file that is missing or has changed since the installation.

    Raises `harness.DataError` if the dataset has not been installed.
    """
    folder = require_installed(dataset)
    try:
        manifest = load_named(folder / MANIFEST, Manifest)
    except RecordError as error:
        return [str(error)]
    problems = []
    for name, expected in manifest.files.items():
        try:
            with open_named(folder / name, 2**63) as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except (RecordError, OSError) as error:
            problems.append(str(error))
            continue
        if actual != expected:
            problems.append(f"{folder / name}: expected SHA-256 {expected}, found {actual}")
    return problems


def clear(dataset: Dataset) -> int:
    """Delete the dataset's cached files and incomplete downloads, and return the number of bytes freed."""
    folder = dataset_dir(require_files(dataset))
    with _explain_disk_errors(dataset), _lock(dataset):
        if not folder.is_dir():
            return 0
        freed = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
        removed = folder.with_name(f".{folder.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        folder.rename(removed)  # atomic, so that no incomplete dataset remains if the process is killed
        shutil.rmtree(removed)
    return freed


class Log:
    """A `Report` that prints a line to stderr when the download starts, and another line every ten seconds."""

    EVERY_S = 10.0

    def __init__(self, dataset: Dataset) -> None:
        files = f"{len(dataset.files)} file{'s' * (len(dataset.files) != 1)}"
        self._start = f"fetching dataset {dataset.name!r}: {files}, {megabytes(total_bytes(dataset.files))}"
        self._printed_s: float | None = None

    def __call__(self, name: str, done: int, total: int | None) -> None:
        if self._printed_s is None:
            note(self._start)
        elif time.monotonic() - self._printed_s >= self.EVERY_S:
            note(f"{name}: {megabytes(done)} of {megabytes(total)}")
        else:
            return
        self._printed_s = time.monotonic()


reporter: ContextVar[Callable[[Dataset], Report]] = ContextVar("reporter", default=Log)
"""Function that returns the progress callback for a dataset."""


@contextlib.contextmanager
def _lock(dataset: Dataset) -> Iterator[None]:
    """Hold a lock on a dataset's folder. The kernel releases the lock when the process is killed."""
    from filelock import FileLock, Timeout

    path = cache_dir() / "locks" / f"{dataset.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note(f"another process is fetching dataset {dataset.name!r}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(dataset: Dataset, folder: Path, report: Report) -> None:
    """Download each file into a separate folder, then merge the folders into `folder`. If a download fails, the
    completed downloads are kept.
    """
    from harness.data import archives  # import here, because importing the download code takes long
    from harness.data.download import obtain

    names = [file.local_name for file in dataset.files]
    if len(set(names)) < len(names):
        raise PluginError(
            f"dataset {dataset.name!r} has two files with the same name; pass different names to RemoteFile(name=...): "
            f"{names}"
        )
    staging = folder.with_name(f".{folder.name}.partial")
    staging.mkdir(parents=True, exist_ok=True)
    needed, free = total_bytes(dataset.files) or 0, shutil.disk_usage(staging).free
    if needed > free:
        raise OSError(errno.ENOSPC, "not enough space")
    origins = []
    for index, file in enumerate(dataset.files):
        part, origin = staging / f"part-{index}", staging / f"part-{index}.origin"
        if not part.is_dir():
            try:
                source = obtain(file, part, report)
            except DataError as error:
                raise DataError(_explanation(dataset, file.url, str(error))) from None
            write_whole(origin, source.encode())
            if not file.sha256 and not file.members:
                note(
                    f"dataset {dataset.name!r}: no digest is declared for {file.url}, so the download is not "
                    f"verified; the SHA-256 of the download is in {folder / MANIFEST}"
                )
        origins.append(origin.read_text() if origin.is_file() else file.url)
    files = staging / "files"
    files.mkdir(exist_ok=True)  # the file exists if an earlier process was killed while moving files
    for index in range(len(dataset.files)):
        _merge(dataset, staging / f"part-{index}", files)
    (files / MANIFEST).unlink(missing_ok=True)
    digests = {
        path.relative_to(files).as_posix(): archives.sha256(path) for path in sorted(files.rglob("*")) if path.is_file()
    }
    manifest = Manifest(dataset=dataset.name, sources=tuple(origins), files=digests)
    write_new(files / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    files.rename(folder)
    shutil.rmtree(staging)


def _merge(dataset: Dataset, part: Path, into: Path) -> None:
    for path in sorted(part.rglob("*")):
        target = into / path.relative_to(part)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        elif target.exists():
            raise PluginError(f"dataset {dataset.name!r}: two of its files contain {target.relative_to(into)}")
        else:
            path.rename(target)


def _explanation(dataset: Dataset, url: str, failures: str) -> str:
    attempts = failures.splitlines()
    return "\n".join(
        [
            f"dataset {dataset.name!r}: cannot download {url}: {attempts[-1].removeprefix(f'{url}: ')}",
            *(f"  tried {attempt}" for attempt in attempts),
            f"  Run `harness data fetch {dataset.name}` to try again. To provide the file yourself, save it as "
            f"DIR/{mirror_path(url)} and set HARNESS_DATA_MIRROR=DIR",
        ]
    )


@contextlib.contextmanager
def _explain_disk_errors(dataset: Dataset) -> Iterator[None]:
    """Convert an OSError raised while accessing the cache to `harness.DataError`. If the disk is full, the incomplete
    download is deleted.
    """
    try:
        yield
    except OSError as error:
        cause, remedy = error.strerror or str(error), "make it writable"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            for unfinished in dataset_dir(dataset).glob(".*.partial"):
                shutil.rmtree(unfinished, ignore_errors=True)
            cause = (
                f"no space left on the disk; the download needs {megabytes(total_bytes(dataset.files))}, plus the "
                "space for the extracted files"
            )
            remedy = "free some space"
        raise DataError(
            f"dataset {dataset.name!r}: cannot write to the cache {cache_dir()}: {cause}; {remedy} or set "
            "HARNESS_CACHE to another directory"
        ) from error
