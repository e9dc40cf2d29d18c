"""Published checkpoints: a folder or a hub id, in the layout of Hugging Face.

A checkpoint is a folder with ``config.json``, ``model.safetensors`` and, for text, a tokenizer. Only safetensors are
read: no file that could run code.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.data.cache import offline
from harness.errors import UsageError
from harness.records import Pretrained

if TYPE_CHECKING:
    from harness.interfaces import Model

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_WANTED = [WEIGHTS, CONFIG, "tokenizer.json", "tokenizer_config.json", "vocab.txt", "preprocessor_config.json"]


def locate(name: str) -> Pretrained:
    """The checkpoint that `name`, a folder or a hub id (``owner/name`` or ``owner/name@revision``), stands for.

    A hub id is fetched by `huggingface_hub` into its cache; ``HARNESS_OFFLINE=1`` takes what the cache has.
    Raises `harness.UsageError` where there is no such checkpoint, and what is missing of it.
    """
    folder = Path(name)
    revision = ""
    if not folder.is_dir():
        folder = _fetch(name)
        revision = folder.name  # the cache names a snapshot by its commit
    absent = [part for part in (CONFIG, WEIGHTS) if not (folder / part).is_file()]
    if absent:
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".h5", ".msgpack", ".ckpt"))
        hint = f"; only safetensors are read, not {', '.join(others)}" if others else ""
        raise UsageError(f"the checkpoint {name!r} has no {' and no '.join(absent)} in {folder}{hint}")
    return Pretrained(
        name=name if revision else folder.resolve().name,
        revision=revision,
        digest=_digest(folder),
        path=str(folder.resolve()),
    )


def _fetch(name: str) -> Path:
    repository, _, revision = name.partition("@")
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise UsageError(f"{name!r} is neither a folder nor a hub id such as 'google-bert/bert-base-uncased'")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise UsageError("a hub id needs huggingface_hub; run: pip install huggingface_hub, or name a folder") from None
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=_WANTED, local_files_only=offline())
        )
    except LocalEntryNotFoundError:
        state = "HARNESS_OFFLINE is set and the cache lacks it" if offline() else "the hub cannot be reached"
        raise UsageError(
            f"the checkpoint {name!r} cannot be had: {state}; download it elsewhere and name its folder"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(f"the checkpoint {name!r} cannot be had from the hub: {first}") from None


def _digest(folder: Path) -> str:
    sha = hashlib.sha256()
    for name in sorted(_WANTED):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                sha.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return sha.hexdigest()


def read_config(checkpoint: Pretrained) -> dict[str, Any]:
    """The checkpoint's ``config.json``. Raises `harness.UsageError`."""
    path = Path(checkpoint.path) / CONFIG
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def model_options(checkpoint: Pretrained, model: Model) -> dict[str, Any]:
    """What the checkpoint's ``config.json`` says of the fields of ``model.Config``.

    Raises `harness.UsageError` for another architecture, or one that the model does not implement.
    """
    config = read_config(checkpoint)
    wanted_type = model.checkpoint_type or model.name
    if config.get("model_type") != wanted_type:
        raise UsageError(
            f"the checkpoint {checkpoint.name!r} is a {config.get('model_type')!r}, the model is a {wanted_type!r}"
        )
    for field, wanted in model.checkpoint_requires.items():
        if field in config and config[field] != wanted:
            raise UsageError(
                f"the checkpoint {checkpoint.name!r} has {field}={config[field]!r}; "
                f"{model.name} is implemented for {wanted!r} only"
            )
    return {name: config[name] for name in model.Config.__struct_fields__ if name in config}
