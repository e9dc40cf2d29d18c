"""The weights at which gradients are compared: rescaled and perturbed initial values.

At the initial weights themselves, many faults have almost no effect. BERT's standard deviation of 0.02 makes the logits
nearly independent of the input: the tanh approximation of GELU changes them by 3e-7, exchanging two examples changes
the loss by 1e-6, and a bias that starts at zero could be missing altogether (`tests/checks/parity` has these faults).
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
"""Standard deviation of the noise that is added to zeros, or by whose factors other constants are multiplied."""


def probe_weights(parameters: Iterable[Parameter], seed: int) -> dict[str, Array]:
    """Return the probe weights, canonical float32 arrays by name.

    Random initial values are scaled to a root mean square of ``1 / sqrt(fan in)``, so that a layer preserves the scale
    of its input (LeCun et al. 1998, "Efficient BackProp"). Zeros are replaced by normal values with a standard
    deviation of 0.1. Other constants are multiplied by normal factors with mean 1 and the same standard deviation, but
    at least 0.5, so that variances stay positive.
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
