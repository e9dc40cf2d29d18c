"""Layers for the TensorFlow networks: plain ops on float32 variables, numerically equivalent to PyTorch's layers.

Each layer computes in the dtype of its input and provides the `harness.Binding` of each canonical array. Normalization
layers and GELU have custom gradients: TensorFlow's automatic gradients need twice as many passes over memory, and these
passes dominate the cost of element-wise ops on a CPU.

Shape suffixes: B batch, L positions (tokens or frames), C channels, H hidden size, N heads, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from harness import Binding

_BATCH_NORM_MOMENTUM = 0.1


def compute_dtype() -> str:
    """Return the compute dtype of Keras's global policy, to which inputs are cast."""
    return str(keras.mixed_precision.dtype_policy().compute_dtype)


def sizes(x: Any) -> list[Any]:
    """Return the size of each axis of `x`. Sizes are integers. However, a size that is not known when the graph is
    built, such as the batch size of an exported model, is a scalar tensor."""
    return [tf.shape(x)[axis] if size is None else size for axis, size in enumerate(x.shape)]


def prefixed(prefix: str, bindings: Mapping[str, Binding]) -> dict[str, Binding]:
    return {f"{prefix}.{name}": binding for name, binding in bindings.items()}


def parameter(*shape: int, trainable: bool = True) -> Any:
    """Return a float32 variable of zeros. The values are set later from the canonical weights."""
    return tf.Variable(tf.zeros(shape), trainable=trainable)


class Dense(tf.Module):
    """Dense layer ``y = x W + b`` on the last axis."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = parameter(inputs, outputs)
        self.bias = parameter(outputs)
        self.bindings = {"weight": Binding(self.kernel, (1, 0)), "bias": Binding(self.bias)}

    def __call__(self, x: Any) -> Any:
        inputs, outputs = self.kernel.shape
        flat = tf.matmul(tf.reshape(x, [-1, inputs]), tf.cast(self.kernel, x.dtype))
        return tf.reshape(tf.nn.bias_add(flat, tf.cast(self.bias, x.dtype)), [*sizes(x)[:-1], outputs])


class Convolution(tf.Module):
    """Convolution of channels-last input, padded by the same number of zeros on both sides of each axis.

    ``kernel`` contains the kernel size along each of the one or two spatial axes.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, ...], stride: int, *, padding: int = 0, bias: bool = False
    ) -> None:
        super().__init__()
        self.kernel = parameter(*kernel, inputs, outputs)
        self.bias = parameter(outputs) if bias else None
        self._stride = stride
        self._padding = padding
        rank = len(kernel)
        self.bindings = {"weight": Binding(self.kernel, (*range(2, rank + 2), 1, 0))}
        if bias:
            self.bindings["bias"] = Binding(self.bias)

    def __call__(self, x: Any) -> Any:
        kernel = tf.cast(self.kernel, x.dtype)
        if len(kernel.shape) == 3:
            y = tf.nn.conv1d(x, kernel, self._stride, "VALID")
        else:
            sides = [self._padding, self._padding]
            y = tf.nn.conv2d(x, kernel, self._stride, [[0, 0], sides, sides, [0, 0]] if self._padding else "VALID")
        return y if self.bias is None else tf.nn.bias_add(y, tf.cast(self.bias, x.dtype))


class BatchNorm(tf.Module):
    """Batch normalization of ``[B, H, W, C]`` with eps 1e-5, like `torch.nn.BatchNorm2d`.

    The running variance is updated with the unbiased batch variance, which TensorFlow's fused kernel returns. The Keras
    layer uses the biased variance. Batch normalization is computed in float32 regardless of the precision.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.offset = parameter(channels), parameter(channels)
        self.mean, self.variance = parameter(channels, trainable=False), parameter(channels, trainable=False)
        self.bindings = {
            "weight": Binding(self.scale),
            "bias": Binding(self.offset),
            "running_mean": Binding(self.mean),
            "running_var": Binding(self.variance),
        }

    def __call__(self, x: Any, training: bool) -> Any:
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.scale,
            offset=self.offset,
            mean=tf.zeros([0]) if training else self.mean,
            variance=tf.zeros([0]) if training else self.variance,
            epsilon=1e-5,
            is_training=training,
        )
        if training:
            self.mean.assign_sub(_BATCH_NORM_MOMENTUM * (self.mean - mean), read_value=False)
            self.variance.assign_sub(_BATCH_NORM_MOMENTUM * (self.variance - variance), read_value=False)
        return y


class LayerNorm(tf.Module):
    """Layer normalization over the last axis with scale and offset, in float32 regardless of the precision."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.scale, self.offset = parameter(size), parameter(size)
        self._epsilon = epsilon
        self.bindings = {"weight": Binding(self.scale), "bias": Binding(self.offset)}

    def __call__(self, x: Any) -> Any:
        normal = standardize(tf.cast(x, tf.float32), -1, self._epsilon)
        return tf.cast(normal * self.scale + self.offset, x.dtype)


class ChannelNorm(LayerNorm):
    """Normalization of each channel of ``[B, L, C]`` over the positions (group normalization with C groups)."""

    def __call__(self, x: Any) -> Any:
        normal = standardize(tf.cast(x, tf.float32), 1, self._epsilon)
        return tf.cast(normal * self.scale + self.offset, x.dtype)


class Dropout(tf.Module):
    """Dropout with probability `rate` during training. The remaining elements are scaled by ``1 / (1 - rate)``."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._layer = keras.layers.Dropout(rate) if rate else None

    def __call__(self, x: Any, training: bool) -> Any:
        return self._layer(x, training=True) if self._layer and training else x


def standardize(x: Any, axis: int, epsilon: float) -> Any:
    """Return ``(x - mean) / sqrt(variance + epsilon)`` over `axis`, with the biased variance."""

    @tf.custom_gradient
    def function(x: Any) -> Any:
        centered = x - tf.reduce_mean(x, axis, keepdims=True)
        inverse = tf.math.rsqrt(tf.reduce_mean(tf.square(centered), axis, keepdims=True) + epsilon)
        normal = centered * inverse

        def gradient(upstream: Any) -> Any:
            mean = tf.reduce_mean(upstream, axis, keepdims=True)
            projection = tf.reduce_mean(upstream * normal, axis, keepdims=True)
            return inverse * (upstream - mean - normal * projection)

        return normal, gradient

    return function(x)


def gelu(x: Any) -> Any:
    """Return the exact GELU ``x Phi(x)``, not its tanh approximation (Hendrycks and Gimpel 2016)."""

    @tf.custom_gradient
    def function(x: Any) -> Any:
        phi = 0.5 * (1 + tf.math.erf(x * math.sqrt(0.5)))

        def gradient(upstream: Any) -> Any:
            density = tf.exp(-0.5 * tf.square(x)) * (1 / math.sqrt(2 * math.pi))
            return upstream * (phi + x * density)

        return x * phi, gradient

    return function(x)


def attention(
    q_blh: Any, k_blh: Any, v_blh: Any, heads: int, dropout: Dropout, training: bool, mask: Any = None
) -> Any:
    """Compute scaled dot-product attention (Vaswani et al. 2017) of projected inputs ``[B, L, H]``.

    Dropout is applied to the attention weights. `mask` is broadcast to ``[B, N, L, L]`` and added to the scores. The
    softmax is computed in float32 regardless of the precision.
    """
    batch, length, size = sizes(q_blh)

    def split(x_blh: Any) -> Any:
        return tf.transpose(tf.reshape(x_blh, [batch, length, heads, size // heads]), [0, 2, 1, 3])

    scores_bnll = tf.matmul(split(q_blh) * (size // heads) ** -0.5, split(k_blh), transpose_b=True)
    scores_bnll = tf.cast(scores_bnll, tf.float32)
    if mask is not None:
        scores_bnll += mask
    weights_bnll = dropout(tf.cast(tf.nn.softmax(scores_bnll), q_blh.dtype), training)
    context_bnld = tf.matmul(weights_bnll, split(v_blh))
    return tf.reshape(tf.transpose(context_bnld, [0, 2, 1, 3]), [batch, length, size])
