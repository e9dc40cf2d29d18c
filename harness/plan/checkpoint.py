"""Model options from the ``config.json`` of a located checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.data.checkpoint import CONFIG
from harness.errors import UsageError
from harness.records import Pretrained

if TYPE_CHECKING:
    from harness.interfaces import Model


def read_config(checkpoint: Pretrained) -> dict[str, Any]:
    """Return the contents of the checkpoint's ``config.json``. Raises `harness.UsageError` if it cannot be read."""
    path = Path(checkpoint.path) / CONFIG
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def model_options(checkpoint: Pretrained, model: Model) -> dict[str, Any]:
    """Return the options of `model` (fields of ``model.Config``) that the checkpoint's ``config.json`` sets.

    Raises `harness.UsageError` if the checkpoint has another architecture or a setting that `model` does not support.
    """
    config = read_config(checkpoint)
    wanted_type = model.checkpoint_type or model.name
    if config.get("model_type") != wanted_type:
        raise UsageError(
            f"the checkpoint {checkpoint.name!r} has the model type {config.get('model_type')!r}, but model "
            f"{model.name!r} needs {wanted_type!r}; select another model or checkpoint"
        )
    for field, wanted in model.checkpoint_requires.items():
        if field in config and config[field] != wanted:
            raise UsageError(
                f"the checkpoint {checkpoint.name!r} has {field}={config[field]!r}; "
                f"model {model.name!r} supports {wanted!r} only"
            )
    return {name: config[name] for name in model.Config.__struct_fields__ if name in config}
