"""A multi-layer perceptron on the flattened input in PyTorch: dense layers with ReLU and dropout between them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from harness import DataInfo, Network
from harness_torch.networks import bindings


class Mlp(nn.Module):
    def __init__(self, sizes: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes))
        self.dropout = dropout

    def forward(self, **inputs: Tensor) -> Tensor:
        (x,) = inputs.values()
        x = x.flatten(1)
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
            if self.dropout:
                x = F.dropout(x, self.dropout, self.training)
        return last(x)


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    (spec,) = info.inputs.values()
    module = Mlp((math.prod(spec.shape), *config.hidden_sizes, info.outputs), dropout)
    return Network(module=module, bindings=bindings(module))
