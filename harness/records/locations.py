"""The cache directory of the user."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the cache folder: ``HARNESS_CACHE``, or the platform's default (``~/.cache/harness`` on Linux)."""
    configured = os.environ.get("HARNESS_CACHE")
    if configured:
        return Path(os.path.expanduser(configured)).absolute()  # noqa: PTH111 - it does not raise for an unknown user
    import platformdirs

    return platformdirs.user_cache_path("harness", appauthor=False)
