"""The Vision Transformer in TensorFlow, built from Keras layers.

Suffixes of variable names give the dimensions of arrays: B is the batch size, T the number of tokens (the class token
and the patches), and H the hidden size.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from harness import Binding, DataInfo, Network
from harness_vit.model import patches

Bindings = dict[str, Binding]


class Layer(keras.layers.Layer):
    """Transformer layer with pre-layer normalization (equations 2 and 3)."""

    def __init__(self, config: Any, dropout: float) -> None:
        super().__init__()
        heads, hidden, epsilon = config.num_attention_heads, config.hidden_size, config.layer_norm_eps
        self.heads, self.hidden = heads, hidden
        self.attention_norm = keras.layers.LayerNormalization(epsilon=epsilon)
        self.attention = keras.layers.MultiHeadAttention(heads, hidden // heads, dropout=dropout)
        self.mlp_norm = keras.layers.LayerNormalization(epsilon=epsilon)
        # By default, Keras computes the exact GELU, not its tanh approximation.
        self.mlp_in = keras.layers.Dense(config.intermediate_size, activation=keras.activations.gelu)
        self.mlp_out = keras.layers.Dense(hidden)
        self.dropout = [keras.layers.Dropout(dropout) for _ in range(2)]

    def build(self, shape_bth: Any) -> None:
        self.attention.build(shape_bth, shape_bth)
        for layer in (self.attention_norm, self.mlp_norm, self.mlp_in):
            layer.build(shape_bth)
        self.mlp_out.build((*shape_bth[:-1], self.mlp_in.units))
        self.built = True

    def call(self, x_bth: Any, training: bool) -> Any:
        on_attention, on_mlp = self.dropout
        y_bth = self.attention_norm(x_bth)
        x_bth = x_bth + on_attention(self.attention(y_bth, y_bth, training=training), training=training)
        return x_bth + on_mlp(self.mlp_out(self.mlp_in(self.mlp_norm(x_bth))), training=training)

    def bindings(self) -> Bindings:
        heads, size = self.heads, self.hidden // self.heads
        bindings = _norm("layernorm_before", self.attention_norm) | _norm("layernorm_after", self.mlp_norm)
        for name in ("query", "key", "value"):
            dense = getattr(self.attention, f"{name}_dense")  # Keras stores the matrix as [hidden, heads, size]
            bindings[f"attention.attention.{name}.weight"] = Binding(dense.kernel, (1, 0), (self.hidden, heads, size))
            bindings[f"attention.attention.{name}.bias"] = Binding(dense.bias, shape=(heads, size))
        output = self.attention.output_dense
        bindings["attention.output.dense.weight"] = Binding(output.kernel, (1, 0), (heads, size, self.hidden))
        bindings["attention.output.dense.bias"] = Binding(output.bias)
        return bindings | _dense("intermediate.dense", self.mlp_in) | _dense("output.dense", self.mlp_out)


class VisionTransformer(keras.layers.Layer):
    def __init__(self, config: Any, tokens: int, channels: int, outputs: int, dropout: float) -> None:
        super().__init__()
        hidden, size = config.hidden_size, config.patch_size
        self.class_token = self.add_weight(shape=(1, 1, hidden), initializer="zeros")
        self.positions = self.add_weight(shape=(1, tokens, hidden), initializer="zeros")
        self.projection = keras.layers.Conv2D(hidden, size, strides=size)
        self.encoder = [Layer(config, dropout) for _ in range(config.num_hidden_layers)]
        self.norm = keras.layers.LayerNormalization(epsilon=config.layer_norm_eps)
        self.classifier = keras.layers.Dense(outputs)
        self.dropout = keras.layers.Dropout(dropout)
        self.projection.build((None, None, None, channels))
        for layer in (*self.encoder, self.norm):
            layer.build((None, tokens, hidden))
        self.classifier.build((None, hidden))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool) -> Any:
        pixels = inputs["pixel_values"]
        patches_bth = self.projection(pixels)
        patches_bth = tf.reshape(patches_bth, (tf.shape(pixels)[0], -1, patches_bth.shape[-1]))
        class_b1h = tf.repeat(tf.cast(self.class_token, patches_bth.dtype), tf.shape(pixels)[0], axis=0)
        x_bth = tf.concat((class_b1h, patches_bth), axis=1) + tf.cast(self.positions, patches_bth.dtype)
        x_bth = self.dropout(x_bth, training=training)
        for layer in self.encoder:
            x_bth = layer(x_bth, training=training)
        return tf.cast(self.classifier(self.norm(x_bth[:, 0])), tf.float32)

    def bindings(self) -> Bindings:
        bindings = {
            "vit.embeddings.cls_token": Binding(self.class_token),
            "vit.embeddings.position_embeddings": Binding(self.positions),
            # Keras stores convolutions as [height, width, in, out].
            "vit.embeddings.patch_embeddings.projection.weight": Binding(self.projection.kernel, (2, 3, 1, 0)),
            "vit.embeddings.patch_embeddings.projection.bias": Binding(self.projection.bias),
        }
        for index, layer in enumerate(self.encoder):
            bindings |= {f"vit.encoder.layer.{index}.{name}": binding for name, binding in layer.bindings().items()}
        return bindings | _norm("vit.layernorm", self.norm) | _dense("classifier", self.classifier)


def _dense(name: str, layer: Any) -> Bindings:
    return {f"{name}.weight": Binding(layer.kernel, (1, 0)), f"{name}.bias": Binding(layer.bias)}


def _norm(name: str, layer: Any) -> Bindings:
    return {f"{name}.weight": Binding(layer.gamma), f"{name}.bias": Binding(layer.beta)}


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    channels = info.inputs["pixel_values"].shape[-1]
    module = VisionTransformer(config, patches(config, info) + 1, channels, info.outputs, dropout)
    return Network(module=module, bindings=module.bindings())
