"""A linear map of the flattened input in PyTorch."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from harness import DataInfo, Network
from harness_torch.networks import bindings


class Linear(nn.Module):
    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, outputs)

    def forward(self, **inputs: Tensor) -> Tensor:
        (x,) = inputs.values()
        return self.linear(x.flatten(1))


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    (spec,) = info.inputs.values()
    module = Linear(math.prod(spec.shape), info.outputs)
    return Network(module=module, bindings=bindings(module))
