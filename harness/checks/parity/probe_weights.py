"""The weights at which gradients are compared: canonical initial values, brought to life.

A check at the initial weights themselves sees little. BERT's standard deviation of 0.02 makes the logits nearly
independent of the input: GELU in its tanh approximation then changes them by 3e-7, two exchanged examples change the
loss by 1e-6, and a bias that starts at zero could be left out altogether (`tests/checks/parity` has these faults).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.execute.weights import initial_value
from harness.interfaces import Parameter

Array = NDArray[Any]

_SPREAD = 0.1
"""Standard deviation that is added to, or multiplied into, values that start alike."""


def probe_weights(parameters: Iterable[Parameter], seed: int) -> dict[str, Array]:
    """Canonical float32 arrays.

    Values drawn at random are scaled to a root mean square of ``1 / sqrt(fan in)``, so that a layer keeps the size of
    what goes through it (LeCun et al. 1998, "Efficient BackProp"). Zeros become normal with a standard deviation of
    0.1; other constants are multiplied by normal factors around 1 with that deviation, which leaves variances positive.
    """
    return {parameter.name: _probe(parameter, seed) for parameter in parameters}


def _probe(parameter: Parameter, seed: int) -> Array:
    value = initial_value(parameter, seed)
    noise = initial_value(Parameter(name=f"probe of {parameter.name}", shape=parameter.shape, init="normal"), seed)
    match parameter.init:
        case "zeros":
            return _SPREAD * noise
        case "ones" | "constant":
            return value * np.maximum(1 + _SPREAD * noise, 0.5)
    size = math.sqrt(float(np.mean(np.square(value, dtype=np.float64)))) if value.size else 0.0
    fan_in = math.prod(parameter.shape[1:])
    return value if size == 0 else np.asarray(value / (size * math.sqrt(fan_in)), np.float32)
