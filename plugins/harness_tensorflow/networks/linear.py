"""A linear map of the flattened input in TensorFlow."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from harness import DataInfo, Network
from harness_tensorflow.layers import Dense, compute_dtype, prefixed


class Linear(tf.Module):
    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self._dtype = compute_dtype()
        self.linear = Dense(features, outputs)

    def __call__(self, inputs: dict[str, Any], training: bool) -> Any:
        (x,) = inputs.values()
        x = tf.cast(tf.reshape(x, [-1, math.prod(x.shape[1:])]), self._dtype)
        return tf.cast(self.linear(x), tf.float32)


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    (spec,) = info.inputs.values()
    module = Linear(math.prod(spec.shape), info.outputs)
    return Network(module=module, bindings=prefixed("linear", module.linear.bindings))
