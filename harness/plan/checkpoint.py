"""Model options from the ``config.json`` of a located checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.checkpoint import CONFIG, shapes
from harness.errors import RecordError, UsageError
from harness.records import Pretrained
from harness.records.reading import load_named

if TYPE_CHECKING:
    from harness.interfaces import Model


def read_config(checkpoint: Pretrained) -> dict[str, Any]:
    """Return the contents of the checkpoint's ``config.json``. Raises `harness.UsageError` if the file cannot be
    read."""
    path = Path(checkpoint.path) / CONFIG
    try:
        return load_named(path, dict[str, Any])
    except RecordError as error:
        raise UsageError(str(error)) from None


def model_options(checkpoint: Pretrained, model: Model) -> dict[str, Any]:
    """Return the options of `model` (fields of ``model.Config``) that are specified in the checkpoint's
    ``config.json``.

    Raises `harness.UsageError` if the architecture of the checkpoint is not that of `model`, if the checkpoint has a
    setting that `model` does not support, or if the sizes in ``config.json`` differ from those of the weights.
    """
    config = read_config(checkpoint)
    wanted_type = model.checkpoint_type or model.name
    if config.get("model_type") != wanted_type:
        raise UsageError(
            f"the checkpoint {checkpoint.name!r} has the model type {config.get('model_type')!r}, but model "
            f"{model.name!r} requires {wanted_type!r}; select another model or checkpoint"
        )
    for field, wanted in model.checkpoint_requires.items():
        if field in config and config[field] != wanted:
            raise UsageError(
                f"the checkpoint {checkpoint.name!r} has {field}={config[field]!r}, but model {model.name!r} supports "
                f"only {wanted!r}"
            )
    _check_sizes(checkpoint, config, model)
    return {name: config[name] for name in model.Config.__struct_fields__ if name in config}


def _check_sizes(checkpoint: Pretrained, config: Mapping[str, Any], model: Model) -> None:
    """Raise `harness.UsageError` if the sizes in ``config.json`` do not match the arrays."""
    stated = {field: name for field, name in model.checkpoint_sizes.items() if isinstance(config.get(field), int)}
    if not stated:
        return
    arrays = shapes(Path(checkpoint.path))
    for field, name in stated.items():
        shape = arrays.get(name) or arrays.get(name.removeprefix(model.base))
        if shape and shape[0] != config[field]:
            raise UsageError(
                f"the checkpoint {checkpoint.name!r} has {field}={config[field]} in its {CONFIG}, but its weights "
                f"contain {name} with {shape[0]} rows; resize the array, or use the {CONFIG} that belongs to these "
                "weights"
            )
