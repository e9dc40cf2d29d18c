"""A linear map with bias: linear regression, or multinomial logistic regression for classification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from harness import DataInfo, Model, Parameter, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LinearConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration without fields, because the data determine the number of inputs and outputs."""


class Linear(Model[LinearConfig]):
    """Linear model ``outputs = x W^T + b``, where x is the single input, flattened. Images are flattened in the order
    H, W, C.
    """

    name = "linear"
    summary = "linear or logistic regression"
    accepts = ("features", "image")
    objectives = ("classification", "regression")
    Config = LinearConfig
    variants = {"linear": {}}

    def parameters(self, config: LinearConfig, info: DataInfo) -> Sequence[Parameter]:
        """Return ``linear.weight`` ``[outputs, F]`` and ``linear.bias`` ``[outputs]``.

        The weight and the bias are initialized from U(-1/sqrt(F), 1/sqrt(F)), as in ``torch.nn.Linear``.
        """
        features = _features(info)
        bound = 1 / math.sqrt(features)
        return [
            Parameter(name="linear.weight", shape=(info.outputs, features), init="uniform", scale=bound, decay=True),
            Parameter(name="linear.bias", shape=(info.outputs,), init="uniform", scale=bound),
        ]

    def flops_per_sample(self, config: LinearConfig, info: DataInfo) -> float:
        """Return the FLOPs of one example, ``2 * F * outputs`` for F features. Adding the bias is not counted."""
        return float(2 * _features(info) * info.outputs)

    def solve(self, config: LinearConfig, info: DataInfo, train: Split) -> dict[str, NDArray[np.float32]] | None:
        """Return the ordinary least-squares solution, with an intercept, for the prepared training split.

        The solution is computed in float64. If the examples have weights, a weighted solution is computed. If features
        are linearly dependent, the result is the minimum-norm solution, as in scikit-learn's ``LinearRegression``.
        Returns None for classification, which has no closed-form solution.
        """
        if info.objective != "regression":
            return None
        import numpy as np

        (inputs,) = train.inputs.values()
        x = np.asarray(inputs).reshape(len(train), -1).astype(np.float64)
        y = train.targets.astype(np.float64)
        x_mean, y_mean = (np.average(values, axis=0, weights=train.weights) for values in (x, y))
        root = 1.0 if train.weights is None else np.sqrt(train.weights.astype(np.float64))[:, None]
        weight, *_ = np.linalg.lstsq(root * (x - x_mean), root * (y - y_mean), rcond=None)
        return {
            "linear.weight": np.ascontiguousarray(weight.T, np.float32),
            "linear.bias": (y_mean - x_mean @ weight).astype(np.float32),
        }


def _features(info: DataInfo) -> int:
    """Return the number of elements in one example of the single input."""
    (spec,) = info.inputs.values()
    return math.prod(spec.shape)
