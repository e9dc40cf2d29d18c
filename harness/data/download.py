"""Download of a file from the first source with the expected content: the mirror, the publisher or an alternate URL."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote

from harness.data import archives
from harness.data.cache import mirror, offline
from harness.errors import DataError
from harness.interfaces.remote import RemoteFile, mirror_path

TRIES = 3
"""Number of attempts per source if the server does not respond, drops the connection or reports that it is busy."""
PAUSE_S = 2.0
"""Pause before the second attempt, in seconds; doubled before each further attempt."""
TIMEOUT_S = 60.0
"""Maximum time without a response from a server, in seconds."""
_CHUNK = 1 << 18

Report = Callable[[str, int, int | None], None]
"""Progress callback; receives the file name, the bytes downloaded so far, and the expected total (None if unknown)."""


class Source(NamedTuple):
    """A location from which a file can be obtained."""

    name: str
    """Name of the location, as shown in messages."""
    location: str | Path
    """URL, or path of a local file."""


class _FailedError(Exception):
    """Failure of a source to provide the file. `retry` is true if another attempt may succeed."""

    def __init__(self, reason: str, *, retry: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry


def sources(file: RemoteFile) -> list[Source]:
    """Return the sources in the order in which they are tried. Offline, only a mirror directory is used."""
    candidates = []
    root = mirror()
    if isinstance(root, Path):
        path = root / mirror_path(file.url)
        candidates.append(Source(str(path), path))
    elif root is not None:
        url = f"{root}/{quote(mirror_path(file.url), safe='/~+:@,;=&$!()')}"
        candidates.append(Source(url, url))
    candidates += [Source(url, url) for url in (file.url, *file.alternates)]
    return [source for source in candidates if isinstance(source.location, Path)] if offline() else candidates


def obtain(file: RemoteFile, folder: Path, report: Report) -> str:
    """Create `folder` with the verified file or its extracted contents, and return the name of the source.

    Data are collected in a temporary folder next to `folder`, so `folder` is always complete. Raises
    `harness.DataError` if no source provides the file; the message has one line for each source. Raises OSError for
    disk errors.
    """
    work = folder.with_name(folder.name + ".tmp")
    failures = []
    for source in sources(file):
        for attempt in range(1, TRIES + 1):
            shutil.rmtree(work, ignore_errors=True)
            contents = work / "contents"
            contents.mkdir(parents=True)
            try:
                _receive(source, file, work / "received", report)
                _settle(file, work / "received", contents)
                contents.rename(folder)
                return source.name
            except (_FailedError, DataError) as error:
                if attempt < TRIES and getattr(error, "retry", False) and isinstance(source.location, str):
                    time.sleep(PAUSE_S * 2 ** (attempt - 1))
                    continue
                failures.append(" ".join(f"{source.name}: {error}".split()))
                break
            finally:
                shutil.rmtree(work, ignore_errors=True)
    raise DataError("\n".join(failures) or "HARNESS_OFFLINE is set, and HARNESS_DATA_MIRROR is not a directory")


def _settle(file: RemoteFile, received: Path, contents: Path) -> None:
    """Verify the received file, and move it or extract it into `contents`."""
    _check(file, received)
    if file.unpacked:
        archives.extract(received, file.local_name, contents, file.members)
    else:
        received.rename(contents / file.local_name)


def _check(file: RemoteFile, received: Path) -> None:
    size = received.stat().st_size
    exact = file.bytes if file.sha256 or not file.members else None
    if exact is not None and size != exact:
        raise _FailedError(f"expected {exact} bytes, received {size}{_page_note(received)}", retry=size < exact)
    if file.sha256:
        digest = archives.sha256(received)
        if digest != file.sha256.lower():
            raise _FailedError(
                f"expected SHA-256 {file.sha256}, received {size} bytes with SHA-256 {digest}{_page_note(received)}"
            )
    if file.members:
        note = _page_note(received)
        if note:
            raise _FailedError(f"expected {file.local_name}, received {size} bytes{note}")


def _page_note(received: Path) -> str:
    """Return a note for the error message if the received file is a web page, else an empty string."""
    with received.open("rb") as file:
        start = file.read(4096).decode("utf-8", "replace")
    if not re.match(r"\s*<(!doctype|html|head|\?xml)", start, re.IGNORECASE):
        return ""
    title = re.search(r"<title>\s*(.*?)\s*</title>", start, re.IGNORECASE | re.DOTALL)
    return f", a web page{f' titled {title[1][:80]!r}' if title else ''}"


class _Counted:
    """A writable file that reports its size and fails if it grows larger than the remote file can be."""

    def __init__(self, file: IO[bytes], remote: RemoteFile, report: Report) -> None:
        self._file, self._remote, self._report = file, remote, report
        self._done = 0
        self._limit = remote.bytes
        if remote.bytes is not None and remote.members and not remote.sha256:
            self._limit = 10 * remote.bytes + 2**26  # the archive may change and contain other members
        report(remote.local_name, 0, remote.bytes)

    def write(self, data: bytes) -> int:
        self._done += len(data)
        if self._limit is not None and self._done > self._limit:
            raise _FailedError(f"expected {self._remote.bytes} bytes, received more")
        self._report(self._remote.local_name, self._done, self._remote.bytes)
        return self._file.write(data)

    def flush(self) -> None:
        """Do nothing; the file is closed before it is read."""


def _receive(source: Source, file: RemoteFile, into: Path, report: Report) -> None:
    with into.open("wb") as opened:
        target = _Counted(opened, file, report)
        if isinstance(source.location, Path):
            _copy(source.location, target)
        else:
            _get(source.location, target)


def _copy(path: Path, target: _Counted) -> None:
    try:
        source = path.open("rb")
    except OSError as error:
        raise _FailedError(error.strerror or str(error)) from None
    with source:
        shutil.copyfileobj(source, target, _CHUNK)


def _get(url: str, target: _Counted) -> None:
    import requests
    from pooch import HTTPDownloader

    # Without this Accept-Encoding, some servers send .gz files as compressed transfers, which requests decompresses.
    headers = {"Accept-Encoding": "identity", "User-Agent": "harness (pooch)"}
    try:
        HTTPDownloader(chunk_size=_CHUNK, timeout=TIMEOUT_S, headers=headers)(url, target, None)
    except requests.HTTPError as error:
        response = error.response
        status, reason = (response.status_code, response.reason) if response is not None else (0, "unknown")
        retry = status >= 500 or status in (408, 429)
        raise _FailedError(f"HTTP status {status} {reason}", retry=retry) from None
    except requests.RequestException as error:
        transient = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
        raise _FailedError(_cause(error), retry=isinstance(error, transient)) from None


def _cause(error: BaseException) -> str:
    """Return the message of the innermost exception. requests and urllib3 wrap it in others."""
    while True:
        nested = getattr(error, "reason", None) or next(iter(error.args), None)
        if not isinstance(nested, BaseException):
            return (nested if isinstance(nested, str) else str(error)) or type(error).__name__
        error = nested
