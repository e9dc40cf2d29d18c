"""BERT in JAX, equivalent to ``transformers.BertForSequenceClassification``. All token type ids are 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from harness import DataInfo, Network
from harness_jax.layers import Layers, Mode, attention, gelu

Array = Any


def _layer(make: Layers, name: str, config: Any, dropout: float) -> Callable[[Any, Array, Array, Mode], Array]:
    """Create a Transformer layer with post-layer normalization."""
    query, key, value = (make.dense(f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
    output = make.dense(f"{name}.attention.output.dense")
    attention_norm = make.layer_norm(f"{name}.attention.output.LayerNorm", config.layer_norm_eps)
    intermediate = make.dense(f"{name}.intermediate.dense")
    feed_forward = make.dense(f"{name}.output.dense")
    norm = make.layer_norm(f"{name}.output.LayerNorm", config.layer_norm_eps)
    on_weights, on_attention, on_output = (make.dropout(dropout) for _ in range(3))

    def layer(params: Any, x_blh: Array, valid: Array, mode: Mode) -> Array:
        q_blh, k_blh, v_blh = (projection(params, x_blh) for projection in (query, key, value))
        context_blh = attention(q_blh, k_blh, v_blh, config.num_attention_heads, on_weights, mode, valid)
        x_blh = attention_norm(params, x_blh + on_attention(output(params, context_blh), mode))
        y_blh = feed_forward(params, gelu(intermediate(params, x_blh)))
        return norm(params, x_blh + on_output(y_blh, mode))

    return layer


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    make = Layers()
    words, positions, types = (
        make.array(f"bert.embeddings.{kind}_embeddings.weight") for kind in ("word", "position", "token_type")
    )
    embedding_norm = make.layer_norm("bert.embeddings.LayerNorm", config.layer_norm_eps)
    layers = [_layer(make, f"bert.encoder.layer.{index}", config, dropout) for index in range(config.num_hidden_layers)]
    pooler, classifier = make.dense("bert.pooler.dense"), make.dense("classifier")
    on_embeddings, on_pooled = make.dropout(dropout), make.dropout(dropout)

    def network(params: Any, statistics: Any, inputs: Any, mode: Mode) -> tuple[Any, Any]:
        ids_bl = inputs["input_ids"]
        x_blh = params[words][ids_bl] + params[positions][: ids_bl.shape[1]] + params[types][0]
        x_blh = on_embeddings(embedding_norm(params, x_blh), mode).astype(mode.dtype)
        valid_b11l = inputs["attention_mask"][:, None, None, :] == 1
        for layer in layers:
            x_blh = layer(params, x_blh, valid_b11l, mode)
        pooled_bh = jnp.tanh(pooler(params, x_blh[:, 0]))
        return classifier(params, on_pooled(pooled_bh, mode)), statistics

    return Network(module=network, bindings=make.bindings)
