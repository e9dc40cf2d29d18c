"""A dataset's files, verified, in a folder of their own: fetched once, complete or not there at all."""

from __future__ import annotations

import contextlib
import errno
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from harness.data.cache import cache_dir, dataset_dir, install_dir, out_of_reach
from harness.errors import DataError, PluginError, UsageError
from harness.interfaces import Dataset
from harness.interfaces.remote import megabytes, mirror_path, total_bytes

if TYPE_CHECKING:
    from harness.data.download import Report

MANIFEST = ".manifest.json"
"""Lies beside the files; see `Manifest`."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What was installed, for ``harness data verify``."""

    dataset: str
    sources: tuple[str, ...]
    """Where each of the dataset's files came from."""
    files: dict[str, str]
    """Path in the folder -> SHA-256 (hex)."""


def installed(dataset: Dataset) -> Path:
    """The folder where the dataset's verified files lie under their local names; what is missing is fetched first.

    Of a file declared with ``extract`` or ``members`` the folder holds the contents (a ``.gz`` file's under its name
    without ``.gz``), not the file. Parallel processes fetch once. Progress goes to stderr.

    Raises `harness.DataError` naming the URL, what was expected, what came, and what to do.

    Example::

        def load(self, options):
            lines = (harness.installed(self) / "train.tsv").read_text().splitlines()
    """
    return install(dataset, reporter.get()(dataset))


def install(dataset: Dataset, report: Report) -> Path:
    """As `installed`; `report` hears of the bytes as they come."""
    folder = install_dir(require_files(dataset))
    if folder.is_dir():
        return folder
    reason = out_of_reach(dataset)
    if reason:
        raise DataError(f"dataset {dataset.name!r} is not available: {reason}")
    with _disk_explained(dataset), _lock(dataset):
        if not folder.is_dir():  # another process may have fetched it meanwhile
            _build(dataset, folder, report)
    return folder


def require_files(dataset: Dataset) -> Dataset:
    """`dataset`, if it has files to fetch. Raises `harness.UsageError`."""
    if not dataset.files:
        raise UsageError(f"dataset {dataset.name!r} is embedded: it has no files of its own, and works as it is")
    return dataset


def require_installed(dataset: Dataset) -> Path:
    """The folder of the verified files. Raises `harness.DataError` where they are not installed; nothing is fetched."""
    folder = install_dir(require_files(dataset))
    if not folder.is_dir():
        raise DataError(f"dataset {dataset.name!r} is not here; run `harness data fetch {dataset.name}`")
    return folder


def verify(dataset: Dataset) -> list[str]:
    """What is wrong with the installed files, a line each; nothing if they are as they were when they came.

    Raises `harness.DataError` where they are not installed.
    """
    from harness.data import archives

    folder = require_installed(dataset)
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        return [f"{folder / MANIFEST}: cannot be read: {error}"]
    problems = []
    for name, expected in manifest.files.items():
        try:
            came = archives.sha256(folder / name)
        except OSError as error:
            problems.append(f"{folder / name}: cannot be read: {error.strerror}")
            continue
        if came != expected:
            problems.append(f"{folder / name}: expected SHA-256 {expected}, found {came}")
    return problems


def clear(dataset: Dataset) -> int:
    """Delete what is kept of the dataset, unfinished downloads too; returns the bytes that this freed."""
    place = dataset_dir(require_files(dataset))
    with _disk_explained(dataset), _lock(dataset):
        if not place.is_dir():
            return 0
        freed = sum(path.lstat().st_size for path in place.rglob("*") if not path.is_dir())
        removed = place.with_name(f".{place.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        place.rename(removed)  # at once, so that a process killed now leaves no half dataset
        shutil.rmtree(removed)
    return freed


class Log:
    """A `Report` that tells on stderr when the download begins, and every ten seconds how far it is."""

    EVERY_S = 10.0

    def __init__(self, dataset: Dataset) -> None:
        files = f"{len(dataset.files)} file{'s' * (len(dataset.files) != 1)}"
        self._start = f"harness: fetching dataset {dataset.name!r}: {files}, {megabytes(total_bytes(dataset.files))}"
        self._told: float | None = None

    def __call__(self, name: str, done: int, total: int | None) -> None:
        if self._told is None:
            print(self._start, file=sys.stderr, flush=True)
        elif time.monotonic() - self._told >= self.EVERY_S:
            print(f"harness: {name}: {megabytes(done)} of {megabytes(total)}", file=sys.stderr, flush=True)
        else:
            return
        self._told = time.monotonic()


reporter: ContextVar[Callable[[Dataset], Report]] = ContextVar("reporter", default=Log)
"""Makes what hears of the bytes that `installed` fetches."""


@contextlib.contextmanager
def _lock(dataset: Dataset) -> Iterator[None]:
    """Only one process at a time works on a dataset's folder; the kernel gives up a killed process's lock."""
    from filelock import FileLock, Timeout

    path = cache_dir() / "locks" / f"{dataset.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"harness: another process fetches dataset {dataset.name!r}; waiting for it", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(dataset: Dataset, folder: Path, report: Report) -> None:
    """Each file becomes a part, which outlives a failure of the next; all parts together become the folder."""
    from harness.data import archives  # here, so that a dataset's module may import `installed` and stay light
    from harness.data.download import obtain

    names = [file.local_name for file in dataset.files]
    if len(set(names)) < len(names):
        raise PluginError(f"dataset {dataset.name!r} has two files of one name; give RemoteFile(name=...): {names}")
    staging = folder.with_name(f".{folder.name}.partial")
    staging.mkdir(parents=True, exist_ok=True)
    needed, free = total_bytes(dataset.files) or 0, shutil.disk_usage(staging).free
    if needed > free:
        raise OSError(errno.ENOSPC, "too little space")
    came_from = []
    for index, file in enumerate(dataset.files):
        part, origin = staging / f"part-{index}", staging / f"part-{index}.origin"
        if not part.is_dir():
            try:
                source = obtain(file, part, report)
            except DataError as error:
                raise DataError(_explanation(dataset, file.url, str(error))) from None
            origin.write_text(source)
            if not file.sha256 and not file.members:
                print(
                    f"harness: dataset {dataset.name!r}: the digest of {file.url} is not known, so what came is not "
                    f"verified; its SHA-256 is in {folder / MANIFEST}",
                    file=sys.stderr,
                )
        came_from.append(origin.read_text() if origin.is_file() else file.url)
    files = staging / "files"
    files.mkdir(exist_ok=True)  # a process that was killed may have moved some files already
    for index in range(len(dataset.files)):
        _merge(dataset, staging / f"part-{index}", files)
    (files / MANIFEST).unlink(missing_ok=True)
    found = {
        path.relative_to(files).as_posix(): archives.sha256(path) for path in sorted(files.rglob("*")) if path.is_file()
    }
    manifest = Manifest(dataset=dataset.name, sources=tuple(came_from), files=found)
    (files / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    files.rename(folder)
    shutil.rmtree(staging)


def _merge(dataset: Dataset, part: Path, into: Path) -> None:
    for path in sorted(part.rglob("*")):
        target = into / path.relative_to(part)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        elif target.exists():
            raise PluginError(f"dataset {dataset.name!r}: two of its files hold {target.relative_to(into)}")
        else:
            path.rename(target)


def _explanation(dataset: Dataset, url: str, told: str) -> str:
    attempts = told.splitlines()
    return "\n".join(
        [
            f"dataset {dataset.name!r}: {url} could not be fetched: {attempts[-1].removeprefix(f'{url}: ')}",
            *(f"  tried {attempt}" for attempt in attempts),
            f"  Run `harness data fetch {dataset.name}` to try again. To bring the file by hand, put it at "
            f"DIR/{mirror_path(url)} and set HARNESS_DATA_MIRROR=DIR",
        ]
    )


@contextlib.contextmanager
def _disk_explained(dataset: Dataset) -> Iterator[None]:
    """An error of the disk under the cache, in words. A full disk gets back what was fetched so far."""
    try:
        yield
    except OSError as error:
        place, trouble, remedy = cache_dir(), error.strerror or str(error), "make it writable"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            for unfinished in dataset_dir(dataset).glob(".*.partial"):
                shutil.rmtree(unfinished, ignore_errors=True)
            trouble = f"no space left; the download is {megabytes(total_bytes(dataset.files))}, unpacked it is more"
            remedy = "make room"
        raise DataError(
            f"dataset {dataset.name!r}: cannot write to the cache {place}: {trouble}; {remedy} or set HARNESS_CACHE "
            "to another directory"
        ) from error
