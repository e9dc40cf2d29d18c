"""Minimal hand-written training and inference loops in TensorFlow, which call a `tf.function` for each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from harness_tensorflow.optimizers import Optimizer

from benchmarks.contender import Contender, weights_of
from harness import Network, SessionRequest, Split


class Parts(NamedTuple):
    """Objects shared by all TensorFlow contenders."""

    network: Network
    model: Any
    step: Callable[[Any, Any, Any], Any]
    """Untraced training step, ``(inputs, targets, learning rate) -> loss``."""


def parts_of(request: SessionRequest, weights: dict[str, Any]) -> Parts:
    """Build a model with the given weights, and a function that performs a training step.

    The backend's own optimizer is used, so that the benchmark compares only the loops. Keras's optimizers use different
    formulas.
    """
    network = request.build(request.config, request.info, request.recipe.dropout)
    model, recipe = network.module, request.recipe
    for name, binding in network.bindings.items():
        binding.variable.assign(binding.to_own(weights[name]))
    trained = [p for p in request.parameters if p.trainable]
    variables = [network.bindings[p.name].variable for p in trained]
    optimizer = Optimizer(recipe, variables, [p.decay for p in trained])
    classification = request.info.objective == "classification"

    def step(inputs: Any, targets: Any, rate: Any) -> Any:
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            if classification:
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=outputs)
            else:
                losses = tf.math.squared_difference(outputs, targets)
            loss = tf.reduce_mean(losses)
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]
        optimizer.apply(gradients, rate)
        return loss

    return Parts(network, model, step)


def prepare(request: SessionRequest, weights: dict[str, Any]) -> Contender:
    network, model, untraced = parts_of(request, weights)
    size = request.recipe.batch_size
    step = tf.function(untraced)

    @tf.function
    def forward(inputs: Any) -> Any:
        return model(inputs, training=False)

    rate = tf.constant(request.recipe.learning_rate, tf.float32)

    def train(split: Split, order: Any) -> None:
        for start in range(0, len(order) - size + 1, size):
            index = order[start : start + size]
            inputs = {name: tf.convert_to_tensor(array[index]) for name, array in split.inputs.items()}
            step(inputs, tf.convert_to_tensor(split.targets[index]), rate)

    def infer(split: Split) -> Any:
        parts = []
        for start in range(0, len(split) - size + 1, size):
            inputs = {n: tf.convert_to_tensor(a[start : start + size]) for n, a in split.inputs.items()}
            parts.append(forward(inputs).numpy())
        return np.concatenate(parts)

    return Contender(train, infer, lambda: weights_of(network, request, lambda v: v.numpy()))
