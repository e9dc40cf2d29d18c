"""Constraints for installers, which keep packages at the versions of the current environment."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from harness.plugins.requirements import direct_url, normalized

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.!+_-]*")
_EXACT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)")
_RANGE = re.compile(r"only ([A-Za-z0-9][A-Za-z0-9._-]*)[<>]")
_PIP = re.compile(r"\(constraint\) ([A-Za-z0-9][A-Za-z0-9._-]*)")
"""Pattern that matches the name of a package in a message from pip about a conflict, such as
``The user requested (constraint) numpy==2.1.0``."""


def constraints(requirements: Iterable[str], own: Iterable[str], *, urls: bool = True) -> list[str]:
    """Return a constraint for each distribution in this process's environment, such as ``numpy==2.1.0``.

    Distributions named in `requirements` or `own` have no constraint. `requirements` are lines of a requirements file.
    If `urls` is true, the constraint of a distribution that was not installed from a package index contains the source
    of the distribution (PEP 610). The source is omitted if it is a file or folder that no longer exists.
    """
    free = {normalized(name) for name in (*own, *map(_named, requirements))}
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name, version = str(distribution.metadata["Name"]), distribution.version
        key = normalized(name)
        if key in found or not _NAME.fullmatch(name) or not _VERSION.fullmatch(version or ""):
            continue
        url = direct_url(name) if urls else ""
        place = Path(url2pathname(urlparse(url).path)) if url.startswith("file:") else None
        exists = url and (place is None or place.exists())
        found[key] = f"{name} @ {url}" if exists else f"{name}=={version}"
    return [text for key, text in sorted(found.items()) if key not in free]


def _named(requirement: str) -> str:
    """Return the name of the distribution in a line of a requirements file, or an empty string if it has no name."""
    text = requirement.strip()
    wheel = re.search(r"([^/\\]+?)-[^/\\]*\.whl\b", text)
    egg = re.search(r"#egg=([\w.-]+)", text)
    named = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*($|[\[<>=!~;@#\s])", text)
    for found in (named, wheel, egg):
        if found is not None:
            return found[1]
    return ""


def conflicting(output: str, given: Sequence[str]) -> list[str]:
    """Return the constraints in `given` that the output of pip or uv names as the reason for a failure."""
    reasons = _reasons(output)
    blamed = {normalized(name) for name in _PIP.findall(output)}
    blamed |= {f"{normalized(name)}=={version}" for name, version in _EXACT.findall(reasons)}
    # If a distribution has a URL, uv describes the conflict by the versions that the URL provides, such as "a<2".
    blamed |= {f"{normalized(name)} @" for name in _RANGE.findall(reasons)}
    found = []
    for constraint in given:
        name, separator, rest = re.split(r"( @ |==)", constraint, maxsplit=1)
        key = normalized(name)
        if not blamed.isdisjoint({key, f"{key}=={rest}" if separator == "==" else f"{key} @"}):
            found.append(constraint)
    return found


def _reasons(output: str) -> str:
    """Return the part of an installer's output that starts at the first error. Before this error, pip names packages
    that do not conflict."""
    start = re.search(r"^\s*(ERROR:|error:|× |.*No solution found)", output, re.MULTILINE)
    return output[start.start() :] if start else ""
