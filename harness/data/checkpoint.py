"""Pretrained checkpoints in the Hugging Face layout, given as a folder or hub id.

A checkpoint is a folder with ``config.json``, ``model.safetensors`` and its tokenizer or preprocessor files. Weights
are read from safetensors only, because other formats can execute code.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from harness.data.cache import offline
from harness.errors import UsageError
from harness.records import Pretrained

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_FILES = [WEIGHTS, CONFIG, "tokenizer.json", "tokenizer_config.json", "vocab.txt", "preprocessor_config.json"]


def locate(name: str) -> Pretrained:
    """Return the checkpoint given by `name`, a folder or a hub id (``owner/name`` or ``owner/name@revision``).

    For a hub id, `huggingface_hub` downloads the checkpoint to its cache. With ``HARNESS_OFFLINE=1``, only the cache is
    used. Raises `harness.UsageError` if the checkpoint does not exist or is incomplete; the message lists the missing
    files.
    """
    folder = Path(name)
    revision = ""
    if not os.path.isdir(name):  # noqa: PTH112 - Path.is_dir() raises for names that are too long for a path
        folder = _download(name)
        revision = folder.name  # in the cache, a snapshot's folder is named after its commit
    absent = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if absent:
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".h5", ".msgpack", ".ckpt"))
        hint = f"; convert {', '.join(others)} to safetensors, the only supported format" if others else ""
        raise UsageError(f"the checkpoint {name!r} has no {' and no '.join(absent)} in {folder}{hint}")
    return Pretrained(
        name=name if revision else folder.resolve().name,
        revision=revision,
        digest=_digest(folder),
        path=str(folder.resolve()),
    )


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
            snapshot_download(repository, revision=revision or None, allow_patterns=_FILES, local_files_only=offline())
        )
    except LocalEntryNotFoundError:
        reason = "HARNESS_OFFLINE is set and it is not in the cache" if offline() else "the hub cannot be reached"
        raise UsageError(
            f"the checkpoint {name!r} is not available: {reason}; download it with another tool and pass its folder"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UsageError(f"the checkpoint {name!r} is not available from the hub: {first_line}") from None


def _digest(folder: Path) -> str:
    sha = hashlib.sha256()
    for name in sorted(_FILES):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                sha.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return sha.hexdigest()
