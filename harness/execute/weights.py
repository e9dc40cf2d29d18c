"""Canonical weights: numpy arrays with the names of a model's parameters.

The arrays are identical for every framework.

Initial values are determined by the seed and the parameter's name. The values do not depend on the framework or on the
order in which a model lists its parameters.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.checkpoint import READABLE, weight_files
from harness.errors import DataError, PluginError, RecordError
from harness.interfaces import Model, Parameter
from harness.records import Pretrained
from harness.records.files import replacing
from harness.records.reading import open_stored

Array = NDArray[Any]
_MAX_ELEMENTS = 2**59
"""Maximum number of elements of a parameter. A float64 array with more elements exceeds the address space."""


def _generator(seed: int, name: str) -> np.random.Generator:
    """Return a random number generator for a seed and a parameter name."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype="<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words.tolist()])))


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw an orthogonal matrix, which is the Q factor of a Gaussian matrix (Saxe et al. 2014, arXiv:1312.6120).

    The signs are chosen such that the diagonal of R is positive, which makes the factorization unique.
    """
    rows, columns = shape[0], int(np.prod(shape[1:]))
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))
    return (q if rows >= columns else q.T).reshape(shape)


def _truncated_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw standard normal values. Values outside [-2, 2] are drawn again."""
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values


def initial_value(parameter: Parameter, seed: int) -> Array:
    """Return the initial float32 array of one parameter.

    Raises `harness.PluginError` if the initializer is unknown, and `MemoryError` if the parameter has too many elements
    for an array.
    """
    shape, scale = parameter.shape, parameter.scale
    if math.prod(shape) > _MAX_ELEMENTS:
        raise MemoryError(f"the parameter {parameter.name!r} with shape {tuple(shape)} is too large for any memory")
    match parameter.init:
        case "zeros":
            return np.zeros(shape, np.float32)
        case "ones":
            return np.ones(shape, np.float32)
        case "constant":
            return np.full(shape, scale, np.float32)
    rng = _generator(seed, parameter.name)
    match parameter.init:
        case "normal":
            values = scale * rng.standard_normal(shape)
        case "truncated_normal":
            values = scale * _truncated_normal(rng, shape)
        case "uniform":
            values = rng.uniform(-scale, scale, shape)
        case "orthogonal":
            values = scale * _orthogonal(rng, shape)
        case other:
            known = "zeros, ones, constant, normal, truncated_normal, uniform, orthogonal"
            raise PluginError(f"parameter {parameter.name!r} has the unknown initializer {other!r}; use one of {known}")
    return np.asarray(values, np.float32)


def initial_weights(parameters: Iterable[Parameter], seed: int) -> dict[str, Array]:
    """Return initial float32 arrays by parameter name. Raises `harness.PluginError` if a name occurs twice."""
    weights: dict[str, Array] = {}
    for parameter in parameters:
        if parameter.name in weights:
            raise PluginError(f"the model lists the parameter {parameter.name!r} twice")
        weights[parameter.name] = initial_value(parameter, seed)
    return weights


def save(path: Path, weights: Mapping[str, Array]) -> None:
    """Write a safetensors file, which other programs can load by parameter name. Raises OSError if writing fails."""
    from safetensors.numpy import save as encoded

    content = encoded({name: np.ascontiguousarray(array) for name, array in weights.items()})
    with replacing(path) as file:
        file.write(content)


def load(path: Path) -> dict[str, Array]:
    """Read the weights that a run saved.

    Raises `harness.RecordError` if the weights cannot be read or if the file is a link.
    """
    open_stored(path, MAX_BYTES).close()
    try:
        return _read(path, ())
    except DataError as error:
        raise RecordError(str(error)) from None


def check(weights: Mapping[str, Array], parameters: Iterable[Parameter]) -> None:
    """Raise `harness.PluginError` if the names or shapes of the weights differ from those of `parameters`."""
    wanted = {parameter.name: parameter.shape for parameter in parameters}
    problems = [f"missing {name}" for name in wanted if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in wanted]
    problems += [
        f"{name} has shape {weights[name].shape}, not {shape}"
        for name, shape in wanted.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if problems:
        raise PluginError(f"the weights do not fit the model: {'; '.join(problems[:8])}")


def pretrained_weights(
    checkpoint: Pretrained, model: Model, parameters: Iterable[Parameter], initial: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, str]]:
    """Replace the arrays in `initial` with those of the checkpoint, and return the result and messages about arrays
    that were not replaced.

    A checkpoint can differ from the model in three ways. Encoder-only checkpoints omit the prefix of the encoder's
    parameters, older checkpoints use different names, and the head may be for a different task. A head parameter
    (``model.head``) keeps its initial value if the checkpoint does not contain an array of the same shape. Raises
    `harness.DataError` if any other parameter is missing or has a different shape. The error message lists the affected
    parameters.
    """
    arrays = _canonical(_read_all(Path(checkpoint.path)), model)
    merged, missing, mismatched, fresh = dict(initial), [], [], []
    for parameter in parameters:
        name, array = parameter.name, arrays.pop(parameter.name, None)
        if array is not None and array.shape == parameter.shape:
            merged[name] = np.asarray(array, np.float32)
        elif name.startswith(tuple(model.head)):
            fresh.append(name)
        elif array is None:
            missing.append(name)
        else:
            mismatched.append(f"{name} has shape {array.shape}, not {parameter.shape}")
    if missing or mismatched:
        problems = [*(f"missing {name}" for name in missing), *mismatched]
        shown = "; ".join(problems[:8]) + (f" and {len(problems) - 8} more" if len(problems) > 8 else "")
        unexpected = f"; unexpected: {_few(sorted(arrays))}" if arrays else ""
        raise DataError(f"the checkpoint {checkpoint.name!r} does not fit {model.name}: {shown}{unexpected}")
    return merged, {
        "pretrained_initialized_anew": _few(fresh) or "none",
        "pretrained_not_used": _few(sorted(arrays)) or "none",
    }


MAX_BYTES = 256 * 2**30
"""Maximum size of a weight file."""
_READABLE = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL"}
"""Safetensors data types that numpy supports. Other types can be read only if a package has registered them with
numpy."""


def _read_all(folder: Path) -> dict[str, Array]:
    """Read the arrays of a checkpoint from its weight files. Raises `harness.DataError` if the files cannot be read."""
    files = weight_files(folder)
    if not files:
        raise DataError(f"the checkpoint {folder} has no weights")
    arrays: dict[str, Array] = {}
    for file, wanted in files.items():
        arrays |= _read(folder / file, wanted)
    return arrays


def _read(path: Path, wanted: Collection[str]) -> dict[str, Array]:
    """Read the arrays named in `wanted` from a file. If `wanted` is empty, read all arrays."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            names = [name for name in file.keys() if not wanted or name in wanted]  # noqa: SIM118 - not a mapping
            for name in names:
                if (dtype := file.get_slice(name).get_dtype()) not in READABLE:
                    raise DataError(f"{path}: {name} has type {dtype}; store the checkpoint in float32 or float16")
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _canonical(arrays: Mapping[str, Array], model: Model) -> dict[str, Array]:
    """Rename arrays to their canonical names.

    Prefixes that encoder-only checkpoints omit are added, and names from older checkpoints are updated.
    """
    bare = model.base and not any(name.startswith(model.base) for name in arrays)
    named = {}
    for name, array in arrays.items():
        for old, new in model.legacy_names.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        named[model.base + name if bare else name] = array
    return named


def _few(names: list[str]) -> str:
    """Return the first eight names, and the number of remaining names."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
