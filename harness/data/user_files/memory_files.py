"""Storage of in-memory data as files in the cache, which child processes read like the user's own files."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.data.user_files.memory_about import ABOUT, FOLDER, About
from harness.errors import UsageError
from harness.records.locations import cache_dir
from harness.records.scratch import temporary

if TYPE_CHECKING:
    from harness.data.user_files.memory import MemoryData

FILE_NAME = "file_name"
"""Column of the metadata file that contains the names of the images or recordings."""
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)


def save_data(data: Any, name: str = "") -> Path:
    """Save data in memory as a file or a folder that can be used as a dataset, and return its path.

    The data are saved without loss: tables and texts as JSONL, and images and recordings as a folder with a metadata
    file. If the data have already been saved, they are not written again. The content of the files depends only on the
    data.

    `harness.run` calls this function if its `dataset` is an object in memory. Call it directly to choose the name of
    the dataset, or to use the data on the command line.

    Parameters
    ----------
    data : pandas.DataFrame, datasets.Dataset, mapping of str to sequence, or mapping of str to these
        Columns with one value per row. A value is a str, a bool, an int, a float, a date, a time or missing. One column
        can contain images (uint8 ``[N, H, W, C]`` or one array per row) or recordings (one array of floats per row;
        ``sample_rate``, a column or a single number, is their sample rate in Hz). A mapping from ``"train"``,
        ``"validation"`` and ``"test"`` to data defines the splits.
    name : str, optional
        Name of the dataset, consisting of letters, digits, ``.``, ``_``, ``+`` and ``-``. The default is
        ``memory-`` followed by the first digits of the content digest.

    Returns
    -------
    Path
        Path of the file or folder.

    Raises
    ------
    UsageError
        If the data contain names or values that cannot be saved exactly, or if the data cannot be written.

    Examples
    --------
    ::

        path = harness.save_data(pd.DataFrame({"text": texts, "label": labels}), "reviews")
        harness.run("nlp", dataset=path)
    """
    if name and not _NAME.fullmatch(name):
        raise UsageError(
            f"invalid name for a dataset: {name!r}; use letters, digits and the characters . _ + - (at most 100)"
        )
    from harness.data.user_files.memory import from_memory

    return write_data(from_memory(data), cache_dir() / FOLDER, name)


def write_data(found: MemoryData, root: Path, name: str = "") -> Path:
    """Write converted data into a folder below `root`, unless it already contains them; see `save_data`."""
    table = _jsonl({**({FILE_NAME: found.media.names()} if found.media else {}), **found.columns})
    content = _digest(chain([("", json.dumps(found.categorical).encode()), ("", table)], _media(found, "")))
    chosen = name or f"memory-{content[:8]}"
    about = About(origin=found.origin, categorical=tuple(found.categorical), warnings=tuple(found.all_warnings()))
    described = msgspec.json.encode(about)
    folder = root / _digest([(chosen, content.encode()), ("", described)])[:16]
    table_name = f"{chosen}/metadata.jsonl" if found.media else f"{chosen}.jsonl"

    def files() -> Iterator[tuple[str, bytes]]:
        yield ABOUT, described
        yield table_name, table
        yield from _media(found, f"{chosen}/")

    try:
        if not all(_contains(folder / name, content) for name, content in files()):
            _write(folder, files)
    except OSError as error:
        raise UsageError(
            f"{folder}: the data cannot be written: {error.strerror}; set HARNESS_CACHE to a folder on a disk with "
            "enough space"
        ) from None
    return folder / (chosen if found.media else f"{chosen}.jsonl")


def located(dataset: Any) -> Any:
    """Return the value of the `dataset` argument with data in memory replaced by the paths of their files.

    Raises `harness.UsageError` if a value is not a name, a path or data in memory.
    """
    from harness.data.user_files.memory import is_in_memory

    def path_of(value: Any) -> Any:
        if isinstance(value, str | os.PathLike):
            return value
        return save_data(value)  # raises an error that names the supported types

    is_streamed = hasattr(dataset, "column_names") and not hasattr(dataset, "__getitem__")
    is_array = getattr(dataset, "ndim", 1) > 1 or hasattr(dataset, "get_column")  # an array, or a frame of polars
    if dataset is None or isinstance(dataset, str | os.PathLike):
        return dataset
    is_single = is_in_memory(dataset) or is_streamed or is_array or isinstance(dataset, bytes)
    if is_single or not isinstance(dataset, Iterable):
        return path_of(dataset)
    return [path_of(each) for each in dataset]


def _media(found: MemoryData, prefix: str) -> Iterator[tuple[str, bytes]]:
    if found.media is not None:
        for name, content in found.media.files():
            yield f"{prefix}{name}", content


def _jsonl(columns: dict[str, list[Any]]) -> bytes:
    """Return one JSON object per row. Only ASCII characters are used, so that every string can be represented."""
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return "".join(f"{json.dumps(dict(zip(names, row, strict=True)))}\n" for row in rows).encode()


def _digest(files: Iterable[tuple[str, bytes]]) -> str:
    total = hashlib.sha256()
    for name, content in files:
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def _contains(file: Path, content: bytes) -> bool:
    """Return whether `file` is a regular file with the given content. Another process may remove the file at any
    time."""
    try:
        return file.is_file() and file.read_bytes() == content
    except OSError:
        return False


def _write(folder: Path, files: Callable[[], Iterable[tuple[str, bytes]]]) -> None:
    """Write the files into a temporary folder, and move it to `folder`, so that an interruption leaves no partial data.

    If `folder` exists, its damaged files are replaced one by one. An existing folder is never moved, because another
    process that saved the same data may be reading the folder.
    """
    with temporary(folder.parent) as made:
        for name, content in files():
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_bytes(content)
        made.chmod(0o755)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            for name, content in files():
                if not _contains(folder / name, content):
                    (folder / name).parent.mkdir(exist_ok=True)
                    (made / name).replace(folder / name)
