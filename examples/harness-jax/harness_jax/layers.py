"""Building blocks of the networks here: pure functions of ``(params, x)``, numerically those of PyTorch.

`Layers` makes them and notes the canonical names that they read. Arrays stay in the canonical layouts: on a CPU,
kernels stored the other way round (dense ``[in, out]``, convolution ``[*kernel, in, out]``) took as long.

Each layer computes in the dtype of its input; norms and softmax in float32 at least.

Shape suffixes: B batch, L positions (tokens or frames), C channels, H hidden size, N heads, D head size.
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
    """How a network is run."""

    training: bool
    dtype: Any
    """What to compute in: float32, bfloat16 or float64."""
    key: Any
    """`jax.random` key of this step, for dropout; None in evaluation mode."""


class Layers:
    """Makes the layers of one network; `bindings` are those of all the canonical arrays that they read."""

    def __init__(self) -> None:
        self.bindings: dict[str, Binding] = {}
        self._dropouts = itertools.count()

    def array(self, name: str) -> str:
        """Note a canonical array; gives its key."""
        self.bindings[name] = Binding(name)
        return name

    def dense(self, name: str) -> Layer:
        """``y = x W^T + b`` on the last axis, W ``[out, in]``."""
        weight, bias = self.array(f"{name}.weight"), self.array(f"{name}.bias")
        return lambda params, x: x @ params[weight].astype(x.dtype).T + params[bias].astype(x.dtype)

    def convolution(self, name: str, stride: int, *, padding: int = 0, bias: bool = False) -> Layer:
        """Over ``[B, L, C]`` or ``[B, H, W, C]``; `padding` zeros on both sides of every spatial axis."""
        weight = self.array(f"{name}.weight")
        added = self.array(f"{name}.bias") if bias else None

        def layer(params: Params, x: Array) -> Array:
            y = convolve(x, params[weight].astype(x.dtype), stride, padding)
            return y if added is None else y + params[added].astype(x.dtype)

        return layer

    def layer_norm(self, name: str, epsilon: float, axis: int = -1) -> Layer:
        """Normalization over `axis`, scaled and shifted along the last one. Over axis 1 of ``[B, L, C]`` it is group
        norm with as many groups as channels."""
        weight, bias = self.array(f"{name}.weight"), self.array(f"{name}.bias")

        def layer(params: Params, x: Array) -> Array:
            wide = _wide(x)
            centered = wide - wide.mean(axis, keepdims=True)
            normal = centered * lax.rsqrt(jnp.square(centered).mean(axis, keepdims=True) + epsilon)
            return (normal * params[weight] + params[bias]).astype(x.dtype)

        return layer

    def batch_norm(self, name: str) -> Callable[[Params, Params, Array, bool], tuple[Array, dict[str, Array]]]:
        """``norm(params, statistics, x, training)`` of ``[B, H, W, C]`` -> ``(y, changed statistics)``.

        As `torch.nn.BatchNorm2d`: eps 1e-5, momentum 0.1; the running variance takes the batch's unbiased variance.
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
        """Zeroes with probability `rate` in training and scales the rest by ``1 / (1 - rate)``."""
        place = next(self._dropouts)

        def layer(x: Array, mode: Mode) -> Array:
            if not (rate and mode.training):
                return x
            kept = jax.random.bernoulli(jax.random.fold_in(mode.key, place), 1 - rate, x.shape)
            return jnp.where(kept, x / (1 - rate), 0)

        return layer


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def convolve(x: Array, weight: Array, stride: int, padding: int) -> Array:
    """Cross-correlation of channels-last `x` with one or two spatial axes; `weight` is ``[out, in, *kernel]``."""
    strides, pads = [stride, stride], [(padding, padding)] * 2
    if x.ndim == 3:  # as an image of height 1: XLA's CPU code for one spatial axis is up to four times slower
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
    """The same by one matrix product over what the kernel sees at each place of ``[B, rows, columns, out]``.

    On a CPU, XLA's convolution takes ten times as long where the kernel is larger than the output (3x3 over 2x2
    pixels), and twice as long as a product where it is a single pixel.
    """
    padded = jnp.pad(x_bhwc, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    down, right = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    seen = [
        padded[:, row : row + down : stride, column : column + right : stride]
        for row, column in itertools.product(*map(range, weight.shape[2:]))
    ]
    return jnp.concatenate(seen, axis=-1) @ weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))


def gelu(x: Array) -> Array:
    """``x Phi(x)`` with the normal distribution function, not its tanh approximation (Hendrycks and Gimpel 2016).

    `jax.nn.gelu` computes it with ``erfc``, which takes twice as long on a CPU.
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
    """Scaled dot-product attention (Vaswani et al. 2017) of projected ``[B, L, H]``; dropout on the probabilities.

    `valid`: bool, broadcast to ``[B, N, L, L]``, true for the positions to attend to.
    """
    batch, length, size = q_blh.shape
    q, k, v = (x.reshape(batch, length, heads, size // heads) for x in (q_blh, k_blh, v_blh))
    scores_bnll = _wide(jnp.einsum("bqnd,bknd->bnqk", q * (size // heads) ** -0.5, k))
    if valid is not None:
        scores_bnll = jnp.where(valid, scores_bnll, jnp.finfo(scores_bnll.dtype).min)
    weights_bnll = dropout(jax.nn.softmax(scores_bnll).astype(v.dtype), mode)
    return jnp.einsum("bnqk,bknd->bqnd", weights_bnll, v).reshape(batch, length, size)
