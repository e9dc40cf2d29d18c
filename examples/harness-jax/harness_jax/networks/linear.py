"""A linear layer in JAX, applied to the flattened input."""

from __future__ import annotations

from typing import Any

from harness import DataInfo, Network
from harness_jax.layers import Layers, Mode


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    make = Layers()
    linear = make.dense("linear")

    def network(params: Any, statistics: Any, inputs: Any, mode: Mode) -> tuple[Any, Any]:
        (x,) = inputs.values()
        return linear(params, x.reshape(len(x), -1).astype(mode.dtype)), statistics

    return Network(module=network, bindings=make.bindings)
