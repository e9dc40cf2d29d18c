"""The LSTM text classifier in TensorFlow: embedding, LSTM, max (and mean) pooling over the tokens, dense layer."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from harness import Binding, DataInfo, Network
from harness_tensorflow import runtime
from harness_tensorflow.layers import Dense, Dropout, compute_dtype, parameter, prefixed, sizes


class Lstm(tf.Module):
    """LSTM text classifier. Shape suffixes: B batch, L tokens, E embedding, H hidden, P pooled."""

    def __init__(self, config: Any, vocab_size: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self._dtype = compute_dtype()
        self._recurrence = cudnn if runtime.has_cudnn() else unrolled
        hidden = config.hidden_size
        self.embedding = parameter(vocab_size, config.embedding_size)
        sizes = [config.embedding_size] + [hidden] * (config.num_layers - 1)
        self.kernels = [parameter(size, 4 * hidden) for size in sizes]
        self.recurrent_kernels = [parameter(hidden, 4 * hidden) for _ in sizes]
        self.biases = [parameter(4 * hidden) for _ in sizes]
        self.dropouts = [Dropout(dropout) for _ in range(config.num_layers + 1)]
        self.with_mean = config.pooling == "max-mean"
        self.classifier = Dense(hidden * (2 if self.with_mean else 1), outputs)
        self.bindings = {
            "embedding.weight": Binding(self.embedding),
            **prefixed("classifier", self.classifier.bindings),
        }
        for layer in range(config.num_layers):
            self.bindings |= {
                f"lstm.weight_ih_l{layer}": Binding(self.kernels[layer], (1, 0)),
                f"lstm.weight_hh_l{layer}": Binding(self.recurrent_kernels[layer], (1, 0)),
                f"lstm.bias_l{layer}": Binding(self.biases[layer]),
            }

    def __call__(self, inputs: dict[str, Any], training: bool) -> Any:
        x_ble = tf.cast(tf.gather(self.embedding, inputs["input_ids"]), self._dtype)
        *below, last = self.dropouts
        # Padding is on the right, so it does not affect the states of valid tokens; only pooling has to ignore it.
        for dropout, kernel, recurrent, bias in zip(
            below, self.kernels, self.recurrent_kernels, self.biases, strict=True
        ):
            x_ble = self._recurrence(dropout(x_ble, training), kernel, recurrent, bias, training)
        padding_bl1 = inputs["attention_mask"][:, :, None] == 0
        pooled_bp = tf.reduce_max(tf.where(padding_bl1, x_ble.dtype.min, x_ble), axis=1)
        if self.with_mean:
            tokens_b1 = tf.reduce_sum(tf.cast(inputs["attention_mask"], x_ble.dtype), axis=1, keepdims=True)
            mean_bh = tf.reduce_sum(tf.where(padding_bl1, tf.zeros_like(x_ble), x_ble), axis=1) / tokens_b1
            pooled_bp = tf.concat([pooled_bp, mean_bh], axis=1)
        return tf.cast(self.classifier(last(pooled_bp, training)), tf.float32)


def unrolled(x_ble: Any, kernel: Any, recurrent: Any, bias: Any, training: bool) -> Any:
    """Return the hidden states ``[B, L, H]``, starting from zero states. The gates are in the order i, f, g, o.

    The inputs' contribution to the gates is computed with a single matrix product. On a CPU, unrolling is faster than
    a loop in the graph or the ``BlockLSTMV2`` kernel.
    """
    batch, length, size = sizes(x_ble)
    hidden = recurrent.shape[0]
    kernel, recurrent, bias = (tf.cast(variable, x_ble.dtype) for variable in (kernel, recurrent, bias))
    x_lbe = tf.transpose(x_ble, [1, 0, 2])
    gates = tf.nn.bias_add(tf.matmul(tf.reshape(x_lbe, [-1, size]), kernel), bias)
    states = []
    h = cell = None
    for gates_bg in tf.unstack(tf.reshape(gates, [length, batch, 4 * hidden])):
        i, f, g, o = tf.split(gates_bg if h is None else gates_bg + tf.matmul(h, recurrent), 4, axis=1)
        new = tf.sigmoid(i) * tf.tanh(g)
        cell = new if cell is None else new + tf.sigmoid(f) * cell
        h = tf.sigmoid(o) * tf.tanh(cell)
        states.append(h)
    return tf.stack(states, axis=1)


def cudnn(x_ble: Any, kernel: Any, recurrent: Any, bias: Any, training: bool) -> Any:
    """Return the hidden states ``[B, L, H]`` computed by cuDNN.

    cuDNN's parameters are the flattened matrices in PyTorch's layout, followed by two biases.
    """
    batch = x_ble.shape[0]
    hidden = recurrent.shape[0]
    matrices = [tf.reshape(tf.transpose(matrix), [-1]) for matrix in (kernel, recurrent)]
    parameters = tf.cast(tf.concat([*matrices, tf.zeros_like(bias), bias], axis=0), x_ble.dtype)
    zeros_1bh = tf.zeros([1, batch, hidden], x_ble.dtype)
    output_lbh, *_ = tf.raw_ops.CudnnRNN(
        input=tf.transpose(x_ble, [1, 0, 2]),
        input_h=zeros_1bh,
        input_c=zeros_1bh,
        params=parameters,
        rnn_mode="lstm",
        is_training=training,
    )
    return tf.ensure_shape(tf.transpose(output_lbh, [1, 0, 2]), [batch, x_ble.shape[1], hidden])


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    module = Lstm(config, int(info.details["vocab_size"]), info.outputs, dropout)
    return Network(module=module, bindings=module.bindings)
