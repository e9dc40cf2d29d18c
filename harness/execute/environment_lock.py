"""Lock files of named environments, which contain the exact versions of Python and of all packages."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from harness.plugins.requirements import normalized, own_distributions

_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_LOCAL = "not from a package index"
"""Comment in a lock file that marks a distribution installed from a folder, file or URL."""


class _Report(Struct, frozen=True):
    """Fields of pip's installation report (``pip install --report``) that this module uses."""

    install: list[_Installed] = []


class _Installed(Struct, frozen=True):
    metadata: dict[str, object]
    download_info: _Download


class _Download(Struct, frozen=True):
    archive_info: _Archive | None = None


class _Archive(Struct, frozen=True):
    hashes: dict[str, str] = {}


def lock_text(python: str, packages: Sequence[tuple[str, str, str]], report: Path) -> str:
    """Return the lock: Python's version and the exact version of every distribution, in the format of a requirements
    file.

    `packages` contains the name, version and ``direct_url.json`` content of each distribution. `report` is the path of
    pip's installation report, which may not exist.

    The hashes of downloaded files are written as comments, because files for other platforms have different hashes.
    """
    hashes = _hashes(report)
    lines = []
    for name, version, origin in sorted(packages, key=lambda package: normalized(package[0])):
        digest = hashes.get(normalized(name))
        comment = _LOCAL if '"url"' in origin else f"sha256:{digest}" if digest else ""
        lines.append(f"{name}=={version}" + (f"  # {comment}" if comment else ""))
    return "\n".join([f"# {python}", *lines, ""])


def _hashes(report: Path) -> dict[str, str]:
    """Return the SHA-256 digest of each downloaded distribution, by normalized name, as listed in pip's report."""
    try:
        installed = msgspec.json.decode(report.read_bytes(), type=_Report).install
    except (OSError, ValueError):
        return {}
    hashes = {}
    for each in installed:
        archive = each.download_info.archive_info
        if archive is not None and "sha256" in archive.hashes:
            hashes[normalized(str(each.metadata.get("name", "")))] = archive.hashes["sha256"]
    return hashes


def pins(lock: str) -> tuple[list[str], list[str]]:
    """Return the lines of a lock file that are needed to recreate the environment, and the remaining lines.

    Only exact versions from a package index are returned as requirements, because the lock file may come from an
    untrusted source. The distributions of harness and of the installed plugins are omitted. `create` installs these
    distributions from the sources used in this process's environment.
    """
    own = {normalized(name) for name in own_distributions()}
    wanted: list[str] = []
    others: list[str] = []
    for line in lock.splitlines():
        requirement, _, comment = map(str.strip, line.partition("#"))
        if requirement and normalized(requirement.partition("==")[0]) not in own:
            installable = _PINNED.fullmatch(requirement) and comment != _LOCAL
            (wanted if installable else others).append(requirement)
    return wanted, others


def interpreter_of(lock: str) -> tuple[str, str]:
    """Return the command for a Python interpreter with the minor version in a lock file, such as ``python3.12``, and a
    warning.

    The command is empty if the interpreter of this process has the version in the lock file. If no interpreter with the
    version in the lock file is installed, the command is empty and the warning describes the difference. Otherwise, the
    warning is empty.
    """
    version = re.match(r"# CPython (3\.\d{1,3})\.\d", lock)
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if version is None or version[1] == here:
        return "", ""
    command = f"python{version[1]}"
    if shutil.which(command) is not None:
        return command, ""
    return "", f"{command} is not installed, so Python {here} is used, for which other package versions may be needed"
