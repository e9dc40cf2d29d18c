"""Where data lie: the user's cache and the mirror, and what of a dataset is there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import msgspec

from harness.errors import UsageError
from harness.interfaces import Dataset
from harness.interfaces.remote import mirror_path

State = Literal["embedded", "cached", "to fetch"]


def cache_dir() -> Path:
    """``HARNESS_CACHE``, else the platform's cache folder (``~/.cache/harness`` on Linux)."""
    chosen = os.environ.get("HARNESS_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("harness", appauthor=False)


def offline() -> bool:
    """Whether ``HARNESS_OFFLINE`` forbids the network; a mirror that is a directory may still be read."""
    return os.environ.get("HARNESS_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def mirror() -> str | Path | None:
    """``HARNESS_DATA_MIRROR``: a directory, or an http(s) URL without its last slash; None where it is not set.

    Raises `harness.UsageError` for a directory that does not exist.
    """
    place = os.environ.get("HARNESS_DATA_MIRROR")
    if not place:
        return None
    if place.startswith(("http://", "https://")):
        return place.rstrip("/")
    directory = Path(place).expanduser().absolute()
    if not directory.is_dir():
        raise UsageError(f"HARNESS_DATA_MIRROR={place}: there is no such directory; it holds files as <host>/<path>")
    return directory


def dataset_dir(dataset: Dataset) -> Path:
    """What is kept of a dataset, of all its versions."""
    return cache_dir() / "datasets" / dataset.name


def install_dir(dataset: Dataset) -> Path:
    """The folder of the dataset's verified files; it exists if, and only if, they are all there.

    Its name is drawn from what the files must be, so that a declaration that changes makes a new folder.
    """
    contents = [(file.local_name, file.sha256, sorted(file.members.items()), file.unpacked) for file in dataset.files]
    digest = hashlib.sha256(msgspec.json.encode(contents)).hexdigest()
    return dataset_dir(dataset) / digest[:16]


def state(dataset: Dataset) -> State:
    if not dataset.files:
        return "embedded"
    return "cached" if install_dir(dataset).is_dir() else "to fetch"


def out_of_reach(dataset: Dataset) -> str | None:
    """Why `dataset` cannot be had while the network is forbidden, and what to do; None if it can.

    Raises `harness.UsageError` for a mirror that does not exist.
    """
    if state(dataset) != "to fetch":
        return None
    place = mirror()
    if not offline():
        return None
    lacking = [file.url for file in dataset.files]
    searched = ""
    if isinstance(place, Path):
        lacking = [url for url in lacking if not (place / mirror_path(url)).is_file()]
        if not lacking:
            return None
        searched = f", the mirror lacks {place / mirror_path(lacking[0])}"
    return (
        f"it is not in the cache ({cache_dir()}){searched}, and HARNESS_OFFLINE is set; unset it, or run "
        f"`harness data fetch {dataset.name}` where there is a network and the same HARNESS_CACHE"
    )
