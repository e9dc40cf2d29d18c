"""ResNet in JAX, equivalent to ``transformers.ResNetForImageClassification``, with a stem for small images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from harness import DataInfo, Network
from harness_jax.layers import Layers, Mode

Array = Any
Block = Callable[[Any, Any, Array, bool], tuple[Array, dict[str, Array]]]
"""Function ``(params, statistics, x, training) -> (y, updated statistics)``."""


def _block(make: Layers, name: str, kernel: int, stride: int = 1) -> Block:
    """Create a convolution without bias, followed by batch normalization."""
    convolution = make.convolution(f"{name}.convolution", stride, padding=kernel // 2)
    normalization = make.batch_norm(f"{name}.normalization")

    def block(params: Any, statistics: Any, x: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        return normalization(params, statistics, convolution(params, x), training)

    return block


def _layer(make: Layers, name: str, *, widths: tuple[int, int], stride: int, layer_type: str) -> Block:
    """Create a residual layer.

    The layer consists of two 3x3 convolutions or a bottleneck. A bottleneck has a quarter of the width, and applies the
    stride in its 3x3 convolution.
    """
    shapes = [(3, stride), (3, 1)] if layer_type == "basic" else [(1, 1), (3, stride), (1, 1)]
    blocks = [_block(make, f"{name}.layer.{index}", *shape) for index, shape in enumerate(shapes)]
    shortcut = _block(make, f"{name}.shortcut", 1, stride) if widths[0] != widths[1] or stride != 1 else None

    def layer(params: Any, statistics: Any, x: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        residual, changed = shortcut(params, statistics, x, training) if shortcut else (x, {})
        for index, block in enumerate(blocks):
            x, more = block(params, statistics, jax.nn.relu(x) if index else x, training)
            changed = changed | more
        return jax.nn.relu(x + residual), changed

    return layer


def _max_pool(x: Array) -> Array:
    """Apply max pooling with 3x3 windows and stride 2, padded by one pixel on every side."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), [(0, 0), (1, 1), (1, 1), (0, 0)])


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    make = Layers()
    large = config.stem == "imagenet"
    embedder = _block(make, "resnet.embedder.embedder", 7 if large else 3, 2 if large else 1)
    layers = []
    width = config.embedding_size
    for stage, (size, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True)):
        for index in range(depth):
            stride = 2 if index == 0 and (stage > 0 or config.downsample_in_first_stage) else 1
            name = f"resnet.encoder.stages.{stage}.layers.{index}"
            layers.append(_layer(make, name, widths=(width, size), stride=stride, layer_type=config.layer_type))
            width = size
    classifier = make.dense("classifier.1")

    def network(params: Any, statistics: Any, inputs: Any, mode: Mode) -> tuple[Any, Any]:
        x, changed = embedder(params, statistics, inputs["pixel_values"].astype(mode.dtype), mode.training)
        x = jax.nn.relu(x)
        if large:
            x = _max_pool(x)
        for layer in layers:
            x, more = layer(params, statistics, x, mode.training)
            changed = changed | more
        return classifier(params, x.mean((1, 2))), {**statistics, **changed}

    return Network(module=network, bindings=make.bindings)
