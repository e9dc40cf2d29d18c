"""wav2vec 2.0 in TensorFlow, equivalent to ``transformers.Wav2Vec2ForSequenceClassification``."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from harness import Binding, DataInfo, Network
from harness_tensorflow.layers import (
    ChannelNorm,
    Convolution,
    Dense,
    Dropout,
    LayerNorm,
    attention,
    compute_dtype,
    gelu,
    parameter,
    prefixed,
)

_CONVOLUTION_NORM_EPS = 1e-5


class FeatureLayer(tf.Module):
    """Convolution over time, optional normalization, and GELU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, *, bias: bool, norm: str) -> None:
        super().__init__()
        self.conv = Convolution(inputs, outputs, (kernel,), stride, bias=bias)
        norms = {"group": ChannelNorm, "layer": LayerNorm}
        self.layer_norm = norms[norm](outputs, _CONVOLUTION_NORM_EPS) if norm else None
        self.bindings = prefixed("conv", self.conv.bindings)
        if self.layer_norm:
            self.bindings |= prefixed("layer_norm", self.layer_norm.bindings)

    def __call__(self, x_blc: Any) -> Any:
        x_blc = self.conv(x_blc)
        return gelu(self.layer_norm(x_blc) if self.layer_norm else x_blc)


class PositionalConvolution(tf.Module):
    """Grouped, weight-normalized convolution over time (Salimans and Kingma 2016), followed by GELU.

    Each group is a separate convolution, because TensorFlow's CPU kernels have no gradient for grouped convolutions.
    """

    def __init__(self, hidden: int, kernel: int, groups: int) -> None:
        super().__init__()
        self._groups = groups
        self.weight_g = parameter(kernel, 1, 1)
        self.weight_v = parameter(kernel, hidden // groups, hidden)
        self.bias = parameter(hidden)
        self.bindings = {
            "weight_g": Binding(self.weight_g, (2, 1, 0)),
            "weight_v": Binding(self.weight_v, (2, 1, 0)),
            "bias": Binding(self.bias),
        }

    def __call__(self, x_blh: Any) -> Any:
        kernel_size = self.weight_v.shape[0]
        length = tf.sqrt(tf.reduce_sum(tf.square(self.weight_v), [1, 2], keepdims=True))
        kernel = tf.cast(self.weight_v * (self.weight_g / length), x_blh.dtype)
        # The model pads by half of the kernel size on both sides and drops the last frame if the kernel size is even.
        # Omitting one zero of the padding at the end has the same effect.
        before, after = kernel_size // 2, (kernel_size - 1) // 2
        padded = tf.pad(x_blh, [[0, 0], [before, after], [0, 0]])
        parts = [
            tf.nn.conv1d(x, w, 1, "VALID")
            for x, w in zip(tf.split(padded, self._groups, axis=2), tf.split(kernel, self._groups, axis=2), strict=True)
        ]
        return gelu(tf.nn.bias_add(tf.concat(parts, axis=2), tf.cast(self.bias, x_blh.dtype)))


class Layer(tf.Module):
    """Transformer layer.

    Normalization comes before each block if ``do_stable_layer_norm`` is set, and after each block otherwise.
    """

    def __init__(self, config: Any, dropout: float) -> None:
        super().__init__()
        hidden = config.hidden_size
        self._heads, self._pre_norm = config.num_attention_heads, config.do_stable_layer_norm
        self.query, self.key, self.value, self.output = (Dense(hidden, hidden) for _ in range(4))
        self.layer_norm = LayerNorm(hidden, config.layer_norm_eps)
        self.intermediate = Dense(hidden, config.intermediate_size)
        self.feed_forward = Dense(config.intermediate_size, hidden)
        self.final_layer_norm = LayerNorm(hidden, config.layer_norm_eps)
        self.dropout = [Dropout(dropout) for _ in range(4)]
        self.bindings = {
            **prefixed("attention.q_proj", self.query.bindings),
            **prefixed("attention.k_proj", self.key.bindings),
            **prefixed("attention.v_proj", self.value.bindings),
            **prefixed("attention.out_proj", self.output.bindings),
            **prefixed("layer_norm", self.layer_norm.bindings),
            **prefixed("feed_forward.intermediate_dense", self.intermediate.bindings),
            **prefixed("feed_forward.output_dense", self.feed_forward.bindings),
            **prefixed("final_layer_norm", self.final_layer_norm.bindings),
        }

    def __call__(self, x_blh: Any, training: bool) -> Any:
        if self._pre_norm:
            x_blh += self._attend(self.layer_norm(x_blh), training)
            return x_blh + self._transform(self.final_layer_norm(x_blh), training)
        x_blh = self.layer_norm(x_blh + self._attend(x_blh, training))
        return self.final_layer_norm(x_blh + self._transform(x_blh, training))

    def _attend(self, x_blh: Any, training: bool) -> Any:
        on_weights, on_attention, _, _ = self.dropout
        context = attention(self.query(x_blh), self.key(x_blh), self.value(x_blh), self._heads, on_weights, training)
        return on_attention(self.output(context), training)

    def _transform(self, x_blh: Any, training: bool) -> Any:
        *_, on_intermediate, on_output = self.dropout
        y_blh = on_intermediate(gelu(self.intermediate(x_blh)), training)
        return on_output(self.feed_forward(y_blh), training)


class Wav2Vec2(tf.Module):
    def __init__(self, config: Any, outputs: int, dropout: float) -> None:
        super().__init__()
        self._dtype = compute_dtype()
        hidden = config.hidden_size
        self._pre_norm = config.do_stable_layer_norm
        self.feature_layers = []
        self.bindings: dict[str, Binding] = {}
        channels = 1
        for index, (width, kernel, stride) in enumerate(
            zip(config.conv_dim, config.conv_kernel, config.conv_stride, strict=True)
        ):
            norm = config.feat_extract_norm if index == 0 or config.feat_extract_norm == "layer" else ""
            layer = FeatureLayer(channels, width, kernel, stride, bias=config.conv_bias, norm=norm)
            self.feature_layers.append(layer)
            self.bindings |= prefixed(f"wav2vec2.feature_extractor.conv_layers.{index}", layer.bindings)
            channels = width
        self.projection_norm = LayerNorm(channels, config.layer_norm_eps)
        self.projection = Dense(channels, hidden)
        self.positional = PositionalConvolution(
            hidden, config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
        )
        self.layer_norm = LayerNorm(hidden, config.layer_norm_eps)
        self.layers = [Layer(config, dropout) for _ in range(config.num_hidden_layers)]
        self.projector = Dense(hidden, config.classifier_proj_size)
        self.classifier = Dense(config.classifier_proj_size, outputs)
        self.dropout = [Dropout(dropout), Dropout(dropout)]
        self.bindings |= {
            **prefixed("wav2vec2.feature_projection.layer_norm", self.projection_norm.bindings),
            **prefixed("wav2vec2.feature_projection.projection", self.projection.bindings),
            **prefixed("wav2vec2.encoder.pos_conv_embed.conv", self.positional.bindings),
            **prefixed("wav2vec2.encoder.layer_norm", self.layer_norm.bindings),
            **prefixed("projector", self.projector.bindings),
            **prefixed("classifier", self.classifier.bindings),
        }
        for index, layer in enumerate(self.layers):
            self.bindings |= prefixed(f"wav2vec2.encoder.layers.{index}", layer.bindings)

    def __call__(self, inputs: dict[str, Any], training: bool) -> Any:
        on_projection, on_encoder = self.dropout
        x_blc = tf.cast(inputs["input_values"], self._dtype)[:, :, None]
        for layer in self.feature_layers:
            x_blc = layer(x_blc)
        x_blh = on_projection(self.projection(self.projection_norm(x_blc)), training)
        x_blh += self.positional(x_blh)
        x_blh = on_encoder(x_blh if self._pre_norm else self.layer_norm(x_blh), training)
        for layer in self.layers:
            x_blh = layer(x_blh, training)
        if self._pre_norm:
            x_blh = self.layer_norm(x_blh)
        return tf.cast(self.classifier(tf.reduce_mean(self.projector(x_blh), axis=1)), tf.float32)


def build(config: Any, info: DataInfo, dropout: float) -> Network:
    module = Wav2Vec2(config, info.outputs, dropout)
    return Network(module=module, bindings=module.bindings)
