"""wav2vec 2.0 in JAX, equivalent to ``transformers.Wav2Vec2ForSequenceClassification``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from harness import DataInfo, Network
from harness_jax.layers import Layer, Layers, Mode, attention, convolve, gelu

Array = Any

_CONVOLUTION_NORM_EPS = 1e-5


def _feature_layer(make: Layers, name: str, stride: int, *, bias: bool, norm: str) -> Layer:
    """Create a convolution over time, followed by optional normalization and GELU."""
    convolution = make.convolution(f"{name}.conv", stride, bias=bias)
    if not norm:
        return lambda params, x_blc: gelu(convolution(params, x_blc))
    axis = {"group": 1, "layer": -1}[norm]
    layer_norm = make.layer_norm(f"{name}.layer_norm", _CONVOLUTION_NORM_EPS, axis)
    return lambda params, x_blc: gelu(layer_norm(params, convolution(params, x_blc)))


def _positional_convolution(make: Layers, name: str, groups: int) -> Layer:
    """Create a grouped, weight-normalized convolution over time (Salimans and Kingma 2016), followed by GELU.

    Each group is a separate convolution, because XLA's CPU code for a grouped convolution takes three times as long.
    """
    gain, direction, bias = (make.array(f"{name}.{part}") for part in ("weight_g", "weight_v", "bias"))

    def layer(params: Any, x_blh: Array) -> Array:
        v = params[direction]
        length = jnp.sqrt(jnp.square(v).sum((0, 1), keepdims=True))
        weight = (v * (params[gain] / length)).astype(x_blh.dtype)
        # The model pads by half of the kernel size on both sides and drops the last frame if the kernel size is even.
        # Omitting one zero of the padding at the end has the same effect.
        size = weight.shape[-1]
        padded = jnp.pad(x_blh, [(0, 0), (size // 2, (size - 1) // 2), (0, 0)])
        parts = zip(jnp.split(padded, groups, axis=2), jnp.split(weight, groups, axis=0), strict=True)
        y_blh = jnp.concatenate([convolve(x, w, 1, 0) for x, w in parts], axis=2)
        return gelu(y_blh + params[bias].astype(x_blh.dtype))

    return layer


def _layer(make: Layers, name: str, config: Any, dropout: float) -> Callable[[Any, Array, Mode], Array]:
    """Create a Transformer layer. If ``do_stable_layer_norm`` is set, normalization comes before each block."""
    query, key, value, output = (make.dense(f"{name}.attention.{part}_proj") for part in ("q", "k", "v", "out"))
    layer_norm = make.layer_norm(f"{name}.layer_norm", config.layer_norm_eps)
    intermediate = make.dense(f"{name}.feed_forward.intermediate_dense")
    feed_forward = make.dense(f"{name}.feed_forward.output_dense")
    final_layer_norm = make.layer_norm(f"{name}.final_layer_norm", config.layer_norm_eps)
    on_weights, on_attention, on_intermediate, on_output = (make.dropout(dropout) for _ in range(4))

    def attend(params: Any, x_blh: Array, mode: Mode) -> Array:
        q_blh, k_blh, v_blh = (projection(params, x_blh) for projection in (query, key, value))
        context_blh = attention(q_blh, k_blh, v_blh, config.num_attention_heads, on_weights, mode)
        return on_attention(output(params, context_blh), mode)

    def transform(params: Any, x_blh: Array, mode: Mode) -> Array:
        y_blh = on_intermediate(gelu(intermediate(params, x_blh)), mode)
        return on_output(feed_forward(params, y_blh), mode)

    def layer(params: Any, x_blh: Array, mode: Mode) -> Array:
        if config.do_stable_layer_norm:
            x_blh = x_blh + attend(params, layer_norm(params, x_blh), mode)
            return x_blh + transform(params, final_layer_norm(params, x_blh), mode)
        x_blh = layer_norm(params, x_blh + attend(params, x_blh, mode))
        return final_layer_norm(params, x_blh + transform(params, x_blh, mode))

    return layer


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    make = Layers()
    feature_layers = []
    for index, stride in enumerate(config.conv_stride):
        norm = config.feat_extract_norm if index == 0 or config.feat_extract_norm == "layer" else ""
        name = f"wav2vec2.feature_extractor.conv_layers.{index}"
        feature_layers.append(_feature_layer(make, name, stride, bias=config.conv_bias, norm=norm))
    projection_norm = make.layer_norm("wav2vec2.feature_projection.layer_norm", config.layer_norm_eps)
    projection = make.dense("wav2vec2.feature_projection.projection")
    positional = _positional_convolution(
        make, "wav2vec2.encoder.pos_conv_embed.conv", config.num_conv_pos_embedding_groups
    )
    encoder_norm = make.layer_norm("wav2vec2.encoder.layer_norm", config.layer_norm_eps)
    layers = [
        _layer(make, f"wav2vec2.encoder.layers.{index}", config, dropout) for index in range(config.num_hidden_layers)
    ]
    projector, classifier = make.dense("projector"), make.dense("classifier")
    on_projection, on_encoder = make.dropout(dropout), make.dropout(dropout)

    def network(params: Any, statistics: Any, inputs: Any, mode: Mode) -> tuple[Any, Any]:
        x_blc = inputs["input_values"].astype(mode.dtype)[:, :, None]
        for feature_layer in feature_layers:
            x_blc = feature_layer(params, x_blc)
        x_blh = on_projection(projection(params, projection_norm(params, x_blc)), mode)
        x_blh = x_blh + positional(params, x_blh)
        x_blh = on_encoder(x_blh if config.do_stable_layer_norm else encoder_norm(params, x_blh), mode)
        for layer in layers:
            x_blh = layer(params, x_blh, mode)
        if config.do_stable_layer_norm:
            x_blh = encoder_norm(params, x_blh)
        return classifier(params, projector(params, x_blh).mean(axis=1)), statistics

    return Network(module=network, bindings=make.bindings)
