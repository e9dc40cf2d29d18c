"""Find required modules that are not installed and the commands that install them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

DISTRIBUTION = "ml-harness"
"""Name of the distribution that contains this package. The name ``harness`` belongs to another project on PyPI."""


def missing(requires: Mapping[str, str]) -> str | None:
    """Return a message that lists missing modules and the commands that install them.

    Return None if all modules are installed.

    `requires` maps module names to install commands or requirements (see `install_command`). The modules are not
    imported.
    """
    absent = [module for module in requires if not _importable(module)]
    if not absent:
        return None
    commands = dict.fromkeys(install_command(requires[module]) for module in absent)
    return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed; run: {' && '.join(commands)}"


def install_command(requirement: str) -> str:
    """Return the command that installs a requirement, such as ``ml-harness[torch]``.

    If the distribution is already installed from a local folder, a file or a repository (PEP 610), the command installs
    the distribution from the same source, because the distribution may not be on a package index. Text that contains
    spaces is treated as a command and returned unchanged.
    """
    parts = re.fullmatch(r"([\w.-]+)(\[[\w., -]+\])?", requirement)
    if parts is None:
        return requirement
    arguments = install_arguments(parts[1], (parts[2] or "").replace(" ", ""))
    return shlex.join(["pip", "install", *(arguments or [requirement.replace(" ", "")])])


def install_arguments(name: str, extras: str = "") -> list[str]:
    """Return the ``pip install`` arguments that install a distribution from its original source (PEP 610).

    Return an empty list if the distribution was installed from an index or is not installed.
    """
    origin, url = _origin(name), direct_url(name)
    if "dir_info" in origin and url.startswith("file:"):
        editable = ["--editable"] if origin["dir_info"].get("editable") else []
        return [*editable, url2pathname(urlparse(url).path) + extras]
    return [f"{name}{extras} @ {url}"] if url else []


def own_distributions() -> list[str]:
    """Return the distributions that provide harness and the installed plugins."""
    given = [Path(entry).absolute() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    found = [DISTRIBUTION]
    for point in importlib.metadata.entry_points(group="harness"):
        distribution = point.dist
        # Children import from the directories in PYTHONPATH, which nothing can be installed from.
        if distribution is not None and Path(str(distribution.locate_file(""))).absolute() not in given:
            found.append(distribution.name)
    return list(dict.fromkeys(found))


def direct_url(name: str) -> str:
    """Return the URL from which a distribution was installed (PEP 610), including the revision of a repository.

    Return an empty string if the distribution was installed from an index or is not installed.
    """
    origin = _origin(name)
    url, revision = str(origin.get("url", "")), origin.get("vcs_info", {})
    return f"{revision['vcs']}+{url}@{revision['commit_id']}" if url and revision else url


def normalized(name: str) -> str:
    """Return the normalized name of a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _origin(name: str) -> dict[str, dict[str, str]]:
    """Return the contents of a distribution's ``direct_url.json``, or an empty dictionary if the file does not
    exist."""
    try:
        text = importlib.metadata.distribution(name).read_text("direct_url.json")
        origin = json.loads(text or "{}")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def _importable(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # raised for "a.b" if "a" is not installed or is not a package
        return False
