"""Comparison of the optimized layers with straightforward implementations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness_jax.layers import convolve, gelu
from harness_jax.networks.lstm import cell, recurrence


def convolution(x: Any, weight: Any, stride: int, padding: int) -> Any:
    """Convolve ``[B, H, W, C]`` with ``[out, in, kh, kw]``, position by position, in float64."""
    x = np.pad(x.astype(np.float64), [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    height, width = weight.shape[2:]
    rows, columns = ((size - kernel) // stride + 1 for size, kernel in zip(x.shape[1:3], (height, width), strict=True))
    y = np.empty((len(x), rows, columns, len(weight)))
    for row in range(rows):
        for column in range(columns):
            patch = x[:, row * stride : row * stride + height, column * stride : column * stride + width]
            y[:, row, column] = np.einsum("bhwi,oihw->bo", patch, weight.astype(np.float64))
    return y


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [
        ((9, 7), 3, 1, 1),
        ((9, 7), 3, 2, 1),
        ((8, 8), 7, 2, 3),
        ((6, 5), 1, 2, 0),  # the following cases are computed as a matrix product
        ((6, 5), 1, 1, 0),
        ((2, 2), 3, 1, 1),
        ((3, 4), 3, 2, 1),
        ((1, 1), 3, 1, 1),
    ],
)
def test_convolution_of_images_equals_its_definition(
    shape: tuple[int, int], kernel: int, stride: int, padding: int
) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *shape, 3)).astype(np.float32)
    weight = rng.standard_normal((4, 3, kernel, kernel)).astype(np.float32)
    y = convolve(jnp.asarray(x), jnp.asarray(weight), stride, padding)
    np.testing.assert_allclose(y, convolution(x, weight, stride, padding), rtol=1e-4, atol=1e-4)


def test_convolution_over_time_equals_its_definition() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 20, 3)).astype(np.float32)
    weight = rng.standard_normal((4, 3, 5)).astype(np.float32)
    frames = [np.einsum("bki,oik->bo", x[:, start : start + 5], weight) for start in range(0, 16, 3)]
    np.testing.assert_allclose(
        convolve(jnp.asarray(x), jnp.asarray(weight), 3, 0), np.stack(frames, axis=1), rtol=1e-4, atol=1e-4
    )


def test_gelu_is_exact_and_not_the_tanh_approximation() -> None:
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    np.testing.assert_allclose(gelu(jnp.asarray(x)), jax.nn.gelu(jnp.asarray(x), approximate=False), atol=1e-6)
    assert np.abs(np.asarray(gelu(jnp.asarray(x)) - jax.nn.gelu(jnp.asarray(x), approximate=True))).max() > 1e-4


def test_custom_gradient_of_the_recurrence_equals_automatic_differentiation() -> None:
    rng = np.random.default_rng(0)
    length, batch, hidden = 5, 3, 4
    gates = jnp.asarray(rng.standard_normal((length, batch, 4 * hidden)), jnp.float32)
    matrix = jnp.asarray(rng.standard_normal((4 * hidden, hidden)), jnp.float32)
    upstream = jnp.asarray(rng.standard_normal((length, batch, hidden)), jnp.float32)

    def step_by_step(gates: Any, matrix: Any) -> Any:
        h_bh = cell_bh = jnp.zeros((batch, hidden))
        states = []
        for gates_bg in gates:
            h_bh, cell_bh = cell(gates_bg + h_bh @ matrix.T, cell_bh)
            states.append(h_bh)
        return jnp.stack(states)

    np.testing.assert_allclose(recurrence(gates, matrix), step_by_step(gates, matrix), rtol=1e-5, atol=1e-6)
    expected = jax.grad(lambda g, m: (step_by_step(g, m) * upstream).sum(), argnums=(0, 1))(gates, matrix)
    actual = jax.grad(lambda g, m: (recurrence(g, m) * upstream).sum(), argnums=(0, 1))(gates, matrix)
    for gradient, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(gradient, reference, rtol=1e-4, atol=1e-5)


def test_gates_are_in_the_order_i_f_g_o() -> None:
    """Open or close each gate separately. If the input and output gates are 1 and the forget gate is 0, the hidden
    state is tanh(tanh(g))."""
    big, g, before = 50.0, 0.3, 0.9
    gates = {"i": jnp.array([[big, -big, g, big]]), "f": jnp.array([[-big, big, g, big]])}
    hidden, state = cell(gates["i"], jnp.array([[before]]))
    np.testing.assert_allclose((hidden[0, 0], state[0, 0]), (np.tanh(np.tanh(g)), np.tanh(g)), rtol=1e-5)
    hidden, state = cell(gates["f"], jnp.array([[before]]))
    np.testing.assert_allclose((hidden[0, 0], state[0, 0]), (np.tanh(before), before), rtol=1e-5)
    closed, _ = cell(jnp.array([[big, -big, g, -big]]), jnp.array([[before]]))
    np.testing.assert_allclose(closed, 0, atol=1e-6)
