"""Layers for the JAX networks: pure functions of ``(params, x)`` that are numerically equivalent to PyTorch's layers.

`Layers` creates the layers and collects the bindings of their arrays. Arrays use the canonical layouts, because
transposed kernels (dense ``[in, out]``, convolution ``[*kernel, in, out]``) were not faster on a CPU.

Each layer computes in the dtype of its input, except for normalization layers and softmax, which use at least float32.

Suffixes of variable names give the dimensions of arrays: B is the batch size, L the number of positions (tokens or
frames), C the number of channels, H the hidden size, N the number of heads, and D the head size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import erf

from harness import Binding

Array = Any
Params = Mapping[str, Array]
Layer = Callable[[Params, Array], Array]

_BATCH_NORM_EPSILON = 1e-5
_BATCH_NORM_MOMENTUM = 0.1


class Mode(NamedTuple):
    """Settings for one call to a network."""

    training: bool
    """True in training mode, False in evaluation mode."""
    dtype: Any
    """Compute dtype: float32, bfloat16 or float64."""
    key: Any
    """`jax.random` key for dropout in this step. None in evaluation mode."""


class Layers:
    """Factory for the layers of one network. `bindings` contains the canonical arrays of all layers created so far."""

    def __init__(self) -> None:
        self.bindings: dict[str, Binding] = {}
        self._dropouts = itertools.count()

    def array(self, name: str) -> str:
        """Register a canonical array and return its key."""
        self.bindings[name] = Binding(name)
        return name

    def dense(self, name: str) -> Layer:
        """Create a dense layer ``y = x W^T + b`` on the last axis, where W is ``[out, in]``."""
        weight, bias = self.array(f"{name}.weight"), self.array(f"{name}.bias")
        return lambda params, x: x @ params[weight].astype(x.dtype).T + params[bias].astype(x.dtype)

    def convolution(self, name: str, stride: int, *, padding: int = 0, bias: bool = False) -> Layer:
        """Create a convolution layer for ``[B, L, C]`` or ``[B, H, W, C]``.

        The input is padded with `padding` zeros on both sides of each spatial axis.
        """
        weight = self.array(f"{name}.weight")
        bias_key = self.array(f"{name}.bias") if bias else None

        def layer(params: Params, x: Array) -> Array:
            y = convolve(x, params[weight].astype(x.dtype), stride, padding)
            return y if bias_key is None else y + params[bias_key].astype(x.dtype)

        return layer

    def layer_norm(self, name: str, epsilon: float, axis: int = -1) -> Layer:
        """Create a normalization layer over `axis`, with scale and offset along the last axis.

        If `axis` is -1, the layer performs layer normalization. If `axis` is 1 and the input is ``[B, L, C]``, the
        layer performs group normalization with C groups.
        """
        weight, bias = self.array(f"{name}.weight"), self.array(f"{name}.bias")

        def layer(params: Params, x: Array) -> Array:
            wide = _wide(x)
            centered = wide - wide.mean(axis, keepdims=True)
            normal = centered * lax.rsqrt(jnp.square(centered).mean(axis, keepdims=True) + epsilon)
            return (normal * params[weight] + params[bias]).astype(x.dtype)

        return layer

    def batch_norm(self, name: str) -> Callable[[Params, Params, Array, bool], tuple[Array, dict[str, Array]]]:
        """Create a batch normalization layer for ``[B, H, W, C]`` with eps 1e-5, like `torch.nn.BatchNorm2d`.

        The layer is called as ``norm(params, statistics, x, training)`` and returns ``(y, updated statistics)``. The
        running variance is updated with the unbiased variance of the batch.
        """
        weight, bias = self.array(f"{name}.weight"), self.array(f"{name}.bias")
        running_mean, running_var = self.array(f"{name}.running_mean"), self.array(f"{name}.running_var")

        def layer(params: Params, statistics: Params, x: Array, training: bool) -> tuple[Array, dict[str, Array]]:
            wide, changed = _wide(x), {}
            mean, variance = statistics[running_mean], statistics[running_var]
            if training:
                examples = x.size // x.shape[-1]
                batch_mean = wide.mean((0, 1, 2))
                batch_variance = jnp.square(wide - batch_mean).mean((0, 1, 2))
                unbiased = batch_variance * (examples / max(examples - 1, 1))
                changed[running_mean] = mean + _BATCH_NORM_MOMENTUM * (batch_mean - mean)
                changed[running_var] = variance + _BATCH_NORM_MOMENTUM * (unbiased - variance)
                mean, variance = batch_mean, batch_variance
            scale = params[weight] * lax.rsqrt(variance + _BATCH_NORM_EPSILON)
            return ((wide - mean) * scale + params[bias]).astype(x.dtype), changed

        return layer

    def dropout(self, rate: float) -> Callable[[Array, Mode], Array]:
        """Create a dropout layer with probability `rate`. Elements that are kept are multiplied by ``1 / (1 -
        rate)``."""
        index = next(self._dropouts)

        def layer(x: Array, mode: Mode) -> Array:
            if not (rate and mode.training):
                return x
            kept = jax.random.bernoulli(jax.random.fold_in(mode.key, index), 1 - rate, x.shape)
            return jnp.where(kept, x / (1 - rate), 0)

        return layer


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def convolve(x: Array, weight: Array, stride: int, padding: int) -> Array:
    """Return the cross-correlation of channels-last `x` with `weight` ``[out, in, *kernel]`` along one or two axes."""
    strides, pads = [stride, stride], [(padding, padding)] * 2
    # Convert to an image of height 1, because XLA's CPU code for one spatial axis is up to four times slower.
    if x.ndim == 3:
        strides[0], pads[0] = 1, (0, 0)
        x, weight = x[:, None], weight[:, :, None]
        return _convolve_images(x, weight, strides, pads)[:, 0]
    rows, columns = (
        (size + 2 * padding - kernel) // stride + 1 for size, kernel in zip(x.shape[1:3], weight.shape[2:], strict=True)
    )
    if weight.shape[2:] == (1, 1) or min(rows, columns) < min(weight.shape[2:]):
        return _convolve_patches(x, weight, stride, padding, rows, columns)
    return _convolve_images(x, weight, strides, pads)


def _convolve_images(x_bhwc: Array, weight: Array, strides: Sequence[int], pads: Sequence[tuple[int, int]]) -> Array:
    return lax.conv_general_dilated(x_bhwc, weight, strides, pads, dimension_numbers=("NHWC", "OIHW", "NHWC"))


def _convolve_patches(x_bhwc: Array, weight: Array, stride: int, padding: int, rows: int, columns: int) -> Array:
    """Compute a convolution as a single matrix product of the image patches and the kernel.

    On a CPU, XLA's convolution takes ten times as long as the matrix product if the kernel is larger than the output,
    for example with a 3x3 kernel and an output of 2x2 pixels. For a 1x1 kernel, XLA's convolution takes twice as long
    as the matrix product.
    """
    padded = jnp.pad(x_bhwc, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    down, right = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    patches = [
        padded[:, row : row + down : stride, column : column + right : stride]
        for row, column in itertools.product(*map(range, weight.shape[2:]))
    ]
    return jnp.concatenate(patches, axis=-1) @ weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))


def gelu(x: Array) -> Array:
    """Return the exact GELU ``x Phi(x)`` (Hendrycks and Gimpel 2016), without the tanh approximation.

    `jax.nn.gelu` uses ``erfc``, which takes twice as long on a CPU.
    """
    return 0.5 * x * (1 + erf(x * 0.5**0.5))


def attention(
    q_blh: Array,
    k_blh: Array,
    v_blh: Array,
    heads: int,
    dropout: Callable[[Array, Mode], Array],
    mode: Mode,
    valid: Array | None = None,
) -> Array:
    """Compute scaled dot-product attention (Vaswani et al. 2017) of projected inputs ``[B, L, H]``.

    Dropout applies to the attention weights. `valid` is a bool array that is True at the positions to attend to, and is
    broadcast to ``[B, N, L, L]``. If `valid` is None, all positions are attended to.
    """
    batch, length, size = q_blh.shape
    q, k, v = (x.reshape(batch, length, heads, size // heads) for x in (q_blh, k_blh, v_blh))
    scores_bnll = _wide(jnp.einsum("bqnd,bknd->bnqk", q * (size // heads) ** -0.5, k))
    if valid is not None:
        scores_bnll = jnp.where(valid, scores_bnll, jnp.finfo(scores_bnll.dtype).min)
    weights_bnll = dropout(jax.nn.softmax(scores_bnll).astype(v.dtype), mode)
    return jnp.einsum("bnqk,bknd->bqnd", weights_bnll, v).reshape(batch, length, size)
