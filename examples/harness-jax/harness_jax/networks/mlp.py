"""A multi-layer perceptron in JAX: dense layers on the flattened input, with ReLU and dropout between them."""

from __future__ import annotations

from typing import Any

import jax

from harness import DataInfo, Network
from harness_jax.layers import Layers, Mode


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    make = Layers()
    *hidden, last = [make.dense(f"layers.{index}") for index in range(len(config.hidden_sizes) + 1)]
    dropouts = [make.dropout(dropout) for _ in hidden]

    def network(params: Any, statistics: Any, inputs: Any, mode: Mode) -> tuple[Any, Any]:
        (x,) = inputs.values()
        x = x.reshape(len(x), -1).astype(mode.dtype)
        for layer, drop in zip(hidden, dropouts, strict=True):
            x = drop(jax.nn.relu(layer(params, x)), mode)
        return last(params, x), statistics

    return Network(module=network, bindings=make.bindings)
