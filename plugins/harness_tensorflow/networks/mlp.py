"""A multi-layer perceptron on the flattened input in TensorFlow: dense layers with ReLU and dropout between them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import tensorflow as tf

from harness import Binding, DataInfo, Network
from harness_tensorflow.layers import Dense, Dropout, compute_dtype, prefixed


class Mlp(tf.Module):
    def __init__(self, sizes: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self._dtype = compute_dtype()
        self.layers = [Dense(inputs, outputs) for inputs, outputs in pairwise(sizes)]
        self.dropouts = [Dropout(dropout) for _ in self.layers[:-1]]

    def __call__(self, inputs: dict[str, Any], training: bool) -> Any:
        (x,) = inputs.values()
        x = tf.cast(tf.reshape(x, [-1, math.prod(x.shape[1:])]), self._dtype)
        *hidden, last = self.layers
        for layer, dropout in zip(hidden, self.dropouts, strict=True):
            x = dropout(tf.nn.relu(layer(x)), training)
        return tf.cast(last(x), tf.float32)


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    (spec,) = info.inputs.values()
    module = Mlp((math.prod(spec.shape), *config.hidden_sizes, info.outputs), dropout)
    bindings: dict[str, Binding] = {}
    for index, layer in enumerate(module.layers):
        bindings |= prefixed(f"layers.{index}", layer.bindings)
    return Network(module=module, bindings=bindings)
