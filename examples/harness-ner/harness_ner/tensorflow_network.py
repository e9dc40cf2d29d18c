"""BERT for token classification in TensorFlow, built from Keras layers.

The network is equivalent to ``transformers.BertForTokenClassification``. All token type ids are 0.

Suffixes of variable names give the dimensions of arrays: B is the batch size, L the number of tokens, and H the hidden
size.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from harness import Binding, DataInfo, Network
from harness_ner.bert_tagger import vocab_size

BindingsOf = dict[str, Binding]


class Layer(keras.layers.Layer):
    """Transformer layer with post-layer normalization."""

    def __init__(self, config: Any, dropout: float) -> None:
        super().__init__()
        heads, hidden, epsilon = config.num_attention_heads, config.hidden_size, config.layer_norm_eps
        self.heads, self.hidden = heads, hidden
        self.attention = keras.layers.MultiHeadAttention(heads, hidden // heads, dropout=dropout)
        self.attention_norm = keras.layers.LayerNormalization(epsilon=epsilon)
        # By default, Keras computes the exact GELU, not its tanh approximation.
        self.intermediate = keras.layers.Dense(config.intermediate_size, activation=keras.activations.gelu)
        self.output_dense = keras.layers.Dense(hidden)
        self.norm = keras.layers.LayerNormalization(epsilon=epsilon)
        self.dropout = [keras.layers.Dropout(dropout) for _ in range(2)]

    def build(self, shape_blh: Any) -> None:
        self.attention.build(shape_blh, shape_blh)
        self.intermediate.build(shape_blh)
        self.output_dense.build((*shape_blh[:-1], self.intermediate.units))
        for norm in (self.attention_norm, self.norm):
            norm.build(shape_blh)
        self.built = True

    def call(self, x_blh: Any, mask_b1l: Any, training: bool) -> Any:
        on_attention, on_output = self.dropout
        y_blh = self.attention(x_blh, x_blh, attention_mask=mask_b1l, training=training)
        x_blh = self.attention_norm(x_blh + on_attention(y_blh, training=training))
        y_blh = self.output_dense(self.intermediate(x_blh))
        return self.norm(x_blh + on_output(y_blh, training=training))

    def bindings(self) -> BindingsOf:
        size = self.hidden // self.heads
        bindings = {}
        for name in ("query", "key", "value"):
            part = getattr(self.attention, f"{name}_dense")
            bindings[f"attention.self.{name}.weight"] = Binding(part.kernel, (1, 0), (self.hidden, self.heads, size))
            bindings[f"attention.self.{name}.bias"] = Binding(part.bias, shape=(self.heads, size))
        out = self.attention.output_dense
        bindings["attention.output.dense.weight"] = Binding(out.kernel, (1, 0), (self.heads, size, self.hidden))
        bindings["attention.output.dense.bias"] = Binding(out.bias)
        bindings |= _norm("attention.output.LayerNorm", self.attention_norm)
        bindings |= _dense("intermediate.dense", self.intermediate)
        bindings |= _dense("output.dense", self.output_dense)
        return bindings | _norm("output.LayerNorm", self.norm)


class Tagger(keras.layers.Layer):
    def __init__(self, config: Any, ids: int, length: int, outputs: int, dropout: float) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.words, self.positions, self.types = (
            keras.layers.Embedding(rows, hidden)
            for rows in (ids, config.max_position_embeddings, config.type_vocab_size)
        )
        self.embedding_norm = keras.layers.LayerNormalization(epsilon=config.layer_norm_eps)
        self.encoder = [Layer(config, dropout) for _ in range(config.num_hidden_layers)]
        self.classifier = keras.layers.Dense(outputs)
        self.dropout = [keras.layers.Dropout(dropout) for _ in range(2)]
        for layer in (self.words, self.positions, self.types):
            layer.build((None, length))
        for layer in (self.embedding_norm, *self.encoder, self.classifier):
            layer.build((None, length, hidden))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool) -> Any:
        ids_bl, mask_bl = inputs["input_ids"], inputs["attention_mask"]
        on_embeddings, on_output = self.dropout
        x_blh = self.words(ids_bl) + self.positions(tf.range(ids_bl.shape[1])) + self.types(tf.constant(0))
        x_blh = on_embeddings(self.embedding_norm(x_blh), training=training)
        mask_b1l = tf.cast(mask_bl, tf.bool)[:, None, :]
        for layer in self.encoder:
            x_blh = layer(x_blh, mask_b1l, training=training)
        return tf.cast(self.classifier(on_output(x_blh, training=training)), tf.float32)

    def bindings(self) -> BindingsOf:
        bindings = {
            f"bert.embeddings.{name}_embeddings.weight": Binding(layer.embeddings)
            for name, layer in (("word", self.words), ("position", self.positions), ("token_type", self.types))
        }
        bindings |= _norm("bert.embeddings.LayerNorm", self.embedding_norm)
        for index, layer in enumerate(self.encoder):
            bindings |= {f"bert.encoder.layer.{index}.{name}": binding for name, binding in layer.bindings().items()}
        return bindings | _dense("classifier", self.classifier)


def _dense(name: str, layer: Any) -> BindingsOf:
    return {f"{name}.weight": Binding(layer.kernel, (1, 0)), f"{name}.bias": Binding(layer.bias)}


def _norm(name: str, layer: Any) -> BindingsOf:
    return {f"{name}.weight": Binding(layer.gamma), f"{name}.bias": Binding(layer.beta)}


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    (length,) = info.inputs["input_ids"].shape
    module = Tagger(config, vocab_size(config, info), length, info.outputs, dropout)
    return Network(module=module, bindings=module.bindings())
