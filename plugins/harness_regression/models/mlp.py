"""A multi-layer perceptron: dense layers with ReLU activations between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from harness import DataInfo, Model, Parameter


class MlpConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of a multi-layer perceptron."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Number of units in each hidden layer, from first to last."""

    def __post_init__(self) -> None:
        if not self.hidden_sizes or min(self.hidden_sizes) < 1:
            raise ValueError(
                f"hidden_sizes must contain at least one size, and all sizes must be at least 1, got "
                f"{list(self.hidden_sizes)}; for a model without hidden layers, use 'linear'"
            )


class Mlp(Model[MlpConfig]):
    """Multi-layer perceptron with layers ``x W_k^T + b_k``. Each layer except the last is followed by ReLU and dropout.

    The single input is flattened. Images are flattened in the order H, W, C.
    """

    name = "mlp"
    summary = "multi-layer perceptron with ReLU"
    accepts = ("features", "image")
    objectives = ("classification", "regression")
    Config = MlpConfig
    variants = {
        "mlp": {"hidden_sizes": (64, 64)},
        # The usual network for regression on UCI tables (Hernandez-Lobato and Adams 2015, arXiv:1502.05336).
        "mlp-50": {"hidden_sizes": (50,)},
    }
    has_dropout = True

    def parameters(self, config: MlpConfig, info: DataInfo) -> Sequence[Parameter]:
        """Return ``layers.k.weight`` ``[out, in]`` and ``layers.k.bias`` ``[out]`` for k = 0, 1, ...

        Weights and biases are initialized from U(-1/sqrt(in), 1/sqrt(in)), as in ``torch.nn.Linear``.
        """
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
        """Return the FLOPs of one example, which is the sum of ``2 * in * out`` over the layers. Biases and ReLU are
        not counted."""
        return float(sum(2 * inputs * outputs for inputs, outputs in pairwise(_sizes(config, info))))


def _sizes(config: MlpConfig, info: DataInfo) -> tuple[int, ...]:
    """Return the widths of all layers: the flattened input, the hidden layers and the output."""
    (spec,) = info.inputs.values()
    return math.prod(spec.shape), *config.hidden_sizes, info.outputs
