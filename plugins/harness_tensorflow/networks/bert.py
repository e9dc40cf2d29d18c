"""BERT in TensorFlow, equivalent to ``transformers.BertForSequenceClassification``. All token types are 0."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from harness import Binding, DataInfo, Network
from harness_tensorflow.layers import (
    Dense,
    Dropout,
    LayerNorm,
    attention,
    compute_dtype,
    gelu,
    parameter,
    prefixed,
)


class Layer(tf.Module):
    """Transformer layer with post-layer normalization."""

    def __init__(self, config: Any, dropout: float) -> None:
        super().__init__()
        hidden = config.hidden_size
        self._heads = config.num_attention_heads
        self.query, self.key, self.value, self.output = (Dense(hidden, hidden) for _ in range(4))
        self.attention_norm = LayerNorm(hidden, config.layer_norm_eps)
        self.intermediate = Dense(hidden, config.intermediate_size)
        self.feed_forward = Dense(config.intermediate_size, hidden)
        self.norm = LayerNorm(hidden, config.layer_norm_eps)
        self.dropout = [Dropout(dropout) for _ in range(3)]
        self.bindings = {
            **prefixed("attention.self.query", self.query.bindings),
            **prefixed("attention.self.key", self.key.bindings),
            **prefixed("attention.self.value", self.value.bindings),
            **prefixed("attention.output.dense", self.output.bindings),
            **prefixed("attention.output.LayerNorm", self.attention_norm.bindings),
            **prefixed("intermediate.dense", self.intermediate.bindings),
            **prefixed("output.dense", self.feed_forward.bindings),
            **prefixed("output.LayerNorm", self.norm.bindings),
        }

    def __call__(self, x_blh: Any, mask: Any, training: bool) -> Any:
        on_weights, on_attention, on_output = self.dropout
        context = attention(
            self.query(x_blh), self.key(x_blh), self.value(x_blh), self._heads, on_weights, training, mask
        )
        x_blh = self.attention_norm(x_blh + on_attention(self.output(context), training))
        y_blh = self.feed_forward(gelu(self.intermediate(x_blh)))
        return self.norm(x_blh + on_output(y_blh, training))


class Bert(tf.Module):
    def __init__(self, config: Any, vocab_size: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self._dtype = compute_dtype()
        hidden = config.hidden_size
        self.word_embeddings = parameter(vocab_size, hidden)
        self.position_embeddings = parameter(config.max_position_embeddings, hidden)
        self.token_type_embeddings = parameter(config.type_vocab_size, hidden)
        self.embedding_norm = LayerNorm(hidden, config.layer_norm_eps)
        self.layers = [Layer(config, dropout) for _ in range(config.num_hidden_layers)]
        self.pooler = Dense(hidden, hidden)
        self.classifier = Dense(hidden, outputs)
        self.dropout = [Dropout(dropout), Dropout(dropout)]
        self.bindings = {
            "bert.embeddings.word_embeddings.weight": Binding(self.word_embeddings),
            "bert.embeddings.position_embeddings.weight": Binding(self.position_embeddings),
            "bert.embeddings.token_type_embeddings.weight": Binding(self.token_type_embeddings),
            **prefixed("bert.embeddings.LayerNorm", self.embedding_norm.bindings),
            **prefixed("bert.pooler.dense", self.pooler.bindings),
            **prefixed("classifier", self.classifier.bindings),
        }
        for index, layer in enumerate(self.layers):
            self.bindings |= prefixed(f"bert.encoder.layer.{index}", layer.bindings)

    def __call__(self, inputs: dict[str, Any], training: bool) -> Any:
        ids_bl, valid_bl = inputs["input_ids"], inputs["attention_mask"]
        on_embeddings, on_pooled = self.dropout
        x_blh = tf.gather(self.word_embeddings, ids_bl)
        x_blh += self.position_embeddings[: ids_bl.shape[1]] + self.token_type_embeddings[0]
        x_blh = tf.cast(on_embeddings(self.embedding_norm(x_blh), training), self._dtype)
        mask_b11l = tf.cast(1 - valid_bl, tf.float32)[:, None, None, :] * tf.float32.min
        for layer in self.layers:
            x_blh = layer(x_blh, mask_b11l, training)
        pooled_bh = on_pooled(tf.tanh(self.pooler(x_blh[:, 0])), training)
        return tf.cast(self.classifier(pooled_bh), tf.float32)


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    vocab_size = config.vocab_size or int(info.details["vocab_size"])
    module = Bert(config, vocab_size, info.outputs, dropout)
    return Network(module=module, bindings=module.bindings)
