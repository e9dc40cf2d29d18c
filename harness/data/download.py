"""Download a file from the first source with the expected content: the mirror, the publisher or an alternate URL."""

from __future__ import annotations

import queue
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from harness.data import archives
from harness.data.cache import mirror, offline
from harness.errors import DataError, RecordError
from harness.interfaces.remote import RemoteFile, mirror_path
from harness.records.reading import open_named

if TYPE_CHECKING:
    import requests

TRIES = 3
"""Number of attempts per source. Another attempt is made if the server does not respond, drops the connection or
reports that it is busy.
"""
PAUSE_S = 2.0
"""Delay before the second attempt, in seconds. The delay doubles before each further attempt."""
TIMEOUT_S = 60.0
"""Maximum time without a response from a server, in seconds."""
MAX_UNDECLARED_BYTES = 4 * 2**30
"""Maximum size of a file without a declared size."""
DEADLINE_S = 24 * 3600.0
"""Maximum duration of a download, in seconds."""
MIN_RATE, RATE_S = 4096, 60.0
"""Minimum download rate in bytes per second, averaged over periods of `RATE_S` seconds."""
_CHUNK = 1 << 18

Report = Callable[[str, int, int | None], None]
"""Callback that receives the file name, the number of bytes downloaded so far, and the expected total (None if
unknown).
"""


class Source(NamedTuple):
    """A location from which a file can be downloaded."""

    name: str
    """Name of the location, as shown in messages."""
    location: str | Path
    """URL, or path of a local file."""


class _FailedError(Exception):
    """Error raised if a source cannot provide the file. `retry` is true if another attempt might succeed."""

    def __init__(self, reason: str, *, retry: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry


def sources(file: RemoteFile) -> list[Source]:
    """Return the sources, in the order in which they are tried. If network access is disabled, only a mirror directory
    is used.
    """
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

    Files are first written to a temporary folder next to `folder`, so `folder` never contains an incomplete download.
    Raises `harness.DataError` if no source provides the file. The message contains one line per source. Raises OSError
    if a file cannot be written.
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
    """Verify the received file, then move it or extract it into `contents`."""
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
    """Return a note for the error message if the received file is a web page, and an empty string otherwise."""
    with received.open("rb") as file:
        start = file.read(4096).decode("utf-8", "replace")
    if not re.match(r"\s*<(!doctype|html|head|\?xml)", start, re.IGNORECASE):
        return ""
    title = re.search(r"<title>\s*(.*?)\s*</title>", start, re.IGNORECASE | re.DOTALL)
    return f", a web page{f' titled {title[1][:80]!r}' if title else ''}"


class _Counted:
    """A writable file that reports its size, and raises an error if it becomes larger than the remote file."""

    def __init__(self, file: IO[bytes], remote: RemoteFile, report: Report) -> None:
        self._file, self._remote, self._report = file, remote, report
        self._done = 0
        self._limit = MAX_UNDECLARED_BYTES if remote.bytes is None else remote.bytes
        if remote.bytes is not None and remote.members and not remote.sha256:
            # An archive without a digest may grow, because only its members are verified.
            self._limit = 10 * remote.bytes + 2**26
        report(remote.local_name, 0, remote.bytes)

    def write(self, data: bytes) -> int:
        self._done += len(data)
        self.check(self._done)
        self._report(self._remote.local_name, self._done, self._remote.bytes)
        return self._file.write(data)

    def check(self, size: int) -> None:
        """Raise `_FailedError` if `size`, in bytes, exceeds the limit for the file."""
        if size <= self._limit:
            return
        if self._remote.bytes is None:
            raise _FailedError(
                f"the file has more than {self._limit} bytes, the limit for files without a declared size; declare its "
                "size with RemoteFile(bytes=...)"
            )
        raise _FailedError(f"expected {self._remote.bytes} bytes, received more")


def _receive(source: Source, file: RemoteFile, into: Path, report: Report) -> None:
    with into.open("xb") as opened:
        target = _Counted(opened, file, report)
        if isinstance(source.location, Path):
            _copy(source.location, target)
        else:
            _get(source.location, target)


def _copy(path: Path, target: _Counted) -> None:
    try:
        source = open_named(path, 2**63)
    except RecordError as error:
        raise _FailedError(str(error).removeprefix(f"{path}: ").removeprefix("cannot be read: ")) from None
    with source:
        while True:
            try:
                data = source.read(_CHUNK)
            except OSError as error:
                raise _FailedError(f"cannot be read: {error.strerror}") from None
            if not data:
                return
            target.write(data)


def _get(url: str, target: _Counted) -> None:
    start = time.monotonic()
    response = _response(url)
    with response:
        declared = response.headers.get("Content-Length", "")
        if declared.isascii() and declared.isdigit():
            target.check(int(declared))
        received, before, since = 0, 0, time.monotonic()
        while data := _part(response):
            target.write(data)  # errors of the disk are raised, because no other source can fix them
            received += len(data)
            now = time.monotonic()
            if now - start > DEADLINE_S:
                raise _FailedError(f"the download did not finish within {DEADLINE_S:g} s")
            if now - since >= RATE_S:
                rate = (received - before) / (now - since)
                if rate < MIN_RATE:
                    raise _FailedError(
                        f"the download rate was {rate:.0f} bytes per second, below the minimum of {MIN_RATE}",
                        retry=True,
                    )
                before, since = received, now


def _part(response: requests.Response) -> bytes:
    """Wait for at least one byte, and return the bytes received so far. Return an empty result at the end of the
    response.
    """
    try:
        data: bytes = response.raw.read1(_CHUNK, decode_content=True)
        return data
    except Exception as error:  # urllib3 raises many types of exceptions, none of which affects the other sources
        raise _FailedError(_cause(error), retry=True) from None


def _response(url: str) -> requests.Response:
    """Send the request and return the response without reading its body.

    The request is sent in a daemon thread. A server that sends a header one byte at a time never triggers the socket
    timeout.
    """
    outcomes: queue.SimpleQueue[requests.Response | Exception] = queue.SimpleQueue()

    def send() -> None:
        import requests

        # Without this Accept-Encoding, some servers send .gz files as compressed transfers.
        headers = {"Accept-Encoding": "identity", "User-Agent": "harness"}
        try:
            outcomes.put(requests.get(url, headers=headers, timeout=TIMEOUT_S, stream=True))
        except Exception as error:
            outcomes.put(error)

    threading.Thread(target=send, daemon=True).start()
    try:
        outcome = outcomes.get(timeout=2 * TIMEOUT_S)
    except queue.Empty:
        raise _FailedError(f"no response within {2 * TIMEOUT_S:g} s", retry=True) from None
    if isinstance(outcome, Exception):
        import requests

        transient = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
        raise _FailedError(_cause(outcome), retry=isinstance(outcome, transient))
    status = outcome.status_code
    if status != 200:  # for example 206, which is a response with a part of the file
        outcome.close()
        raise _FailedError(f"HTTP status {status} {outcome.reason}", retry=status >= 500 or status in (408, 429))
    encoding = outcome.headers.get("Content-Encoding", "").strip().lower()
    # Requests may not be able to decode other encodings.
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        outcome.close()
        raise _FailedError(f"the response has the encoding {encoding!r}, which was not requested")
    return outcome


def _cause(error: BaseException) -> str:
    """Return the message of the original exception, which requests and urllib3 wrap in other exceptions."""
    while True:
        nested = getattr(error, "reason", None) or next(iter(error.args), None)
        if not isinstance(nested, BaseException):
            return (nested if isinstance(nested, str) else str(error)) or type(error).__name__
        error = nested
