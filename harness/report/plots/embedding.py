"""Embedding of data and of the plotting library in HTML pages."""

from __future__ import annotations

import contextlib
import hashlib
from importlib.metadata import version
from typing import Any

import msgspec

from harness.data.cache import cache_dir
from harness.errors import HarnessError, RecordError
from harness.records.files import write_whole
from harness.records.printing import clean
from harness.records.reading import MAX_JSON_BYTES, read_named


def vega() -> bytes:
    """Return Vega, Vega-Lite and vega-embed, bundled into one script. The script is cached because bundling takes
    several seconds."""
    cached = cache_dir() / "site" / f"vega-2-by-vl-convert-{version('vl-convert-python')}.js"
    with contextlib.suppress(RecordError):
        bundle, _, digest = read_named(cached, MAX_JSON_BYTES).rpartition(b"\n")
        if hashlib.sha256(bundle).hexdigest().encode() == digest:
            return bundle
    import vl_convert

    bundle = vl_convert.javascript_bundle(None).encode()  # type: ignore[arg-type]  # the stub lacks the default None
    # If the cache is not writable, the script is bundled again next time.
    with contextlib.suppress(OSError, HarnessError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cached, b"%b\n%b" % (bundle, hashlib.sha256(bundle).hexdigest().encode()))
    return bundle


def embedded_json(value: Any) -> str:
    """Return a value as JSON without HTML tags, so that it can safely be embedded in a script element."""
    text = msgspec.json.encode(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def cleaned(value: Any) -> Any:
    """Replace characters that XML 1.0 does not allow, such as control characters, in all strings within a value.

    Such a character in a plot would make `vl_convert` terminate the process.
    """
    if isinstance(value, str):
        return clean(value).replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd")
    if isinstance(value, dict):
        return {cleaned(key): cleaned(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(each) for each in value]
    return value
