"""Functions that locate the data cache and the mirror, and that check whether a dataset is cached."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import msgspec

from harness.errors import UsageError
from harness.interfaces import Dataset
from harness.interfaces.remote import mirror_path
from harness.records.locations import cache_dir as cache_dir

State = Literal["embedded", "cached", "to fetch"]


def offline() -> bool:
    """Return whether ``HARNESS_OFFLINE`` disables network access. Files can still be read from a mirror directory."""
    return os.environ.get("HARNESS_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def mirror() -> str | Path | None:
    """Return the value of ``HARNESS_DATA_MIRROR``, or None if it is not set. The value is a directory or an http(s) URL
    without a trailing slash.

    Raises `harness.UsageError` if the directory does not exist.
    """
    location = os.environ.get("HARNESS_DATA_MIRROR")
    if not location:
        return None
    if location.startswith(("http://", "https://")):
        return location.rstrip("/")
    directory = Path(os.path.expanduser(location)).absolute()  # noqa: PTH111
    if not directory.is_dir():
        raise UsageError(
            f"HARNESS_DATA_MIRROR={location}: the directory does not exist; set the variable to a directory "
            "that contains files at <host>/<path>, or unset it"
        )
    return directory


def dataset_dir(dataset: Dataset) -> Path:
    """Return the cache folder that holds all versions of a dataset."""
    return cache_dir() / "datasets" / dataset.name


def install_dir(dataset: Dataset) -> Path:
    """Return the folder of the dataset's verified files. The folder exists only if all files have been installed.

    The folder's name is a digest of the declared files, so a changed declaration results in a new folder.
    """
    contents = [(file.local_name, file.sha256, sorted(file.members.items()), file.unpacked) for file in dataset.files]
    digest = hashlib.sha256(msgspec.json.encode(contents)).hexdigest()
    return dataset_dir(dataset) / digest[:16]


def state(dataset: Dataset) -> State:
    """Return whether the dataset is embedded in a package, cached, or still to be fetched."""
    if not dataset.files:
        return "embedded"
    return "cached" if install_dir(dataset).is_dir() else "to fetch"


def out_of_reach(dataset: Dataset) -> str | None:
    """Return a message that explains why `dataset` is not available offline and what to do, or None if the dataset is
    available.

    Raises `harness.UsageError` if the mirror does not exist.
    """
    if state(dataset) != "to fetch":
        return None
    source = mirror()
    if not offline():
        return None
    missing = [file.url for file in dataset.files]
    searched = ""
    if isinstance(source, Path):
        missing = [url for url in missing if not (source / mirror_path(url)).is_file()]
        if not missing:
            return None
        searched = f", the mirror does not contain {source / mirror_path(missing[0])}"
    return (
        f"it is not in the cache ({cache_dir()}){searched}, and HARNESS_OFFLINE is set; unset HARNESS_OFFLINE, or run "
        f"`harness data fetch {dataset.name}` with network access and the same HARNESS_CACHE"
    )
