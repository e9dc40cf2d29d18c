"""Distances between arrays, used in parity checks and audits.

Errors are norm-wise relative errors, ``|a - b| / max(|b|, floor)``. The 2-norm is computed over one parameter, all
logits of a batch, or one step of the loss curve. For a parameter with n of the model's N scalars, the floor is ``FLOOR
|all| sqrt(n / N)``, where ``|all|`` is the norm over all parameters. If all scalars had the same magnitude, the floor
would be a hundredth of the parameter's norm. The floor is needed for parameters whose true gradient is zero, such as an
attention key's bias, which cancels in the softmax. If the true gradient is zero, the computed gradient consists
entirely of rounding errors, so its relative error would be large without a floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.measure.distance import norm, relative

Array = NDArray[Any]

FLOOR = 1e-2
ELEMENTS = 8192
"""Maximum number of elements per parameter in repeated computations. The elements of larger parameters are sampled at
random."""


def rms(array: Array) -> float:
    """Return the root mean square, or 0 for an empty array."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0


def rowwise(a: Array, b: Array) -> Array:
    """Return the error of each example, relative to the root mean square norm of all examples, as an array ``[B]``.

    Non-finite errors are replaced by infinity. If the shapes differ, all errors are infinite.
    """
    if a.shape != b.shape:
        return np.full(len(b), np.inf)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    differences = np.linalg.norm((a - b).reshape(len(b), -1), axis=1)
    size = norm(b) / np.sqrt(len(b))
    rows = np.divide(differences, size, out=np.where(differences > 0, np.inf, 0.0), where=size > 0)
    return np.where(np.isfinite(rows), rows, np.inf)


def by_parameter(
    a: Mapping[str, Array],
    b: Mapping[str, Array],
    prefix: str,
    *,
    names: Iterable[str] | None = None,
    kept: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Iterator[tuple[str, float]]:
    """Yield the name and the relative error of each parameter. The error is computed over the elements selected by
    `kept`.

    Each parameter's array is stored under `prefix` followed by its name. The floor is described in the docstring of
    this module.
    """
    names = list(names) if names is not None else [key.removeprefix(prefix) for key in b if key.startswith(prefix)]
    kept = kept or {}

    def chosen(source: Mapping[str, Array], name: str) -> Array:
        array = np.asarray(source[prefix + name], np.float64)
        return array[kept[name]] if name in kept else array

    squares = {name: (float(np.sum(np.square(array))), array.size) for name in names for array in (chosen(b, name),)}
    total, scalars = (sum(column) for column in zip(*squares.values(), strict=True)) if squares else (0.0, 1)
    for name in names:
        floor = FLOOR * np.sqrt(total * squares[name][1] / scalars) if scalars else 0.0
        yield name, relative(chosen(a, name), chosen(b, name), floor if np.isfinite(floor) else 0.0)


class Sample:
    """Random sample of at most `elements` elements from each array."""

    def __init__(self, arrays: Mapping[str, Array], elements: float = ELEMENTS) -> None:
        rng = np.random.default_rng(0)
        self._indices: dict[str, Any] = {name: slice(None) for name in arrays}
        for name, array in arrays.items():
            if array.size > elements:
                self._indices[name] = np.sort(rng.choice(array.size, int(elements), replace=False))

    def of(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return the sampled elements of arrays with the same names and shapes, as float64 vectors."""
        return {name: np.asarray(arrays[name].ravel()[i], np.float64) for name, i in self._indices.items()}
