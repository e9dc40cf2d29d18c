"""Pretrained checkpoints in the Hugging Face layout. A checkpoint is specified by a folder or by a model id on the
Hugging Face Hub.

A checkpoint is a folder with ``config.json``, its weights, and its tokenizer or preprocessor files. The weights are in
``model.safetensors`` or in several files listed in ``model.safetensors.index.json``. Weights are read only from
safetensors files, because other formats can execute code.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from harness.data.cache import offline
from harness.errors import RecordError, UsageError
from harness.records import Pretrained
from harness.records.files import real_path
from harness.records.reading import load_named

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
_FILES = [WEIGHTS, CONFIG, "tokenizer.json", "tokenizer_config.json", "vocab.txt", "preprocessor_config.json"]
_SHARDS = "model-*-of-*.safetensors"
READABLE = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL"}
"""Safetensors data types that numpy supports. Other types can be read only if another package registers them."""
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".ckpt", ".onnx", ".gguf")
"""Suffixes of files that contain weights."""


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]
    """Mapping from the name of each array to the name of its file."""


def locate(name: str) -> Pretrained:
    """Return the checkpoint specified by `name`, a folder or a hub id (``owner/name`` or ``owner/name@revision``).

    For a hub id, `huggingface_hub` downloads the checkpoint to its cache. With ``HARNESS_OFFLINE=1``, only the cache is
    used. Raises `harness.UsageError` if the checkpoint does not exist, is incomplete or damaged, or contains weights in
    an unsupported format or data type. The message names the affected files and explains what to do.
    """
    folder = Path(name)
    revision = ""
    if not os.path.isdir(name):  # noqa: PTH112 - Path.is_dir() raises for names that are too long for a path
        folder = _download(name)
        revision = folder.name  # the folder of a cached snapshot is named after its commit
    if not (folder / CONFIG).is_file():
        raise UsageError(
            f"the checkpoint {name!r} has no {CONFIG} in {folder}; use a folder in the Hugging Face layout"
        )
    files = weight_files(folder)
    if not files:
        found = _published(name) if revision else sorted(path.name for path in folder.iterdir() if path.is_file())
        raise UsageError(f"the checkpoint {name!r} has no {WEIGHTS} in {folder}; {_conversion(folder, found)}")
    _check(folder, files)
    return Pretrained(
        name=name if revision else real_path(folder).name,
        revision=revision,
        digest=_digest(folder),
        path=str(real_path(folder)),
    )


def weight_files(folder: Path) -> dict[str, frozenset[str]]:
    """Return a mapping from each weight file to the names of the arrays to read from it.

    If ``model.safetensors`` exists, it is the only weight file. All arrays in this file are read, and the set of names
    is empty. Otherwise, the weight files are those listed in the index. If there is no index, the result is empty.
    Raises `harness.UsageError` if the index cannot be read.
    """
    if (folder / WEIGHTS).is_file():
        return {WEIGHTS: frozenset()}
    path = folder / INDEX
    if not path.is_file():
        return {}
    try:
        index = load_named(path, _Index)
    except RecordError as error:
        raise UsageError(str(error)) from None
    files: dict[str, set[str]] = {}
    for array, file in index.weight_map.items():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise UsageError(f"{path}: {file!r} is not the name of a safetensors file in this folder; fix the index")
        files.setdefault(file, set()).add(array)
    if not files:
        raise UsageError(f"{path}: the index lists no arrays; download the checkpoint again")
    return {file: frozenset(files[file]) for file in sorted(files)}


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a located checkpoint. Raises `harness.UsageError` if a file cannot be read."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, tuple[int, ...]] = {}
    for file, wanted in weight_files(folder).items():
        try:
            with safe_open(folder / file, "numpy") as arrays:
                names = [name for name in arrays.keys() if not wanted or name in wanted]  # noqa: SIM118 - not a mapping
                found |= {name: tuple(arrays.get_slice(name).get_shape()) for name in names}
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{folder / file}: cannot be read: {error}; download the checkpoint again") from None
    return found


def _check(folder: Path, files: dict[str, frozenset[str]]) -> None:
    """Raise `harness.UsageError` if a file is missing or damaged, if it lacks an array, or if it contains an
    unsupported type.
    """
    from safetensors import SafetensorError, safe_open

    absent = [file for file in files if not (folder / file).is_file()]
    if absent:
        raise UsageError(
            f"{folder / INDEX} lists {len(files)} files, but {len(absent)} of them "
            f"{'is' if len(absent) == 1 else 'are'} missing: "
            f"{', '.join(absent[:8])}; download the missing files"
        )
    for file, wanted in files.items():
        path = folder / file
        try:
            with path.open("rb") as content:
                if content.read(20).startswith(b"version https://git"):
                    raise UsageError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
            with safe_open(path, "numpy") as arrays:
                names = set(arrays.keys())
                types = {name: arrays.get_slice(name).get_dtype() for name in sorted(names)}
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{path}: cannot be read: {error}; download the checkpoint again") from None
        lost = sorted(wanted - names)
        if lost:
            raise UsageError(
                f"{path}: arrays listed in {INDEX} are missing: {', '.join(lost[:8])}; download the checkpoint again"
            )
        for name, kind in types.items():
            if kind not in READABLE and (not wanted or name in wanted):
                raise UsageError(f"{path}: {name} has type {kind}; store the checkpoint in float32 or float16")


def _conversion(folder: Path, found: list[str]) -> str:
    """Return advice for a checkpoint without a file named ``model.safetensors``."""
    others = [file for file in found if file.endswith(_SUFFIXES)]
    if not others:
        return "it contains no weights; download the checkpoint again"
    listed = f"it contains {', '.join(others[:8])}{' and others' if len(others) > 8 else ''}"
    tensors = [file for file in others if file.endswith(".safetensors")]
    if tensors:
        return f"{listed}; rename the file with the weights to {WEIGHTS}, or add the file {INDEX} that lists its parts"
    source, version = "", ""
    if not any(file.endswith((".bin", ".pt", ".pth")) for file in others):
        framework = "tf" if any(file.endswith(".h5") for file in others) else "flax"
        source, version = f", from_{framework}=True", " with transformers 4, which can read this format"
    if not any(file.endswith((".bin", ".h5", ".msgpack")) for file in others):
        return f"{listed}; convert it to safetensors, the only supported format"
    return (
        f"{listed}; convert it to safetensors, the only supported format{version}: "
        f"transformers.{_architecture(folder)}.from_pretrained(FOLDER{source}).save_pretrained(NEW_FOLDER), and copy "
        "the tokenizer or preprocessor files"
    )


def _architecture(folder: Path) -> str:
    """Return the name of the `transformers` class that saved the checkpoint."""
    try:
        name = load_named(folder / CONFIG, dict[str, Any])["architectures"][0]
    except (RecordError, LookupError, TypeError):
        return "AutoModel"
    return name if isinstance(name, str) and name.isidentifier() else "AutoModel"


def _published(name: str) -> list[str]:
    """Return the file names of a hub checkpoint, or an empty list if the hub cannot be reached."""
    if offline():
        return []
    import huggingface_hub

    repository, _, revision = name.partition("@")
    try:
        return sorted(huggingface_hub.list_repo_files(repository, revision=revision or None))
    except Exception:  # the names are needed only for a hint in an error message
        return []


def _download(name: str) -> Path:
    repository, _, revision = name.partition("@")
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise UsageError(f"{name!r} is neither a folder nor a hub id such as 'google-bert/bert-base-uncased'")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise UsageError(
            "loading a checkpoint by hub id needs huggingface_hub; run `pip install huggingface_hub`, or pass a folder"
        ) from None
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=[*_FILES, INDEX, _SHARDS],
                local_files_only=offline(),
            )
        )
    except LocalEntryNotFoundError:
        reason = "the Hugging Face Hub cannot be reached"
        if offline():
            reason = "HARNESS_OFFLINE is set and the checkpoint is not in the cache"
        raise UsageError(
            f"the checkpoint {name!r} is not available: {reason}; download it with another tool and pass its folder"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UsageError(f"the checkpoint {name!r} is not available from the hub: {first_line}") from None


def _digest(folder: Path) -> str:
    sha = hashlib.sha256()
    sharded = [] if (folder / WEIGHTS).is_file() else [INDEX, *weight_files(folder)]
    for name in sorted([*_FILES, *sharded]):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                sha.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return sha.hexdigest()
