"""One file from the first source that has the right one: the mirror, the publisher, the publisher's alternates."""

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
"""How often a source is asked that does not answer, breaks off, or says that it is busy."""
PAUSE_S = 2.0
"""Before the second try; twice as long before each further one."""
TIMEOUT_S = 60.0
"""How long a server may say nothing."""
_CHUNK = 1 << 18

Report = Callable[[str, int, int | None], None]
"""Hears the file's name, the bytes that came, and the bytes expected (None: not known)."""


class Source(NamedTuple):
    shown: str
    place: str | Path


class _FailedError(Exception):
    """A source did not give the file; `again` says whether asking once more can help."""

    def __init__(self, why: str, *, again: bool = False) -> None:
        super().__init__(why)
        self.again = again


def sources(file: RemoteFile) -> list[Source]:
    """Where to look, in this order; without the network only a mirror that is a directory is left."""
    found = []
    place = mirror()
    if isinstance(place, Path):
        path = place / mirror_path(file.url)
        found.append(Source(str(path), path))
    elif place is not None:
        url = f"{place}/{quote(mirror_path(file.url), safe='/~+:@,;=&$!()')}"
        found.append(Source(url, url))
    found += [Source(url, url) for url in (file.url, *file.alternates)]
    return [source for source in found if isinstance(source.place, Path)] if offline() else found


def obtain(file: RemoteFile, folder: Path, report: Report) -> str:
    """Create `folder` with the verified file, or with what it holds; returns the source it came from.

    Until it is complete, everything lies in a sibling of `folder`, which goes when this ends. Raises
    `harness.DataError`, whose message tells what each source did, and OSError where the disk is the trouble.
    """
    work = folder.with_name(folder.name + ".tmp")
    told = []
    for source in sources(file):
        for attempt in range(1, TRIES + 1):
            shutil.rmtree(work, ignore_errors=True)
            contents = work / "contents"
            contents.mkdir(parents=True)
            try:
                _receive(source, file, work / "received", report)
                _settle(file, work / "received", contents)
                contents.rename(folder)
                return source.shown
            except (_FailedError, DataError) as error:
                if attempt < TRIES and getattr(error, "again", False) and isinstance(source.place, str):
                    time.sleep(PAUSE_S * 2 ** (attempt - 1))
                    continue
                told.append(" ".join(f"{source.shown}: {error}".split()))
                break
            finally:
                shutil.rmtree(work, ignore_errors=True)
    raise DataError("\n".join(told) or "HARNESS_OFFLINE is set and no mirror directory has it")


def _settle(file: RemoteFile, received: Path, contents: Path) -> None:
    """Verify what was received and put it, or what it holds, into `contents`."""
    _check(file, received)
    if file.unpacked:
        archives.extract(received, file.local_name, contents, file.members)
    else:
        received.rename(contents / file.local_name)


def _check(file: RemoteFile, received: Path) -> None:
    size = received.stat().st_size
    exact = file.bytes if file.sha256 or not file.members else None
    if exact is not None and size != exact:
        raise _FailedError(f"expected {exact} bytes, came {size}{_looks(received)}", again=size < exact)
    if file.sha256:
        digest = archives.sha256(received)
        if digest != file.sha256.lower():
            what = f"expected SHA-256 {file.sha256}, came {size} bytes with SHA-256 {digest}{_looks(received)}"
            raise _FailedError(what)
    if file.members:
        page = _looks(received)
        if page:
            raise _FailedError(f"expected {file.local_name}, came {size} bytes{page}")


def _looks(received: Path) -> str:
    """A word on what came instead, where it is a page for people."""
    with received.open("rb") as file:
        start = file.read(4096).decode("utf-8", "replace")
    if not re.match(r"\s*<(!doctype|html|head|\?xml)", start, re.IGNORECASE):
        return ""
    title = re.search(r"<title>\s*(.*?)\s*</title>", start, re.IGNORECASE | re.DOTALL)
    return f", a web page{f' with the title {title[1][:80]!r}' if title else ''}"


class _Counted:
    """A file that counts what is written, tells of it, and takes no more than `limit` bytes."""

    def __init__(self, file: IO[bytes], remote: RemoteFile, report: Report) -> None:
        self._file, self._remote, self._report = file, remote, report
        self._done = 0
        self._limit = remote.bytes
        if remote.bytes is not None and remote.members and not remote.sha256:
            self._limit = 10 * remote.bytes + 2**26  # the container varies, and may hold more than is wanted
        report(remote.local_name, 0, remote.bytes)

    def write(self, data: bytes) -> int:
        self._done += len(data)
        if self._limit is not None and self._done > self._limit:
            raise _FailedError(f"expected {self._remote.bytes} bytes, more came")
        self._report(self._remote.local_name, self._done, self._remote.bytes)
        return self._file.write(data)

    def flush(self) -> None:
        """Nothing to do: the file is closed before it is read."""


def _receive(source: Source, file: RemoteFile, into: Path, report: Report) -> None:
    with into.open("wb") as opened:
        target = _Counted(opened, file, report)
        if isinstance(source.place, Path):
            _copy(source.place, target)
        else:
            _get(source.place, target)


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

    # Without this header some servers send a .gz file as an encoding of its contents, and it arrives unpacked.
    headers = {"Accept-Encoding": "identity", "User-Agent": "harness (pooch)"}
    try:
        HTTPDownloader(chunk_size=_CHUNK, timeout=TIMEOUT_S, headers=headers)(url, target, None)
    except requests.HTTPError as error:
        response = error.response
        status, reason = (response.status_code, response.reason) if response is not None else (0, "unknown")
        again = status >= 500 or status in (408, 429)
        raise _FailedError(f"HTTP status {status} {reason}", again=again) from None
    except requests.RequestException as error:
        broke = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
        raise _FailedError(_cause(error), again=isinstance(error, broke)) from None


def _cause(error: BaseException) -> str:
    """The innermost reason, without the layers that requests and urllib3 wrap around it."""
    while True:
        nested = getattr(error, "reason", None) or next(iter(error.args), None)
        if not isinstance(nested, BaseException):
            return (nested if isinstance(nested, str) else str(error)) or type(error).__name__
        error = nested
