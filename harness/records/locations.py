"""Directories in which the user's data are stored."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the cache folder: ``HARNESS_CACHE``, or the platform's default (``~/.cache/harness`` on Linux)."""
    if configured := _configured("HARNESS_CACHE"):
        return configured
    import platformdirs

    return platformdirs.user_cache_path("harness", appauthor=False)


def environments_dir() -> Path:
    """Return the folder that contains the named environments.

    The folder is ``HARNESS_ENVS`` or, if unset, ``environments`` in the platform's data directory
    (``~/.local/share/harness`` on Linux).
    """
    if configured := _configured("HARNESS_ENVS"):
        return configured
    import platformdirs

    return platformdirs.user_data_path("harness", appauthor=False) / "environments"


def state_dir() -> Path:
    """Return the folder for data that only this user's commands may write.

    The folder is in the platform's state directory (``$XDG_STATE_HOME/harness`` or ``~/.local/state/harness`` on
    Linux). Unlike the cache, this folder is not shared with other users.
    """
    import platformdirs

    return platformdirs.user_state_path("harness", appauthor=False)


def _configured(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(os.path.expanduser(value)).absolute() if value else None  # noqa: PTH111 - does not raise
