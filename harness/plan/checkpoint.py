"""Published checkpoints as canonical weights.

Names of a checkpoint's parameters are canonical names already, but for the prefix that the bare encoder lacks, names of
older versions, and the head, which is another task's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.data.checkpoint import CONFIG, WEIGHTS
from harness.errors import DataError, UsageError
from harness.records import Pretrained

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.interfaces import Model, Parameter


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


def weights(
    checkpoint: Pretrained, model: Model, parameters: Iterable[Parameter], initial: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """`initial` with the checkpoint's arrays in the place of its own, and notes on what was left as it was.

    The head (``model.head``) keeps its canonical start where the checkpoint has none of that shape. Raises
    `harness.DataError` naming what is missing, or of another shape.
    """
    import numpy as np

    found = _canonical(_read(Path(checkpoint.path) / WEIGHTS), model)
    merged, missing, misfits, fresh = dict(initial), [], [], []
    for parameter in parameters:
        name, array = parameter.name, found.pop(parameter.name, None)
        if array is not None and array.shape == parameter.shape:
            merged[name] = np.asarray(array, np.float32)
        elif name.startswith(tuple(model.head)):
            fresh.append(name)
        elif array is None:
            missing.append(name)
        else:
            misfits.append(f"{name} is {array.shape}, not {parameter.shape}")
    if missing or misfits:
        problems = [*(f"missing {name}" for name in missing), *misfits]
        shown = "; ".join(problems[:8]) + (f" and {len(problems) - 8} more" if len(problems) > 8 else "")
        unexpected = f"; unexpected: {_few(sorted(found))}" if found else ""
        raise DataError(f"the checkpoint {checkpoint.name!r} does not fit {model.name}: {shown}{unexpected}")
    return merged, {
        "pretrained_initialised_anew": _few(fresh) or "none",
        "pretrained_not_used": _few(sorted(found)) or "none",
    }


def _read(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    except TypeError as error:  # bfloat16, which numpy has not
        raise DataError(f"{path}: {error}; store the checkpoint in float32 or float16") from None


def _canonical(arrays: Mapping[str, NDArray[Any]], model: Model) -> dict[str, NDArray[Any]]:
    """Under canonical names: the bare encoder's prefix added, names of older versions brought up to date."""
    bare = model.base and not any(name.startswith(model.base) for name in arrays)
    named = {}
    for name, array in arrays.items():
        for old, new in model.legacy_names.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        named[model.base + name if bare else name] = array
    return named


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
