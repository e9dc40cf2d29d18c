"""`RemoteFile`, a file on the server of a dataset's publisher, and the mapping from URLs to paths in a mirror."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from harness.errors import PluginError


class RemoteFile(Struct, frozen=True, kw_only=True):
    """A file on a publisher's server, with checksums for verifying the download.

    Declare `sha256` if possible. Declare `members` instead if the publisher regenerates the archive in a way that
    changes its bytes but not its contents. A file without checksums is installed with a warning that it cannot be
    verified.
    """

    url: str
    """URL of the file, starting with ``http://`` or ``https://``."""
    sha256: str = ""
    """SHA-256 (hex) of the downloaded file. The string is empty if no SHA-256 is declared."""
    bytes: int | None = None
    """Download size in bytes, or None if unknown. The size may be approximate if only `members` are verified."""
    alternates: tuple[str, ...] = ()
    """Alternative URLs of the same file, tried in order after `url`."""
    members: dict[str, str] = {}
    """SHA-256 (hex) of archive members, keyed by member name. Only the listed members are extracted.

    A key that contains ``*`` (which also matches ``/``), ``?`` or ``[...]`` selects all matching members. For such a
    key, the value is the SHA-256 of a list of the selected members in ``sha256sum`` format. The list has one line
    ``<sha256> <member>`` per member, and is sorted by member name.
    """
    extract: bool = False
    """True to install the contents of a zip, tar, tar.gz, tar.bz2, tar.xz or gz file. False to install the file
    itself."""
    name: str = ""
    """Local file name. If empty, the last component of the URL's path is used."""

    def __post_init__(self) -> None:
        """Validate the declaration.

        Raises
        ------
        harness.PluginError
            If a URL, a checksum or the file name is not valid.
        """
        for url in (self.url, *self.alternates):
            mirror_path(url)
        for digest in (self.sha256, *self.members.values()):
            if digest and not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
                raise PluginError(f"{self.url}: {digest!r} is not a SHA-256 digest; write 64 hexadecimal digits")
        name = self.local_name
        if name.startswith(".") or "/" in name or "\0" in name:
            raise PluginError(f"{self.url}: {name!r} is not a valid file name; set RemoteFile(name=...)")

    @property
    def local_name(self) -> str:
        """Name of the file in the dataset's folder."""
        return self.name or re.sub(r"[^\w.+~@-]", "_", unquote(PurePosixPath(urlsplit(self.url).path).name))

    @property
    def unpacked(self) -> bool:
        """True if the contents of the file are installed instead of the file itself."""
        return self.extract or bool(self.members)


def mirror_path(url: str) -> str:
    """Return the path of a file in a mirror, in the form ``<host>/<path>`` that ``wget -x`` uses.

    Percent-encoded characters are decoded. A non-default port is appended to the host (``host:8000``). A query string
    is appended to the file name (``file?v=2``). Slashes in the query string are encoded as ``%2F``.

    Parameters
    ----------
    url : str
        URL of the file.

    Returns
    -------
    str
        Relative path in the mirror.

    Raises
    ------
    harness.PluginError
        If the URL is not the HTTP(S) URL of a file.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.path.startswith("/")
        port = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise PluginError(f"{url!r} cannot be downloaded; write http://HOST/PATH or https://HOST/PATH")
    host = parts.hostname or ""
    default = {"http": 80, "https": 443}[parts.scheme]
    place = host if port in (None, default) else f"{host}:{port}"
    names = [unquote(name) for name in parts.path.split("/")[1:]]
    if parts.query:
        names[-1] += "?" + unquote(parts.query).replace("/", "%2F")
    if any(name in ("", ".", "..") or "/" in name or "\0" in name for name in names):
        raise PluginError(f"{url!r} is not the URL of a file; remove empty parts, . and .. from its path")
    return "/".join([place, *names])


def total_bytes(files: Iterable[RemoteFile]) -> int | None:
    """Return the total download size in bytes, or None if the size of a file is unknown."""
    sizes = [file.bytes for file in files]
    return None if None in sizes else sum(size or 0 for size in sizes)


def megabytes(size: int | None) -> str:
    """Format a size in bytes. For example, 1573302 bytes are formatted as ``1.6 MB``."""
    if size is None:
        return "unknown size"
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"
