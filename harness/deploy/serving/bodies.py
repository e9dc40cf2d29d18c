"""Conversion of the body of an HTTP request to the examples of the request."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harness.data.user_files.location import MEDIA
from harness.deploy.serving.frames import File, Part
from harness.deploy.serving.limits import Limits
from harness.deploy.serving.requests import RefusedError

if TYPE_CHECKING:
    from harness.deploy.serving.guard import Receive

FILE_TYPES: dict[str, dict[str, str]] = {
    "text": {"text/plain": ".txt", "text/csv": ".csv", "application/x-ndjson": ".jsonl"},
    "table": {"text/csv": ".csv", "application/x-ndjson": ".jsonl"},
    "image": {"image/*": ""},
    "audio": {"audio/*": ""},
}
"""File suffix for each content type of a request body that consists of a single file, keyed by the kind of raw input.
"""


CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)
INSTANCE = re.compile(r"`\$\.instances\[(\d+)\]")

DISCARDED = 4
"""Oversized bodies are received and discarded if they are at most this many times the maximum size. For larger bodies,
the connection is closed, and the client may not receive the answer.
"""


class Texts(Struct, forbid_unknown_fields=True):
    instances: list[str]


class Rows(Struct, forbid_unknown_fields=True):
    instances: list[dict[str, str | int | float | bool | None]]


class Media(Struct, forbid_unknown_fields=True):
    instances: list[bytes]
    """Contents of files, encoded as Base64."""


DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "text": msgspec.json.Decoder(Texts),
    "table": msgspec.json.Decoder(Rows),
    "image": msgspec.json.Decoder(Media),
    "audio": msgspec.json.Decoder(Media),
}


class Bodies:
    """Reader of request bodies for one kind of raw input. The reader limits the sizes of the bodies."""

    def __init__(self, kind: str, limits: Limits) -> None:
        self._kind, self._limits = kind, limits
        self._pending_bytes = 0

    @asynccontextmanager
    async def part(self, scope: Any, receive: Receive) -> AsyncIterator[tuple[msgspec.Raw, int]]:
        """Yield the encoded examples of a request (`Part`) and their number. The size of the body counts toward the
        pending bytes until the context manager exits. `scope` and `receive` are the ASGI arguments.

        Raises `RefusedError` if the body is too large, arrives too slowly or is not valid.
        """
        size = 0

        def count(received: int) -> None:
            nonlocal size
            size += received
            self._pending_bytes += received
            if self._pending_bytes > self._limits.pending_bytes:
                raise RefusedError(503, "the service is overloaded; try again later", retry_after_s=1)

        try:
            part = await self._parsed(scope, await self._received(receive, count))
            encoded, examples = _encoded(part), self._examples(part)
            del part  # otherwise, it would stay in memory until the request is answered
            yield encoded, examples
        finally:
            self._pending_bytes -= size

    async def _received(self, receive: Receive, count: Callable[[int], None]) -> bytes:
        """Return the body of a request. `count` is called with the size of each chunk that is kept."""
        limits = self._limits
        body = bytearray()
        received, more = 0, True
        try:
            async with asyncio.timeout(limits.body_s):
                while more and received <= DISCARDED * limits.body_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "the client closed the connection")
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    received += len(chunk)
                    # The rest of a body that is too large is discarded. A client that is still sending would not read
                    # the answer.
                    if received <= limits.body_bytes:
                        body += chunk
                        count(len(chunk))
        except TimeoutError:
            raise RefusedError(
                408,
                f"the body did not arrive within {limits.body_s:g} s; use a faster connection or send a smaller body",
            ) from None
        if received > limits.body_bytes:
            raise RefusedError(413, _too_large(limits.body_bytes))
        return bytes(body)

    async def _parsed(self, scope: Any, body: bytes) -> Part:
        encoding = _header(scope, b"content-encoding").strip().lower()
        if encoding not in ("", "identity"):
            raise RefusedError(415, f"unsupported content encoding {encoding[:100]!r}; send the body uncompressed")
        header = _header(scope, b"content-type")
        content_type = header.partition(";")[0].strip().lower()
        if content_type == "application/json":
            return self._from_json(body)
        if content_type == "multipart/form-data":
            return Part(files=await _uploaded(scope, body, self._limits))
        for known, suffix in FILE_TYPES[self._kind].items():
            if content_type == known or (known.endswith("*") and content_type.startswith(known[:-1])):
                if not body:
                    raise RefusedError(422, "the body is empty; send a file")
                charset = CHARSET.search(header)
                if self._kind not in MEDIA and charset and charset[1].lower() not in ("utf-8", "us-ascii"):
                    raise RefusedError(415, f"unsupported charset {charset[1][:100]!r}; encode the text as UTF-8")
                return Part(files=[File(f"body{suffix}", body)])
        known_types = ", ".join(["application/json", "multipart/form-data", *FILE_TYPES[self._kind]])
        raise RefusedError(415, f"unsupported content type {content_type[:100]!r}; send one of: {known_types}")

    def _from_json(self, body: bytes) -> Part:
        try:
            instances = DECODERS[self._kind].decode(body).instances
        except msgspec.ValidationError as error:
            reason, _, place = str(error).partition(" - at ")
            if instance := INSTANCE.match(place):
                number = int(instance[1])
                raise RefusedError(422, f"example {number}: {reason}", [{"index": number, "message": reason}]) from None
            raise RefusedError(422, f"the body does not have the expected form: {error}") from None
        except UnicodeDecodeError:
            raise RefusedError(400, "the body is not encoded as UTF-8") from None
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise RefusedError(400, f"the body is not valid JSON: {_not_strict(body) or error}") from None
        if not instances:
            raise RefusedError(422, "the list of instances is empty; send at least one")
        if len(instances) > self._limits.request_examples:
            raise RefusedError(
                413,
                f"the request contains {len(instances):,} examples; send at most "
                f"{self._limits.request_examples:,} per request",
            )
        if self._kind in MEDIA:
            return Part(files=[File(f"instance-{number}", content) for number, content in enumerate(instances)])
        return Part(instances=instances)

    def _examples(self, part: Part) -> int:
        """Return the number of examples. For a table, return the size of a full batch, because the table has not been
        read yet.
        """
        if part.instances:
            return len(part.instances)
        return len(part.files) if self._kind in MEDIA else self._limits.batch_size


def _header(scope: Any, wanted: bytes) -> str:
    return next((value for name, value in scope["headers"] if name == wanted), b"").decode("latin-1")


def _not_strict(body: bytes) -> str:
    """Return the reason why only a lenient parser accepts the body, or an empty string. msgspec does not report
    this reason."""
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return ""
    return "NaN, infinite numbers and unpaired surrogates are not allowed"


def _encoded(part: Part) -> msgspec.Raw:
    try:
        return msgspec.Raw(msgspec.msgpack.encode(part))
    except OverflowError:
        raise RefusedError(422, "the body contains an integer with more than 64 bits; send a smaller number") from None
    except UnicodeEncodeError:
        raise RefusedError(400, "the name of a file is not valid Unicode; use a different name") from None


async def _uploaded(scope: Any, body: bytes, limits: Limits) -> list[File]:
    """Return the files in a form. Raises `RefusedError` if the form is invalid, incomplete or contains no files."""
    from starlette.datastructures import Headers
    from starlette.formparsers import MultiPartException, MultiPartParser

    class Parser(MultiPartParser):
        """Parser that records whether it found the boundary that ends the form. Without this boundary, the last file
        may be missing."""

        is_complete = False

        def on_end(self) -> None:
            self.is_complete = True

    async def stream() -> AsyncGenerator[bytes]:
        yield body

    parser = Parser(Headers(scope=scope), stream(), max_files=limits.request_examples, max_fields=16)
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:
        raise RefusedError(400, f"the form is not valid: {getattr(error, 'message', error)}") from None
    files = []
    try:
        if not parser.is_complete:
            raise RefusedError(400, "the form is incomplete: the final boundary is missing; send the form again")
        for _, value in form.multi_items():
            if isinstance(value, str):
                raise RefusedError(422, "the form contains a field that is not a file; send only files")
            files.append(File(Path(value.filename or "file").name[-100:], await value.read()))
    finally:
        await form.close()
    if not files:
        raise RefusedError(422, "the form contains no files; send at least one")
    return files


def _too_large(most_bytes: int) -> str:
    return f"the body is too large; send at most {most_bytes:,} bytes"
