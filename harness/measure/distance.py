"""Relative distance between arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def norm(array: Array) -> float:
    """Return the 2-norm of all elements."""
    return float(np.linalg.norm(np.asarray(array, np.float64).ravel()))


def relative(a: Array, b: Array, floor: float = 0.0) -> float:
    """Return ``|a - b| / max(|b|, floor)`` in the 2-norm.

    The result is 0 for equal arrays. Infinity is returned if the shapes differ or the quotient is not finite.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):  # the difference between two infinities is invalid
        difference, size = norm(a - b), max(norm(b), floor)
    if difference == 0:
        return 0.0
    error = difference / size if size else float("inf")
    return error if np.isfinite(error) else float("inf")
