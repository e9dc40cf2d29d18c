"""What a located checkpoint says about a model: the fields of its ``config.json``."""

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
    """Return the checkpoint's ``config.json``. Raises `harness.UsageError`."""
    path = Path(checkpoint.path) / CONFIG
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def model_options(checkpoint: Pretrained, model: Model) -> dict[str, Any]:
    """Return the fields of ``model.Config`` that the checkpoint's ``config.json`` sets.

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
