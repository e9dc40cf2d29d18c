"""Multi-layer perceptron: dense layers with ReLU between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from harness import DataInfo, Model, Parameter


class MlpConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer, first to last."""

    def __post_init__(self) -> None:
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ValueError(
                f"hidden_sizes must name at least one layer of at least one unit, got {list(self.hidden_sizes)}; "
                "the model 'linear' has no hidden layer"
            )


class Mlp(Model[MlpConfig]):
    """Layer k is ``x W_k^T + b_k``; ReLU, then dropout, follow every layer but the last.

    The one input array is flattened in the host's order (an image as ``[H, W, C]``).
    """

    name = "mlp"
    summary = "multi-layer perceptron with ReLU"
    accepts = ("features", "image")
    objectives = ("classification", "regression")
    Config = MlpConfig
    variants = {
        "mlp": {"hidden_sizes": (64, 64)},
        # The usual network of regression benchmarks on UCI tables (Hernandez-Lobato and Adams 2015, arXiv:1502.05336).
        "mlp-50": {"hidden_sizes": (50,)},
    }
    has_dropout = True

    def parameters(self, config: MlpConfig, info: DataInfo) -> Sequence[Parameter]:
        """``layers.k.weight`` ``[out, in]`` and ``layers.k.bias`` ``[out]`` for k = 0, 1, ..., both from
        U(-1/sqrt(in), 1/sqrt(in)), as ``torch.nn.Linear`` starts."""
        parameters = []
        for index, (inputs, outputs) in enumerate(pairwise(_sizes(config, info))):
            bound = 1 / math.sqrt(inputs)
            parameters += [
                Parameter(
                    name=f"layers.{index}.weight", shape=(outputs, inputs), init="uniform", scale=bound, decay=True
                ),
                Parameter(name=f"layers.{index}.bias", shape=(outputs,), init="uniform", scale=bound),
            ]
        return parameters

    def flops_per_sample(self, config: MlpConfig, info: DataInfo) -> float:
        """Sum over the layers of 2 in out; biases and ReLU are left out."""
        return float(sum(2 * inputs * outputs for inputs, outputs in pairwise(_sizes(config, info))))


def _sizes(config: MlpConfig, info: DataInfo) -> tuple[int, ...]:
    """Widths along the network: numbers in one example of the only input, hidden units, outputs."""
    (spec,) = info.inputs.values()
    return math.prod(spec.shape), *config.hidden_sizes, info.outputs
