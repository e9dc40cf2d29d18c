"""Limits on the amount of data that a child process writes to its channel and its log."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from harness.records.files import write_new

MAX_LINE_BYTES = 64 * 2**20
"""Maximum length of a line on the channel. Longer lines are ignored and counted."""
LOG_HEAD_BYTES = LOG_TAIL_BYTES = 4 * 2**20
"""Maximum number of bytes logged from the beginning of a child's output, and maximum number of bytes logged from its
end."""
EVENT_BURST = 20_000
EVENTS_PER_S = 2_000
"""Maximum number of events of a child in a burst, and maximum average number of events per second. Further events are
dropped, so a child cannot slow down the parent by sending too many events.
"""


class Lines:
    """A splitter that divides data into lines and forwards the complete lines. Empty lines and lines longer than
    `MAX_LINE_BYTES` are skipped.
    """

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = bytearray()
        self.too_long = 0
        """Number of complete lines that were longer than the limit."""

    def feed(self, data: bytes) -> None:
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._extend(end)
            if len(self._rest) > MAX_LINE_BYTES:
                self.too_long += 1
            elif self._rest:
                self._on_line(bytes(self._rest))
            self._rest.clear()
        self._extend(rest)

    def _extend(self, data: bytes) -> None:
        self._rest += data[: MAX_LINE_BYTES + 1 - len(self._rest)]


class EventLimit:
    """A token bucket that limits events to bursts of `EVENT_BURST` and an average rate of `EVENTS_PER_S`."""

    def __init__(self) -> None:
        self._left, self._at = float(EVENT_BURST), time.monotonic()
        self.dropped = 0

    def admits(self) -> bool:
        """Count an event and return True if it is within the limit."""
        if self._left < 1:
            now = time.monotonic()
            self._left = min(EVENT_BURST, self._left + (now - self._at) * EVENTS_PER_S)
            self._at = now
            if self._left < 1:
                self.dropped += 1
                return False
        self._left -= 1
        return True


class Log:
    """The log file of a child. If the output is longer than `LOG_HEAD_BYTES` + `LOG_TAIL_BYTES`, only its beginning and
    end are kept.

    The beginning of the output is written immediately, and the end of the output is written when the log is closed.
    Errors while writing, such as those caused by a full disk, are ignored. If the log file is removed while the child
    is running, it is created again when the log is closed. Raises OSError if the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = io.FileIO(path, "w+")
        self._head_left = LOG_HEAD_BYTES
        self._tail = bytearray()
        self._unwritten = 0
        """Number of output bytes that were not written to the file immediately. `_tail` contains the last of these
        bytes.
        """

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def feed(self, data: bytes) -> None:
        """Add output to the log."""
        if self._head_left:
            written = self._write(data[: self._head_left])
            self._head_left = self._head_left - written if written else 0
            data = data[written:]
        if data:
            self._unwritten += len(data)
            self._tail += data
            del self._tail[: max(0, len(self._tail) - LOG_TAIL_BYTES)]

    def note(self, text: str) -> None:
        """Add a message from harness to the log, on a separate line."""
        self.feed(f"harness: {text}\n".encode())

    def close(self) -> None:
        """Write the end of the output, and close the file."""
        if self._file.closed:
            return
        left_out = self._unwritten - len(self._tail)
        if left_out:
            self._write(f"\n[... {left_out} bytes were omitted here ...]\n".encode())
        self._write(bytes(self._tail))
        with self._file, contextlib.suppress(OSError):
            if not self._path.exists():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file.seek(0)
                write_new(self._path, self._file.readall() or b"")  # Do not follow a link that the child created.

    def last(self, size: int) -> str:
        """Return the end of the output, including any part that could not be written to the file."""
        with contextlib.suppress(OSError, ValueError):
            self._file.seek(max(0, self._file.seek(0, 2) - size))
            return ((self._file.readall() or b"") + self._tail)[-size:].decode(errors="replace")
        return self._tail[-size:].decode(errors="replace")

    def _write(self, data: bytes) -> int:
        """Write as much of the data as possible, and return the number of bytes written."""
        done = 0
        try:
            while done < len(data):
                done += self._file.write(data[done:]) or 0
        except OSError:
            pass
        return done
