"""Training and inference in TensorFlow as one writes them by hand: a `tf.function` for a step, called in a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from harness_tensorflow.optimizers import Optimizer

from harness import SessionRequest, Split


def prepare(request: SessionRequest, weights: dict[str, Any]) -> tuple[Callable[..., None], Callable[..., Any]]:
    """`train(split, order)` and `infer(split)` over whole batches, of a model that starts from `weights`.

    The optimizer is the backend's own, because Keras's have other formulas: what is compared is the loop.
    """
    network = request.build(request.config, request.info, request.recipe.dropout)
    model = network.module
    for name, binding in network.bindings.items():
        binding.variable.assign(binding.to_own(weights[name]))
    recipe, size = request.recipe, request.recipe.batch_size
    trained = [p for p in request.parameters if p.trainable]
    variables = [network.bindings[p.name].variable for p in trained]
    optimizer = Optimizer(recipe, variables, [p.decay for p in trained])
    classification = request.info.objective == "classification"

    @tf.function
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

    @tf.function
    def forward(inputs: Any) -> Any:
        return model(inputs, training=False)

    rate = tf.constant(recipe.learning_rate, tf.float32)

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

    return train, infer
