"""Gradient scaling in fp16: a session's loss scale is reduced until the gradients are finite.

In fp16, sessions multiply the loss by a scale. If the gradients overflow, a training step halves the scale and leaves
the weights and the optimizer's state unchanged. `Session.gradients` returns the gradients divided by the scale, but
gradients that overflowed remain infinite or NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.interfaces import Batch, Session
from harness.records import Precision, Recipe

Array = NDArray[Any]

_HALVINGS = 30
"""Maximum number of times to halve the loss scale. In practice, loss scales are at most about 2**24."""


class Scaled(NamedTuple):
    """Loss and gradients of a batch, computed after the loss scale was halved until the gradients were finite."""

    loss: float
    gradients: dict[str, Array]
    halvings: int
    """Number of times that the loss scale was halved. This number is always 0 if the loss scale is not dynamic."""


def dynamic_scaling(precision: Precision, recipe: Recipe) -> bool:
    """Return True if sessions have a loss scale that is halved when gradients overflow."""
    return precision == "fp16" and recipe.loss_scale is None


def scaled_gradients(session: Session, batch: Batch, dynamic: bool) -> Scaled:
    """Compute gradients. If the loss scale is dynamic, halve it until the gradients are finite.

    A training step with a learning rate of 0 halves the loss scale if its gradients overflow. If gradients still
    overflow after the maximum number of steps, the returned gradients are not finite.
    """
    loss, gradients = session.gradients(batch)
    halvings = 0
    while dynamic and halvings < _HALVINGS and not finite(gradients):
        session.train_step(batch, 0.0)
        halvings += 1
        loss, gradients = session.gradients(batch)
    return Scaled(loss, gradients, halvings)


def finite(arrays: Mapping[str, Array]) -> bool:
    """Return True if all elements are finite."""
    # A sum is several times faster than a test of each element. The sum of finite values does not overflow in float64.
    with np.errstate(invalid="ignore"):  # the sum of infinities with different signs is invalid
        return all(bool(np.isfinite(array.sum(dtype=np.float64))) for array in arrays.values())
