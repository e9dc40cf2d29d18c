"""`RemoteFile`: a file that a dataset's publisher offers, and how its URL becomes a path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from harness.errors import PluginError


class RemoteFile(Struct, frozen=True, kw_only=True):
    """A file on its publisher's server, and what it must be when it arrives.

    Declare `sha256`, or `members` where the publisher packs the same contents into ever different bytes. A file with
    neither is installed with a warning that nobody can tell whether it is the right one.
    """

    url: str
    """``http://`` or ``https://``."""
    sha256: str = ""
    """SHA-256 (hex) of the file as it comes."""
    bytes: int | None = None
    """Size of the file as it comes; approximate where only `members` are verified."""
    alternates: tuple[str, ...] = ()
    """Other URLs of the same file, tried in this order after `url`."""
    members: dict[str, str] = {}
    """Archive member -> SHA-256 (hex). The members are verified and nothing else is extracted.

    A key with ``*`` (which also matches ``/``), ``?`` or ``[...]`` stands for all members that match; its value is the
    SHA-256 of their listing as ``sha256sum`` prints it: a line ``<sha256>  <member>`` for each, sorted by member.
    """
    extract: bool = False
    """Install what a zip, tar, tar.gz, tar.bz2 or tar.xz archive or a single gz file holds, instead of the file."""
    name: str = ""
    """Local name; without it the last part of the URL's path."""

    def __post_init__(self) -> None:
        """Raises `harness.PluginError` for what could never be fetched, so that its plugin is told at once."""
        for url in (self.url, *self.alternates):
            mirror_path(url)
        for digest in (self.sha256, *self.members.values()):
            if digest and not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
                raise PluginError(f"{self.url}: {digest!r} is no SHA-256; that is 64 hexadecimal digits")
        name = self.local_name
        if name.startswith(".") or "/" in name or "\0" in name:
            raise PluginError(f"{self.url}: {name!r} is no name for a file; give RemoteFile(name=...)")

    @property
    def local_name(self) -> str:
        """Name of the file in the dataset's folder."""
        return self.name or re.sub(r"[^\w.+~@-]", "_", unquote(PurePosixPath(urlsplit(self.url).path).name))

    @property
    def unpacked(self) -> bool:
        """Whether contents are installed rather than the file."""
        return self.extract or bool(self.members)


def mirror_path(url: str) -> str:
    """Where a mirror keeps the file of `url`: ``<host>/<path>``, percent-encoding decoded, as ``wget -x`` lays it out.

    A port other than the scheme's own stays with the host (``host:8000``), a query with the file's name (``file?v=2``),
    its slashes as ``%2F``. Raises `harness.PluginError` for a URL that is not a file's.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.path.startswith("/")
        port = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise PluginError(f"{url!r} is no URL that can be fetched; it must be http://HOST/PATH or https://HOST/PATH")
    host = parts.hostname or ""
    default = {"http": 80, "https": 443}[parts.scheme]
    place = host if port in (None, default) else f"{host}:{port}"
    names = [unquote(name) for name in parts.path.split("/")[1:]]
    if parts.query:
        names[-1] += "?" + unquote(parts.query).replace("/", "%2F")
    if any(name in ("", ".", "..") or "/" in name or "\0" in name for name in names):
        raise PluginError(f"{url!r} names no file: it has an empty or a dotted part in its path")
    return "/".join([place, *names])


def total_bytes(files: Iterable[RemoteFile]) -> int | None:
    """What there is to download; None where a file does not say."""
    sizes = [file.bytes for file in files]
    return None if None in sizes else sum(size or 0 for size in sizes)


def megabytes(size: int | None) -> str:
    """``1573302`` -> ``1.6 MB``."""
    if size is None:
        return "unknown size"
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
