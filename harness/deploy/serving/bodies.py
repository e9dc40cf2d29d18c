"""Conversion of the body of an HTTP request to the examples of the request."""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from harness.data.user_files.json_rows import RepeatedKeyError, marked
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

        def reserve(received: int) -> bool:
            nonlocal size
            if self._pending_bytes + received > self._limits.pending_bytes:
                return False
            size += received
            self._pending_bytes += received
            return True

        try:
            part = await self._parsed(scope, await self._received(receive, reserve))
            encoded, examples = _encoded(part), self._examples(part)
            del part  # otherwise, it would stay in memory until the request is answered
            yield encoded, examples
        finally:
            self._pending_bytes -= size

    async def _received(self, receive: Receive, reserve: Callable[[int], bool]) -> bytes:
        """Return the body of a request.

        `reserve` is called with the size of each chunk, and returns False if the service cannot keep the chunk.
        """
        limits = self._limits
        body = bytearray()
        received, more, is_overloaded = 0, True, False
        try:
            async with asyncio.timeout(limits.body_s):
                while more and received <= DISCARDED * limits.body_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "the client closed the connection")
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    received += len(chunk)
                    # The rest of a body that cannot be kept is discarded. A client that is still sending would not
                    # read the answer.
                    if received <= limits.body_bytes and not is_overloaded:
                        is_overloaded = not reserve(len(chunk))
                        body += chunk
                    if is_overloaded:
                        body.clear()
        except TimeoutError:
            raise RefusedError(
                408,
                f"the body did not arrive within {limits.body_s:g} s; use a faster connection or send a smaller body",
            ) from None
        if received > limits.body_bytes:
            raise RefusedError(413, _too_large(limits.body_bytes))
        if is_overloaded:
            raise RefusedError(503, "the service is overloaded; try again later", retry_after_s=1)
        return bytes(body)

    async def _parsed(self, scope: Any, body: bytes) -> Part:
        encoding = _header(scope, b"content-encoding").strip().lower()
        if encoding not in ("", "identity"):
            raise RefusedError(415, f"unsupported content encoding {encoding[:100]!r}; send the body uncompressed")
        header = _header(scope, b"content-type")
        content_type = header.partition(";")[0].strip().lower()
        charset = CHARSET.search(header)
        if content_type == "application/json":
            _check_charset(charset)
            return self._from_json(body)
        if content_type == "multipart/form-data":
            return Part(files=await _uploaded(scope, body, self._limits))
        for known, suffix in FILE_TYPES[self._kind].items():
            if content_type == known or (known.endswith("*") and content_type.startswith(known[:-1])):
                if not body:
                    raise RefusedError(422, "the body is empty; send a file")
                if self._kind not in MEDIA:
                    _check_charset(charset)
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
        _check_repeated(body, instances)
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


def _check_repeated(body: bytes, instances: Sequence[Any]) -> None:
    """Raise `RefusedError` if an object in a valid body contains a key more than once. msgspec keeps the last value."""
    keys = 1 + sum(len(instance) for instance in instances if isinstance(instance, dict))
    if body.count(b":") == keys:  # There are more colons if a key is repeated, or if a string contains a colon.
        return
    found = json.loads(body, object_pairs_hook=marked, parse_int=float)  # int rejects numbers with many digits
    if isinstance(found, RepeatedKeyError):
        raise RefusedError(422, f"{found}; send each key once")
    bad = [
        {"index": number, "message": f"{instance}; send each key once"}
        for number, instance in enumerate(found["instances"])
        if isinstance(instance, RepeatedKeyError)
    ]
    if bad:
        raise RefusedError(422, f"example {bad[0]['index']}: {bad[0]['message']}", bad[:100])


def _check_charset(charset: re.Match[str] | None) -> None:
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise RefusedError(415, f"unsupported charset {charset[1][:100]!r}; encode the text as UTF-8")


def _header(scope: Any, wanted: bytes) -> str:
    return next((value for name, value in scope["headers"] if name == wanted), b"").decode("latin-1")


def _not_strict(body: bytes) -> str:
    """Return the reason why only a lenient parser accepts the body, or an empty string. msgspec does not report
    this reason."""
    if body.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "it starts with a byte order mark; encode it as UTF-8 without this mark"
    try:
        json.loads(body.decode())
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
