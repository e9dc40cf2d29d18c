"""Training and inference with Keras's ``fit`` and ``predict``, fed from memory through ``tf.data``.

``train_step`` runs the step of the bare loop, so that the measurement compares only the loops. Keras's own step cannot
be used, because Keras's optimizers use different formulas and the variables of the network are TensorFlow variables.
"""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.bare_tensorflow import parts_of
from benchmarks.contender import Contender, permuted, weights_of
from harness import SessionRequest, Split


class _Clock(keras.callbacks.Callback):
    def on_epoch_begin(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, *_: Any) -> None:
        self.seconds = time.perf_counter() - self.start


def prepare(request: SessionRequest, weights: dict[str, Any]) -> Contender:
    network, module, step = parts_of(request, weights)
    size = request.recipe.batch_size
    rate = tf.constant(request.recipe.learning_rate, tf.float32)

    class Model(keras.Model):
        def call(self, inputs: Any) -> Any:
            return module(inputs, training=False)

        def train_step(self, data: Any) -> dict[str, Any]:
            inputs, targets = data
            return {"loss": step(inputs, targets, rate)}

    model, clock = Model(), _Clock()
    model.compile(jit_compile=False)
    model.built = True

    def dataset(arrays: Any) -> Any:
        return tf.data.Dataset.from_tensor_slices(arrays).batch(size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def train(split: Split, order: Any) -> float:
        model.fit(dataset(permuted(split, order, size)), epochs=1, verbose=0, callbacks=[clock])
        return clock.seconds

    def infer(split: Split) -> Any:
        whole = len(split) // size * size
        inputs = {name: np.ascontiguousarray(array[:whole]) for name, array in split.inputs.items()}
        return model.predict(dataset(inputs), verbose=0)

    return Contender(train, infer, lambda: weights_of(network, request, lambda v: v.numpy()))
