"""The weights at which gradients are compared (*probe weights*): initial values that are rescaled and perturbed.

At the initial weights, many implementation errors have almost no effect on the results. For example, BERT's initial
weights have a standard deviation of 0.02, so the logits hardly depend on the input. With these weights, the tanh
approximation of GELU changes the logits by only 3e-7, and swapping two examples changes the loss by only 1e-6. A
missing bias has no effect if it is initialized to zero. The tests in `tests/checks/parity` cover all of the
implementation errors mentioned here.
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
"""Standard deviation of the noise that replaces zeros, and of the random factors by which other constants are
multiplied."""


def probe_weights(parameters: Iterable[Parameter], seed: int) -> dict[str, Array]:
    """Return the probe weights as canonical float32 arrays, by name.

    Random initial values are scaled to a root mean square of ``1 / sqrt(fan in)``, so that each layer preserves the
    scale of its input (LeCun et al. 1998, "Efficient BackProp"). Zeros are replaced by normally distributed values with
    a standard deviation of 0.1. Other constants are multiplied by normally distributed factors with a mean of 1 and a
    standard deviation of 0.1. The factors are clipped to at least 0.5, so that variances remain positive.
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
