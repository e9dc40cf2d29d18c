"""Datasets with remote files, for tests of fetching."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import harness
from harness.data.cache import cache_dir


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def remote(url: str, body: bytes, **changes: Any) -> harness.RemoteFile:
    return harness.RemoteFile(**{"url": url, "sha256": sha256(body), "bytes": len(body), **changes})


def dataset(*files: harness.RemoteFile, name: str = "far") -> harness.Dataset:
    """Return a dataset that declares `files` and cannot be loaded."""

    def load(self: harness.Dataset, options: Any) -> harness.RawData:
        raise AssertionError("this dataset must not be loaded")

    declared: dict[str, Any] = {"name": name, "kind": "points", "objective": "classification", "files": files}
    return type("Far", (harness.Dataset,), {**declared, "summary": "remote", "license": "CC0-1.0", "load": load})()


def contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of the installed files of a dataset by path, without the manifest."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if name != ".manifest.json"}


def visible(name: str = "far") -> list[str]:
    """Return the names of the visible directories of a dataset, which a loader considers completely installed."""
    return [path.name for path in (cache_dir() / "datasets" / name).glob("[!.]*")]
